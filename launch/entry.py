"""What every job file calls: parse the command line, find the run folder, and run here, locally or on Slurm."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from launch.failure import leave
from launch.local import run_processes
from launch.options import Command, parse, plain
from launch.resources import Resources
from launch.run_folder import find_run_folder
from launch.submission import Task, submit


def main(config_type: type[Any], resources: Resources, run: Callable[[Any, Path], None]) -> None:
    """Run one job file. The five ways in share this path: plain, --cluster local, --cluster debug, sbatch with srun, torchrun."""
    script = Path(run.__code__.co_filename)
    description = (sys.modules["__main__"].__doc__ or "").strip()
    if not sys.stderr.isatty():  # read by huggingface_hub and transformers when they are imported
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # loader workers fork
    try:
        command = parse(config_type, resources, sys.argv[1:], f"{script.parent.name}/{script.name}", description)
        run_dir = find_run_folder(script.stem, command.config, command.launch.name)
        started = {"command": sys.argv, "resources": asdict(command.resources)}
        task = Task(f"jobs.{script.stem}", plain(command.config), str(run_dir), started)
        _start(task, _cluster(command), command.resources)
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on where it was", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:  # whoever read the output has gone: --help | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        leave(error)


def _cluster(command: Command[Any]) -> str:
    """Where to run; says so when Slurm was not found."""
    if command.launch.cluster != "auto":
        return command.launch.cluster
    if "WORLD_SIZE" in os.environ or "SLURM_STEP_ID" in os.environ:
        return "allocation"
    if shutil.which("sbatch"):
        return "slurm"
    print("no sbatch on the path: running on this machine")
    return "local"


def _start(task: Task, cluster: str, resources: Resources) -> None:
    if cluster == "local" and resources.nodes > 1:
        raise ValueError(
            f"--nodes {resources.nodes}: this machine is one node; use --cluster slurm, or --gpus-per-node for several processes"
        )
    if cluster == "allocation" or (cluster == "local" and resources.processes_per_node == 1):
        if os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0":
            print(f"run folder: {task.run_dir}", flush=True)
        task()
    elif cluster == "local":
        run_processes(task, resources)
    else:
        job = submit(task, cluster, resources)
        print(f"run folder: {task.run_dir}\njob {job.job_id}, log: {job.paths.stdout}", flush=True)
        if cluster == "debug":
            job.results()
