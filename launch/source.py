"""The project's own code: which revision it is, what was edited in it, and the copy that a submitted job runs."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
REVISION_FILE = "REVISION"
"""In a copy of the code: the revision it was taken from."""


def revision() -> str:
    """git revision of the code, with "+changes" if the checkout was edited; empty outside a checkout."""
    if (REPOSITORY / REVISION_FILE).exists():  # this code is a copy
        return (REPOSITORY / REVISION_FILE).read_text()
    head = _git("rev-parse", "HEAD")
    return head + ("+changes" if head and _git("status", "--porcelain") else "")


def edits() -> str:
    """What was changed in the checkout since its revision, as a diff; empty for a copy, which holds the changed files."""
    return "" if (REPOSITORY / REVISION_FILE).exists() else _git("diff", "HEAD")


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(REPOSITORY), *arguments], capture_output=True, text=True, errors="replace", check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def take_snapshot(folder: Path) -> Path:
    """Copy the project's packages (about a megabyte) to `folder/<digest>/`, once for all jobs of the same code and revision.

    Returns the copy's path. Copies are named by their content, so none is ever changed.
    """
    if (REPOSITORY / REVISION_FILE).exists():  # submitted by a job that runs in one
        return REPOSITORY
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
    return copy


def _sources() -> list[Path]:
    """All files of the packages that pyproject.toml names."""
    packages = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = (path for package in packages for path in (REPOSITORY / package).rglob("*"))
    return sorted(path for path in found if path.is_file() and "__pycache__" not in path.parts)
