"""What a topic of the report is made of: sentences, tables and plots, as data; nothing here knows how they are drawn."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from error_analysis.mining import Direction

Cell = str | int | float | bool | None
Kind = Literal["text", "count", "share", "figure", "rank", "p", "query", "item"]


@dataclass(frozen=True)
class Column:
    """A column's heading and what its cells hold.

    share    in 0..1, shown in percent
    rank     0-based, shown 1-based
    p        a p-value
    query    the id of a query of the table's direction, shown with its caption or thumbnail
    item     the id of an item of the table's direction, shown likewise
    """

    name: str
    kind: Kind = "text"


@dataclass(frozen=True)
class Table:
    """Rows under columns. `name` is a file stem, unique in the report; `direction` is that of the ids in it."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    direction: Direction | None = None

    def __post_init__(self) -> None:
        """ValueError unless every row fits the columns, and every cell is plain, finite Python: an undefined figure is None."""
        _check_name(self.name)
        if self.direction is None and {"query", "item"} & {column.kind for column in self.columns}:
            raise ValueError(f"table {self.name}: holds ids of queries or items, so it needs their direction")
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"table {self.name}: a row of {len(row)} cells under {len(self.columns)} columns")
            for cell in row:
                if not isinstance(cell, str | int | float | None) or (isinstance(cell, float) and not math.isfinite(cell)):
                    raise ValueError(
                        f"table {self.name}: cell {cell!r} ({type(cell).__name__}); give str, int, finite float or None"
                    )


@dataclass(frozen=True)
class Series:
    """Points of one colour; `low` and `high` are the ends of each point's interval."""

    name: str
    x: tuple[float, ...] | tuple[str, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        """ValueError unless there is a finite y, and both ends of an interval or none, for every x."""
        ends = [end for end in (self.low, self.high) if end is not None]
        if len(ends) == 1 or any(len(values) != len(self.x) for values in (self.y, *ends)):
            raise ValueError(f"series {self.name}: {len(self.x)} x, {len(self.y)} y, ends {[len(end) for end in ends]}")
        if not _finite(value for values in (self.x, self.y, *ends) for value in values):
            raise ValueError(f"series {self.name}: a value is not finite; leave the point out")


@dataclass(frozen=True)
class Plot:
    """Series on one pair of axes, whose labels are `x` and `y`. `name` is a file stem, unique in the report."""

    name: str
    title: str
    kind: Literal["line", "bar", "scatter"]
    x: str
    y: str
    series: tuple[Series, ...]
    note: str = ""
    log_x: bool = False
    log_y: bool = False

    def __post_init__(self) -> None:
        _check_name(self.name)


@dataclass(frozen=True)
class Section:
    """One topic: what is wrong, in sentences made from the figures, then the tables and plots that show it."""

    name: str
    title: str
    sentences: tuple[str, ...]
    tables: tuple[Table, ...] = ()
    plots: tuple[Plot, ...] = ()
    lead: str = ""
    """What the overview says of it; by default the first sentence."""


def _finite(values: Iterable[float | str]) -> bool:
    return all(isinstance(value, str) or math.isfinite(value) for value in values)


def _check_name(name: str) -> None:
    """It becomes a file's name and a link's target."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name):
        raise ValueError(f"{name!r}: the name of a table or plot is a file's; use small letters, digits, and . _ -")
