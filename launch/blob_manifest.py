"""Which files of a folder are the same as which blobs: one line a file, added when it was fetched or sent whole and checked."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from launch.part_file import file_digests


@dataclass(frozen=True)
class Same:
    """A file and the blob whose content it has."""

    name: str
    """The blob's."""
    etag: str
    size: int
    """Bytes."""
    modified: int
    """When the file was last changed, in nanoseconds."""
    sha256: str


class Manifest:
    """A file of such lines; the last one on a blob counts. A line that was cut short is no line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, Same] = {}
        for line in path.read_bytes().splitlines(keepends=True) if path.exists() else []:
            try:
                same = Same(**json.loads(line))
            except (ValueError, TypeError):
                continue
            self._known[same.name] = same

    def holds(self, name: str, etag: str, file: Path) -> bool:
        """Whether the file is there as it was when it was the blob of this ETag. One with a new date is read again."""
        known = self._known.get(name)
        if known is None or known.etag != etag or not file.is_file():
            return False
        now = file.stat()
        if now.st_size != known.size:
            return False
        return now.st_mtime_ns == known.modified or file_digests(file, ["sha256"])["sha256"] == known.sha256

    def add(self, name: str, etag: str, file: Path, sha256: str) -> None:
        """Note that the file has the content of the blob; from one thread alone."""
        now = file.stat()
        same = Same(name, etag, now.st_size, now.st_mtime_ns, sha256)
        self._known[name] = same
        with self._path.open("ab") as lines:
            lines.write(b"\n" * self._is_cut() + json.dumps(asdict(same)).encode() + b"\n")

    def _is_cut(self) -> bool:
        with self._path.open("rb") as lines:
            if lines.seek(0, os.SEEK_END) == 0:
                return False
            lines.seek(-1, os.SEEK_END)
            return lines.read(1) != b"\n"
