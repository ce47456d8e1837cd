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

from launch.resources import Resources
from launch.submission import Task, submit

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
        job = submit(task, "local", resources)
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
    shown = {job.paths.stdout: 0, job.paths.stderr: 0}
    deadline = float("inf")
    while True:
        done = job.done()
        for path, stream in ((job.paths.stdout, sys.stdout), (job.paths.stderr, sys.stderr)):
            if path.exists():
                with path.open("rb") as log:
                    log.seek(shown[path])
                    stream.buffer.write(log.read())
                    shown[path] = log.tell()
                stream.flush()
        if done or time.monotonic() > deadline:
            return
        if deadline == float("inf") and _errors(job):
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


def _errors(job: submitit.Job[None]) -> list[int]:
    """Ranks that failed with an exception (launch.failure wrote it down), the earliest first: the later ones are often its echo."""
    found = sorted(job.paths.folder.glob("error-*.txt"), key=lambda path: path.stat().st_mtime_ns)
    return [int(path.stem.removeprefix("error-")) for path in found]


def _verdict(job: submitit.Job[None], failed: list[int], stopped: bool) -> str | int:
    """What to tell the user last, or the bare exit code if rank 0 has told it already."""
    errors = _errors(job)
    silent = [rank for rank in failed if rank not in errors]
    if silent and not (errors and stopped):
        return f"error: process {silent[0]} ended without a word: killed, perhaps for want of memory or disk\n(logs: {job.paths.folder})"
    first = errors[0]
    if first == 0 or (0 in errors and _last_line(job, 0) == _last_line(job, first)):
        return 1
    return f"process {first} failed first:\n{job.task(first).paths.stderr.read_text(errors='replace')[-10_000:].rstrip()}"


def _last_line(job: submitit.Job[None], rank: int) -> str:
    return Path(job.paths.folder, f"error-{rank}.txt").read_text().splitlines()[-1]
