"""What every job file calls: parse the command line, open the run folder, and run here, locally or on Slurm."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from launch.options import Command, parse, plain
from launch.resources import Resources
from launch.run_folder import REPOSITORY, open_run_folder
from launch.submission import Task, follow, submit


def main(config_type: type[Any], resources: Resources, run: Callable[[Any, Path], None]) -> None:
    """Run one job file. The five ways in share this path: plain, --cluster local, --cluster debug, sbatch with srun, torchrun."""
    script = Path(run.__code__.co_filename)
    description = (sys.modules["__main__"].__doc__ or "").strip()
    run_dir: Path | None = None
    if not sys.stderr.isatty():  # read by huggingface_hub and transformers when they are imported
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # loader workers fork
    try:
        command = parse(config_type, resources, sys.argv[1:], f"{script.parent.name}/{script.name}", description)
        run_dir = open_run_folder(script.stem, command.config, command.launch.name)
        task = Task(f"jobs.{script.stem}", plain(command.config), str(run_dir), asdict(command.resources))
        _start(task, _cluster(command), command.resources)
    except KeyboardInterrupt:
        sys.exit("\nstopped; the same command goes on where it was")
    except Exception as error:
        _fail(error, run_dir)


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
    processes = resources.processes_per_node
    if cluster == "allocation" or (cluster == "local" and processes == 1):
        if os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0":
            print(f"run folder: {task.run_dir}", flush=True)
        return task()
    if cluster == "local" and resources.nodes > 1:
        raise ValueError(
            f"--nodes {resources.nodes}: this machine is one node; use --cluster slurm, or --gpus-per-node for several processes"
        )
    job = submit(task, cluster, resources)
    print(f"run folder: {task.run_dir}\njob {job.job_id}, log: {job.paths.stdout}", flush=True)
    if cluster == "debug":
        job.results()
    elif cluster == "local":
        follow(job)


def _fail(error: Exception, run_dir: Path | None) -> NoReturn:
    """One clear line for a mistake the user can mend; the whole traceback for anything else. Both are kept in the run folder."""
    text = "".join(traceback.format_exception(error))
    where = ""
    if run_dir is not None:
        log = run_dir / "logs" / f"error-{os.environ.get('RANK', '0')}.txt"
        try:
            log.write_text(text)
            where = f"\n(traceback: {log})"
        except OSError:  # the disk may be full: the message below matters more
            pass
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        sys.exit(
            f"error: no space left on the disk{f' while writing {error.filename}' if error.filename else ''}; what was finished "
            f"before is whole: free some space and run the same command again{where}"
        )
    if isinstance(error, ValueError | OSError) and _raised_by_us(error):
        sys.exit(f"error: {error}{where}")
    sys.exit(f"{text}{where}")


def _raised_by_us(error: BaseException) -> bool:
    """Whether the innermost frame is this project's own code, whose messages are written for the user."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and Path(frames[-1].filename).is_relative_to(REPOSITORY) and ".venv" not in frames[-1].filename
