"""What every format of region features is read into."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from corpora.regions import Regions
from preprocess.source_files import sha256_of


@dataclass(frozen=True)
class Found:
    """The regions of one image as a file has them; `regions.id` is the file's name of the image."""

    where: str
    """File, and line or row in it, for messages."""
    regions: Regions
    pixels: bool = False
    """Whether boxes are in pixels, not in [0, 1]."""
    size: tuple[int, int] | None = None
    """Width and height of the image the boxes were found in, where the file tells."""


class RegionSource(ABC):
    """A file or folder of region features. It is read twice: first the names, then the rows that are wanted."""

    expected: str
    """The layout in words."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notes: list[str] = []
        """What a user should know about the rows that were read."""
        self.vocabulary: Mapping[str, tuple[str, ...]] = {}
        """class_names and attribute_names, where the file tells."""

    @abstractmethod
    def names(self) -> list[str]:
        """The image name of every row; CorpusError where the file is damaged."""

    @abstractmethod
    def rows(self, wanted: Sequence[bool]) -> Iterator[Found]:
        """The wanted rows, one by one; `wanted` has an entry for every name."""

    def where(self, row: int) -> str:
        """How to call a row, counted from 0, in a message."""
        return f"{self.path}, row {row + 1}"

    def digest(self) -> str:
        """sha256 of the content."""
        return sha256_of(self.path)
