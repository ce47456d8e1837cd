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


def save_checkpoint(folder: Path, step: int, write: Callable[[Path], None]) -> Path:
    """Have `write` fill a new checkpoint folder and commit it. On a full disk: OSError ENOSPC, the old ones untouched."""
    final, part = folder / f"step-{step:08d}", folder / f".step-{step:08d}.part"
    shutil.rmtree(part, ignore_errors=True)  # left by a run that was killed
    part.mkdir(parents=True)
    try:
        write(part)
        _write_manifest(part)
    except Exception as error:
        # torch and safetensors report a full disk as errors of their own kinds
        full = "No space left" in str(error) or shutil.disk_usage(folder).free < 1 << 16
        shutil.rmtree(part, ignore_errors=True)
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(final)) from error
        raise
    shutil.rmtree(final, ignore_errors=True)
    part.rename(final)
    _flush(folder)
    link(folder, "last", final)
    return final


def link(folder: Path, name: str, target: Path) -> None:
    """Point `folder/name` at a checkpoint, in one step."""
    new = folder / f".{name}.part"
    new.unlink(missing_ok=True)
    new.symlink_to(target.name)
    new.replace(folder / name)


def prune(folder: Path, keep: int = 2) -> None:
    """Delete all but the newest checkpoints and the one that `best` points at."""
    best = (folder / "best").resolve()
    for old in _all(folder)[:-keep]:
        if old != best:
            shutil.rmtree(old)


def newest(folder: Path) -> Path | None:
    """The newest whole checkpoint, or None. A damaged one is named on the terminal and passed over."""
    for path in reversed(_all(folder)):
        fault = damage(path)
        if fault is None:
            return path
        print(f"checkpoint {path} is damaged ({fault}); taking the one before it")
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


def _all(folder: Path) -> list[Path]:
    return sorted(path.resolve() for path in folder.glob("step-*") if re.fullmatch(r"step-\d{8}", path.name))


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
