"""What every job file calls: parse the command line, find the run folder, and run here, locally or on Slurm."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from launch import slurm
from launch.failure import clear_ending
from launch.following import follow
from launch.local import run_processes
from launch.options import Command, Launch, parse, plain
from launch.process_group import Place, find_place
from launch.resources import Resources
from launch.run_folder import find_run_folder
from launch.submission import batch_script, debug, job_at_work, submit
from launch.task import Task


def main(config_type: type[Any], resources: Resources, run: Callable[[Any, Path], None]) -> None:
    """Run one job file. The five ways in share this path: plain, --cluster local, --cluster debug, sbatch with srun, torchrun."""
    script = Path(run.__code__.co_filename)
    description = (sys.modules["__main__"].__doc__ or "").strip()
    if not sys.stderr.isatty():  # read by huggingface_hub and transformers when they are imported
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # loader workers fork
    with clear_ending():
        command = parse(config_type, resources, sys.argv[1:], f"{script.parent.name}/{script.name}", description)
        run_dir = find_run_folder(script.stem, command.config, command.launch.name)
        started = {"command": sys.argv, "resources": asdict(command.resources)}
        task = Task(f"jobs.{script.stem}", plain(command.config), str(run_dir), started)
        _start(task, _cluster(command), command.resources, command.launch)


def _cluster(command: Command[Any]) -> str:
    """Where to run; says so when Slurm was not found."""
    if command.launch.cluster != "auto":
        return command.launch.cluster
    if find_place() is not None:
        return "allocation"
    if slurm.is_set_up():
        return "slurm"
    print("no Slurm is set up here: running on this machine")
    return "local"


def _start(task: Task, cluster: str, resources: Resources, launch: Launch) -> None:
    if cluster == "local" and resources.nodes > 1:
        raise ValueError(
            f"--nodes {resources.nodes}: this machine is one node; use --cluster slurm, or --gpus-per-node for several processes"
        )
    if launch.dry_run and cluster != "slurm":
        raise ValueError(f"--dry-run: prints what Slurm would get, but this would run on --cluster {cluster}")
    if cluster == "slurm":
        _on_slurm(task, resources, launch)
    elif cluster == "debug":
        print(f"run folder: {task.run_dir}", flush=True)
        debug(task, resources)
    elif cluster == "local" and resources.processes_per_node > 1:
        run_processes(task, resources)
    else:
        if (find_place() or Place()).rank == 0:
            print(f"run folder: {task.run_dir}", flush=True)
        task()


def _on_slurm(task: Task, resources: Resources, launch: Launch) -> None:
    run_dir = Path(task.run_dir)
    if launch.dry_run:
        print(batch_script(task, resources))
        return
    submission = job_at_work(run_dir) if launch.follow else None
    submission = submission or submit(task, resources)
    print(f"run folder: {run_dir}\njob {submission.job}, log: {submission.log}", flush=True)
    if launch.follow:
        sys.exit(follow(run_dir, submission))
