"""Names from archives and servers as paths that stay in a folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath


class UnsafePathError(ValueError):
    """A name that leads out of its folder, or that no file can have."""


def relative_path(name: str) -> PurePosixPath:
    """A name with forward slashes as a path below a folder; UnsafePathError says why it is none."""
    parts = name.split("/")
    if name.startswith("/") or parts[0].endswith(":"):
        raise UnsafePathError(f"{name!r} is an absolute path")
    if ".." in parts:
        raise UnsafePathError(f"{name!r} leads out of its folder")
    if "\\" in name or "\0" in name:
        raise UnsafePathError(f"{name!r} has a backslash or a zero byte in it")
    path = PurePosixPath(name)
    if not path.parts:
        raise UnsafePathError(f"{name!r} names no file")
    if any(len(part.encode(errors="surrogateescape")) > 255 for part in path.parts) or len(name) > 3000:
        raise UnsafePathError(f"{name[:80]!r}... is too long for a file name")
    return path


def refuse_clashes(paths: Iterable[PurePosixPath]) -> None:
    """UnsafePathError if two files have one name, or one is named as the folder of another."""
    files: set[PurePosixPath] = set()
    for path in paths:
        if path in files:
            raise UnsafePathError(f"{str(path)!r} is there twice")
        files.add(path)
    folders = {folder for path in files for folder in path.parents}
    clash = min(files & folders, default=None)
    if clash is not None:
        raise UnsafePathError(f"{str(clash)!r} is a file and a folder")
