"""Region features as TSV: a line an image, arrays as base64 of little-endian numbers.

LXMERT's (airsplay/lxmert), bottom-up attention's (peteanderson80/bottom-up-attention, shilrley6/Faster-R-CNN...) and VinVL's
(microsoft/Oscar, either its three columns or a JSON object in the second).
"""

from __future__ import annotations

import binascii
import json
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from corpora.corpus import CorpusError
from corpora.regions import Regions
from preprocess.region_source import Found, RegionSource

LONGEST_LINE = 1 << 26
MOST_REGIONS = 10_000


@dataclass(frozen=True)
class Line:
    """One line, its arrays still encoded."""

    where: str
    name: str
    count: int
    cells: Mapping[str, bytes]


class RegionTsv(RegionSource):
    """What the layouts share. Every line is checked for its columns and lengths before the first one is decoded."""

    columns: tuple[str, ...]
    count_column = "num_boxes"
    arrays: ClassVar[Mapping[str, tuple[str, int]]]
    """Numbers a region and kind of the arrays but for features: "f" or "i", of 4 or 8 bytes, which only their length tells."""

    def names(self) -> list[str]:
        width, names = 0, []
        for line in self._lines():
            for column in self.arrays:
                self._dtype(line, column)
            width = width or self._width(line)
            if self._width(line) != width:
                raise _refused(line, f"features are {self._width(line)} wide, in line 1 {width}; the line is cut or changed")
            names.append(line.name)
        return names

    def rows(self, wanted: Sequence[bool]) -> Iterator[Found]:
        for line, take in zip(self._lines(), wanted, strict=True):
            if take:
                yield self.found(line)

    def where(self, row: int) -> str:
        return f"{self.path}, line {row + 1}"

    def found(self, line: Line) -> Found:
        """A line decoded."""
        raise NotImplementedError

    def cells(self, columns: list[bytes]) -> list[bytes]:
        """The columns of a line, brought to those of `columns`."""
        return columns

    def decoded(self, line: Line, column: str) -> np.ndarray:
        """(count,) or (count, numbers a region)."""
        dtype, per_region = self._dtype(line, column) if column in self.arrays else ("<f4", self._width(line))
        try:
            data = binascii.a2b_base64(line.cells[column], strict_mode=True)
        except ValueError as error:
            raise _refused(line, f"{column} is no base64 ({error})") from None
        return np.frombuffer(data, dtype).reshape((line.count, per_region) if per_region > 1 else line.count)

    def integer(self, line: Line, column: str) -> int:
        """A whole number of pixels."""
        return _integer(line.where, line.name, column, line.cells[column], 1 << 20)

    def _lines(self) -> Iterator[Line]:
        try:
            with self.path.open("rb", buffering=1 << 20) as file:
                number = 0
                while data := file.readline(LONGEST_LINE + 1):
                    number += 1
                    yield self._line(f"{self.path}, line {number}", data)
        except OSError as error:
            raise CorpusError(f"{self.path}: cannot be read ({error.strerror})") from None

    def _line(self, where: str, data: bytes) -> Line:
        columns = data.rstrip(b"\r\n").split(b"\t")
        name = columns[0][:200].decode(errors="replace")
        if len(data) > LONGEST_LINE:
            raise CorpusError(f"{where}: longer than {LONGEST_LINE >> 20} MiB; expected {self.expected}")
        columns = self.cells(columns)
        if len(columns) != len(self.columns):
            raise CorpusError(
                f"{where}, image {name}: {len(columns)} columns; the line is cut, or the layout another one; expected {self.expected}"
            )
        if not name or not name.isprintable():
            raise CorpusError(f"{where}: image {name!r} is no name; expected {self.expected}")
        cells = dict(zip(self.columns, columns, strict=True))
        return Line(where, name, _integer(where, name, self.count_column, cells[self.count_column], MOST_REGIONS), cells)

    def _dtype(self, line: Line, column: str) -> tuple[str, int]:
        """(dtype, numbers a region), by the length of an array."""
        kind, per_region = self.arrays[column]
        size, numbers = _decoded_size(line.cells[column]), line.count * per_region
        if size not in (4 * numbers, 8 * numbers):
            raise _refused(
                line,
                f"{column} holds {size:,} bytes, {line.count} boxes need {4 * numbers:,} or {8 * numbers:,}; the line is cut or changed",
            )
        return f"<{kind}{size // numbers}", per_region

    def _width(self, line: Line) -> int:
        size = _decoded_size(line.cells["features"])
        if not size or size % (4 * line.count):
            raise _refused(
                line, f"features hold {size:,} bytes, which {line.count} boxes cannot share; the line is cut or changed"
            )
        return size // (4 * line.count)


class LxmertTsv(RegionTsv):
    """LXMERT's {train,val}2014_obj36.tsv."""

    columns = (
        *("img_id", "img_h", "img_w", "objects_id", "objects_conf", "attrs_id", "attrs_conf"),
        *("num_boxes", "boxes", "features"),
    )
    arrays: ClassVar = {
        "boxes": ("f", 4),
        "objects_id": ("i", 1),
        "objects_conf": ("f", 1),
        "attrs_id": ("i", 1),
        "attrs_conf": ("f", 1),
    }
    expected = f"LXMERT's ten columns without a header: {' '.join(columns)}"

    def found(self, line: Line) -> Found:
        labels = ("objects_id", "objects_conf", "attrs_id", "attrs_conf")
        arrays = [self.decoded(line, column) for column in ("features", "boxes", *labels)]
        return Found(line.where, Regions(line.name, *arrays), True, (self.integer(line, "img_w"), self.integer(line, "img_h")))


class BottomUpTsv(RegionTsv):
    """Bottom-up attention's; one of its programs writes boxes as float64 and reads them as float32."""

    columns = ("image_id", "image_w", "image_h", "num_boxes", "boxes", "features")
    arrays: ClassVar = {"boxes": ("f", 4)}
    expected = f"bottom-up attention's six columns without a header: {' '.join(columns)}"

    def found(self, line: Line) -> Found:
        features, boxes = self.decoded(line, "features"), self.decoded(line, "boxes")
        if boxes.dtype == np.float64 and not self.notes:
            self.notes.append(f"{line.where}: boxes are float64, as their length tells; read as such")
        return Found(
            line.where, Regions(line.name, features, boxes), True, (self.integer(line, "image_w"), self.integer(line, "image_h"))
        )


class VinvlTsv(RegionTsv):
    """VinVL's: the last six of its 2,054 numbers a region are x1 y1 x2 y2 width height in [0, 1]."""

    columns = ("image_id", "num_boxes", "features")
    arrays: ClassVar = {}
    expected = 'VinVL\'s columns without a header: image_id num_boxes features, or image_id {"num_boxes": ..., "features": ...}'

    def cells(self, columns: list[bytes]) -> list[bytes]:
        if len(columns) != 2:
            return columns
        try:
            row = json.loads(columns[1])
            return [columns[0], str(row["num_boxes"]).encode(), row["features"].encode()]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return columns  # two, which is refused

    def found(self, line: Line) -> Found:
        numbers = self.decoded(line, "features")
        if numbers.ndim != 2 or numbers.shape[1] < 7:
            raise _refused(line, f"{numbers.size // line.count} numbers a region; the last six should be its box")
        features, boxes, sides = np.split(numbers, (-6, -2), axis=1)
        with np.errstate(all="ignore"):
            if not (np.abs(boxes[:, 2:] - boxes[:, :2] - sides) < 0.02).all():
                raise _refused(line, "the last six numbers of a region are not x1 y1 x2 y2 width height")
        return Found(line.where, Regions(line.name, features, boxes))


def write_lxmert_tsv(path: Path, images: Iterator[tuple[Regions, tuple[int, int]]]) -> None:
    """A line for every (regions, (width, height)); regions must have all four labels."""
    with path.open("wb") as file:
        for regions, (width, height) in images:
            boxes = regions.boxes.astype(np.float64) * np.tile((width, height), 2)
            labels = regions.labels
            arrays = {
                "objects_id": labels["classes"].astype("<i8"),
                "objects_conf": labels["scores"].astype("<f4"),
                "attrs_id": labels["attributes"].astype("<i8"),
                "attrs_conf": labels["attribute_scores"].astype("<f4"),
                "boxes": boxes.astype("<f4"),
                "features": regions.features.astype("<f4"),
            }
            cells = {"img_id": regions.id, "img_h": str(height), "img_w": str(width), "num_boxes": str(len(boxes))}
            row = {name: text.encode() for name, text in cells.items()} | {
                name: b64encode(a.tobytes()) for name, a in arrays.items()
            }
            file.write(b"\t".join(row[column] for column in LxmertTsv.columns) + b"\r\n")  # as Python's csv ends them


def _decoded_size(cell: bytes) -> int:
    """How many bytes a base64 text stands for."""
    return len(cell) // 4 * 3 - (len(cell[-2:]) - len(cell[-2:].rstrip(b"=")))


def _integer(where: str, name: str, column: str, cell: bytes, most: int) -> int:
    text = cell[:20].decode(errors="replace")
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= most):
        raise CorpusError(f"{where}, image {name}: {column} is {text!r}; expected a whole number from 1 to {most:,}")
    return int(text)


def _refused(line: Line, why: str) -> CorpusError:
    return CorpusError(f"{line.where}, image {line.name}: {why}; fetch the file again")
