"""Several processes on this machine, through submitit's local executor: what the terminal shows of them, and how they end."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from launch.failure import recorded
from launch.following import Tail
from launch.resources import Resources
from launch.submission import submit_locally
from launch.task import Task

if TYPE_CHECKING:
    import submitit

SECONDS_TO_END = 10.0
"""After one process failed, the others have this long to end by themselves; they may wait for it for ever."""


def run_processes(task: Task, resources: Resources) -> None:
    """Run a task as several processes. The terminal shows rank 0; after a failure the process that failed first, and the exit code is 1."""
    os.environ["SUBMITIT_LOG_LEVEL"] = "CRITICAL"  # what submitit has to say is nothing to the user
    if "CUDA_VISIBLE_DEVICES" in os.environ:  # submitit would number the GPUs from 0: process_group brings the user's choice back
        os.environ["MISRANK_GPUS"] = os.environ["CUDA_VISIBLE_DEVICES"]
    # submitit ends processes by SIGINT, which what a script starts with `&` ignores, and so would they
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with _silent_stderr():
        job = submit_locally(task, resources)
    print(f"run folder: {task.run_dir}\n{resources.processes_per_node} processes, logs: {job.paths.folder}", flush=True)
    try:
        _follow(job)
    finally:
        stopped = _stop(job)
    failed = [rank for rank in range(resources.processes_per_node) if not job.task(rank).paths.result_pickle.exists()]
    if failed:
        sys.exit(_verdict(job, failed, stopped))


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """What is started in here has no stderr: submitit's controller would print a traceback of its own on Ctrl-C."""
    kept = os.dup(2)
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _follow(job: submitit.Job[None]) -> None:
    """Copy rank 0's output to the terminal until all processes have ended, or one failed and the others did not end in time."""
    tails = [Tail(job.paths.stdout, sys.stdout), Tail(job.paths.stderr, sys.stderr)]
    deadline = float("inf")
    while True:
        done = job.done()
        for tail in tails:
            tail.show()
        if done or time.monotonic() > deadline:
            return
        if deadline == float("inf") and recorded(job.paths.folder):
            deadline = time.monotonic() + SECONDS_TO_END
        time.sleep(0.2)


def _stop(job: submitit.Job[None]) -> bool:
    """End what still runs; whether there was anything."""
    if job.done():
        return False
    job.cancel()
    while not job.done():
        time.sleep(0.1)
    return True


def _verdict(job: submitit.Job[None], failed: list[int], stopped: bool) -> str | int:
    """What to tell the user last, or the bare exit code if rank 0 has told it already."""
    errors = recorded(job.paths.folder)
    ranks = [error.rank for error in errors]
    silent = [rank for rank in failed if rank not in ranks]
    if silent and not (errors and stopped):
        return f"error: process {silent[0]} ended without a word: killed, perhaps for want of memory or disk\n(logs: {job.paths.folder})"
    first = errors[0]
    if first.rank == 0 or any(error.rank == 0 and error.last_line == first.last_line for error in errors):
        return 1
    return (
        f"process {first.rank} failed first:\n{job.task(first.rank).paths.stderr.read_text(errors='replace')[-10_000:].rstrip()}"
    )
