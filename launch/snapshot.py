"""The code as it is when a job is submitted: what the job runs, however long it waits and whatever is edited meanwhile."""

from __future__ import annotations

import hashlib
import os
import shutil
import tomllib
from pathlib import Path

from launch.run_folder import REPOSITORY, REVISION_FILE, revision


def take_snapshot(folder: Path) -> tuple[str, Path]:
    """Copy the project's packages (about a megabyte) to `folder/<digest>/`, once for all jobs of the same code and revision.

    Returns the code's revision and the copy's path. Copies are named by their content, so none is ever changed.
    """
    if (REPOSITORY / REVISION_FILE).exists():  # submitted by a job that runs in one
        return revision(), REPOSITORY
    sources, now = _sources(), revision()
    digest = hashlib.sha256(now.encode())
    for path in sources:
        digest.update(f"{path.relative_to(REPOSITORY)}\0".encode() + path.read_bytes())
    copy = folder / digest.hexdigest()[:16]
    if not copy.exists():
        part = folder / f".{copy.name}.{os.getpid()}.part"
        for path in sources:
            place = part / path.relative_to(REPOSITORY)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
        (part / REVISION_FILE).write_text(now)
        try:
            part.rename(copy)
        except OSError:  # another submission was faster
            shutil.rmtree(part)
    return now, copy


def _sources() -> list[Path]:
    """All files of the packages that pyproject.toml names."""
    packages = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = (path for package in packages for path in (REPOSITORY / package).rglob("*"))
    return sorted(path for path in found if path.is_file() and "__pycache__" not in path.parts)
