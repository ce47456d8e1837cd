"""How a job ends that cannot go on: one clear line for a mistake the user can mend, the whole traceback for anything else."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from launch.slurm import own_job_id
from launch.source import REPOSITORY

TRANSIENT = re.compile(
    "Connection closed by peer|Connection reset|Connection refused|Broken pipe|Socket Timeout|DistBackendError|DistNetworkError"
    "|did not write it within|DistStoreError|NCCL|gloo|CUDA error|cuDNN error|ECC|Input/output error|Remote I/O error|Stale file handle"
    "|transport endpoint|[Tt]imed out|Unable to contact|DataLoader worker .* (killed|exited)|Pin memory thread exited"
)
OUT_OF_MEMORY = re.compile("out of memory|can't allocate memory|Unable to allocate|Cannot allocate memory", re.IGNORECASE)


@dataclass(frozen=True)
class Recorded:
    """An error that a process left behind."""

    rank: int
    trace: str

    @property
    def last_line(self) -> str:
        """The error itself, without the further lines that CUDA and NCCL add to theirs."""
        lines = self.trace.rpartition("Traceback (most recent call last):\n")[2].splitlines()
        return next((line for line in lines if not line.startswith(" ")), "")

    @property
    def transient(self) -> bool:
        """Whether it may be gone the next time: another process's end seen from here, or a machine's fault."""
        return TRANSIENT.search(self.last_line) is not None and not OUT_OF_MEMORY.search(self.last_line)


@contextmanager
def clear_ending() -> Iterator[None]:
    """Whatever is wrong in here ends the program with a message for its user."""
    try:
        yield
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on where it was", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:  # whoever read the output has gone: --help | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        leave(error)


def leave(error: Exception, logs: Path | None = None) -> NoReturn:
    """End the program with exit code 1. Where the folder `logs` exists, the traceback is kept there as error-<rank>.txt."""
    trace = "".join(traceback.format_exception(error)).rstrip()
    message = _message(error) or trace
    try:
        if logs is not None and logs.is_dir():
            kept = logs / f"{_prefix(own_job_id())}{os.environ.get('RANK', '0')}.txt"
            kept.write_text(trace + "\n")
            message += f"\n(traceback: {kept})"
    except OSError:  # the disk may be full: the message matters more
        pass
    if _disk_is_full(error) and "h5py" in trace:
        print(message, file=sys.stderr, flush=True)
        os._exit(1)  # HDF5 crashes when it is torn down over a full disk
    sys.exit(message)


def recorded(logs: Path, job: str = "") -> list[Recorded]:
    """The errors of a job's processes, the earliest first: the later ones are often its echo."""
    prefix = _prefix(job or own_job_id())
    ranks = {path: path.stem.removeprefix(prefix) for path in logs.glob(f"{prefix}*.txt")}
    paths = sorted((path for path, rank in ranks.items() if rank.isdigit()), key=lambda path: path.stat().st_mtime_ns)
    return [Recorded(int(ranks[path]), path.read_text().rstrip()) for path in paths]


def forget(logs: Path) -> None:
    """Remove what an earlier start of this job left: its errors, and results half written, over which submitit would stumble."""
    for path in [*logs.glob(f"{_prefix(own_job_id())}*.txt"), *logs.glob(f"{own_job_id()}_*.save_tmp")]:
        path.unlink()


def _prefix(job: str) -> str:
    """The elements of a job array share a folder of logs."""
    return f"error-{job}-" if job else "error-"


def first_line(error: Exception) -> str:
    """An error in one line, for a table."""
    return (_message(error) or f"{type(error).__name__}: {error}").splitlines()[0]


def _message(error: Exception) -> str | None:
    """What to tell the user in one line; None if the error is no mistake of theirs that we know of."""
    ours = _raised_by_us(error)
    if isinstance(error, ValueError) and ours:
        return f"error: {error}"
    if isinstance(error, MemoryError) or OUT_OF_MEMORY.search(str(error)):
        return out_of_memory(str(error).splitlines()[0] if str(error) else "on this machine")
    if _disk_is_full(error):
        where = f" while writing {error.filename}" if isinstance(error, OSError) and error.filename else ""
        return (
            f"error: no space left on the disk{where}; what was finished before is whole: free some space and run the same "
            "command again"
        )
    return f"error: {error}" if isinstance(error, OSError) and ours else None


def out_of_memory(where: str) -> str:
    """What to tell the user."""
    return (
        f"error: out of memory ({where}); lower --batch-size or --pair-batch, compute in parts with --accumulate or --chunk, or "
        "ask for more with --memory-per-gpu-gb"
    )


def _disk_is_full(error: BaseException) -> bool:
    """Whether a full disk or quota is behind an error; HDF5 and torch tell it in errors of other kinds."""
    full = {os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT)}
    cause = error.__cause__ or error.__context__
    return any(text in str(error) for text in full) or (cause is not None and _disk_is_full(cause))


def _raised_by_us(error: BaseException) -> bool:
    """Whether it comes from a `raise` in this project's own code: those messages are written for the user."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return False
    place = Path(frames[-1].filename)
    ours = place.is_relative_to(REPOSITORY) and "site-packages" not in place.parts
    return ours and (frames[-1].line or "").startswith("raise")  # an error of numpy, in C, has our line as its last frame too
