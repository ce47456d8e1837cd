"""Long work in pieces: a folder of files, each written whole.

Any number of jobs can share the work, a killed one loses the piece it was at, and whoever finds all pieces there can join them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corpora.store import StoreError


@dataclass(frozen=True)
class Part:
    """A job's part of the pieces: the `number`-th of `count` jobs, counted from 1, takes every `count`-th piece."""

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Part:
        """ "3/8" is the third of eight; "" is all of it."""
        if not text:
            return cls()
        numbers = re.fullmatch(r"(\d+)/(\d+)", text)
        part = cls(int(numbers[1]), int(numbers[2])) if numbers else cls(0, 0)
        if not 1 <= part.number <= part.count:
            raise StoreError(f"--part {text}: expected a number and a count, such as 3/8 for the third of eight jobs")
        return part

    def share(self, rank: int, size: int) -> Part:
        """What the process `rank`, counted from 0, of the job's `size` processes takes of this part."""
        return Part(self.number + self.count * rank, self.count * size)

    def __contains__(self, piece: int) -> bool:
        return piece % self.count == self.number - 1


class Pieces:
    """A folder of `count` numbered files that are made from the same things (`identity`); StoreError if it holds pieces of others."""

    def __init__(self, folder: Path, count: int, identity: Mapping[str, Any]) -> None:
        self.folder, self.count = folder, count
        folder.mkdir(parents=True, exist_ok=True)
        wanted = json.dumps({**identity, "pieces": count}, indent=1, sort_keys=True)
        kept = folder / "identity.json"
        if not kept.exists():
            aside = folder / f"identity.json.{os.uname().nodename}.{os.getpid()}"
            aside.write_text(wanted)
            aside.replace(kept)
        if kept.read_text() != wanted:
            raise StoreError(
                f"{folder}: holds pieces of work that was begun with other options or files; remove the folder to begin anew"
            )

    def path(self, number: int) -> Path:
        """Where a piece is, once it is written."""
        return self.folder / f"{number:06d}"

    def missing(self, part: Part = Part()) -> list[int]:
        """The pieces of a part that are not there yet."""
        there = {path.name for path in self.folder.iterdir()}
        return [number for number in range(self.count) if number in part and self.path(number).name not in there]

    @property
    def whole(self) -> bool:
        """Whether every piece is there."""
        return not self.missing()

    @contextmanager
    def writing(self, number: int) -> Iterator[Path]:
        """The path to write a piece to; it takes its own name when the block ends without an error."""
        aside = self.folder / f"{number:06d}.{os.uname().nodename}.{os.getpid()}"
        try:
            yield aside
            aside.replace(self.path(number))
        finally:
            aside.unlink(missing_ok=True)

    def remove(self) -> None:
        """Throw the pieces away, after they were joined."""
        shutil.rmtree(self.folder, ignore_errors=True)
