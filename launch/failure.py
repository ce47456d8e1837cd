"""How a job ends that cannot go on: one clear line for a mistake the user can mend, the whole traceback for anything else."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from pathlib import Path
from typing import NoReturn

REPOSITORY = Path(__file__).resolve().parent.parent


def leave(error: Exception, logs: Path | None = None) -> NoReturn:
    """End the program with exit code 1. Where the folder `logs` exists, the traceback is kept there as error-<rank>.txt."""
    trace = "".join(traceback.format_exception(error)).rstrip()
    message = _message(error) or trace
    try:
        if logs is not None and logs.is_dir():
            kept = logs / f"error-{os.environ.get('RANK', '0')}.txt"
            kept.write_text(trace + "\n")
            message += f"\n(traceback: {kept})"
    except OSError:  # the disk may be full: the message matters more
        pass
    if _disk_is_full(error) and "h5py" in trace:
        print(message, file=sys.stderr, flush=True)
        os._exit(1)  # HDF5 crashes when it is torn down over a full disk
    sys.exit(message)


def _message(error: Exception) -> str | None:
    """What to tell the user in one line; None if the error is no mistake of theirs that we know of."""
    ours = _raised_by_us(error)
    if isinstance(error, ValueError) and ours:
        return f"error: {error}"
    if _disk_is_full(error):
        where = f" while writing {error.filename}" if isinstance(error, OSError) and error.filename else ""
        return (
            f"error: no space left on the disk{where}; what was finished before is whole: free some space and run the same "
            "command again"
        )
    return f"error: {error}" if isinstance(error, OSError) and ours else None


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
