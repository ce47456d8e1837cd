"""Checkpoints that survive a kill at any moment and a full disk.

`checkpoints/step-00001200/` is written aside, flushed and renamed; only then is the oldest deleted. (accelerate's own
save deletes first, so that a full disk leaves none.) `last` and `best` are links. A manifest with sha256 says what is
whole: a damaged checkpoint is passed over for the one before it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

MANIFEST = "manifest.json"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the operating system says when a disk, a quota or a file is full."""


def checkpoint_at(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step stands."""
    return folder / f"step-{step:08d}"


def save_checkpoint(folder: Path, step: int, write: Callable[[Path], None]) -> Path:
    """Have `write` fill a new checkpoint folder and commit it. On a full disk: OSError ENOSPC or the like, the old ones untouched."""
    final = checkpoint_at(folder, step)
    # A name of its own: the orphan of a lost node may still be writing the same step
    part = folder / f".{final.name}.{os.uname().nodename}.{os.getpid()}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        write(part)
        _write_manifest(part)
    except Exception as error:
        full = _no_room(error)
        shutil.rmtree(part, ignore_errors=True)
        if full is None:
            raise
        raise OSError(full, os.strerror(full), str(final)) from error
    shutil.rmtree(final, ignore_errors=True)  # only a damaged one can stand there: the run went on from before it
    part.rename(final)
    _flush(folder)
    return final


def point(folder: Path, last: int, best: int | None) -> None:
    """Point the links `last` and `best` at the checkpoints of these steps."""
    for name, step in (("last", last), ("best", best)):
        if step is not None:
            new = folder / f".{name}.part"
            new.unlink(missing_ok=True)
            new.symlink_to(checkpoint_at(folder, step).name)
            new.replace(folder / name)


def prune(folder: Path, last: int, best: int | None, keep: int = 2) -> None:
    """Delete all but the `keep` newest checkpoints up to step `last` and the best one, and what killed runs left.

    A checkpoint after `last` is a damaged one that the run has passed over.
    """
    upto = [path for path in _all(folder) if path.name <= checkpoint_at(folder, last).name]
    kept = {*upto[-keep:], *([] if best is None else [checkpoint_at(folder, best)])}
    for path in [*_all(folder), *folder.glob(".step-*.part")]:
        if path not in kept:
            shutil.rmtree(path)


def newest(folder: Path) -> Path | None:
    """The newest whole checkpoint, or None before the first. A damaged one is named on the terminal and passed over.

    Checkpoints of which none is whole raise ValueError: starting anew would delete what could perhaps be saved.
    """
    faults = {}
    for path in reversed(_all(folder)):
        fault = damage(path)
        if fault is None:
            return path
        print(f"checkpoint {path} is damaged ({fault}); trying the one before it", flush=True)
        faults[path.name] = fault
    if faults:
        raise ValueError(f"{folder}: no whole checkpoint among {', '.join(faults)}; remove the folder to start anew")
    return None


def damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, or None if every file has the size and digest it was written with."""
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_text())
        for name, expected in manifest.items():
            if _digest(checkpoint / name) != expected:
                return f"{name} has changed or is cut short"
    except (OSError, ValueError) as error:
        return str(error)
    return None


def _no_room(error: BaseException | None) -> int | None:
    """The number of the full disk or quota behind a failed write, or None: torch and safetensors raise errors of their own kinds."""
    while error is not None:
        for number in NO_ROOM:
            if os.strerror(number) in str(error):
                return number
        error = error.__cause__ or error.__context__
    return None


def _all(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*") if re.fullmatch(r"step-\d{8}", path.name))


def _write_manifest(part: Path) -> None:
    files = sorted(path for path in part.rglob("*") if path.is_file())
    manifest = {str(path.relative_to(part)): _digest(path) for path in files}
    (part / MANIFEST).write_text(json.dumps(manifest, indent=1))
    for path in [*files, part / MANIFEST, *(path for path in part.rglob("*") if path.is_dir()), part]:
        _flush(path)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
