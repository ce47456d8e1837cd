"""Tables as text: how a cell of each kind is written for people, as CSV for scripts, and as LaTeX for a paper.

Ranks leave this module 1-based, whatever the format.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable
from statistics import median

from error_analysis.section import Cell, Column, Table

NONE = "\u2013"
LEFT = ("text", "query", "item")
"""Kinds whose columns are set flush left; numbers are set flush right."""
LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def decimals(column: Column, values: tuple[Cell, ...]) -> int:
    """How many decimals a column's numbers are shown with, all the same: three digits of the number in the middle."""
    numbers = [abs(value) for value in values if isinstance(value, int | float)]
    if all(number == int(number) for number in numbers):
        return 1 if column.kind == "share" else 0
    if column.kind in ("share", "rank", "count"):
        return 1
    typical = median(number for number in numbers if number)
    return 3 if column.kind == "p" else min(4, max(0, 2 - math.floor(math.log10(typical))))


def shown(cell: Cell, column: Column, places: int) -> str:
    """A cell as people read it."""
    if cell is None:
        return NONE
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, str):
        return cell
    if column.kind == "p" and cell < 0.001:
        return "< 0.001"
    if column.kind == "share":
        return f"{100 * cell:z,.{places}f} %"
    return f"{cell + (column.kind == 'rank'):z,.{places}f}"


def outside(cell: Cell, column: Column) -> Cell:
    """A cell as files hold it: a rank 1-based, all else unrounded."""
    return one_based(cell) if column.kind == "rank" and isinstance(cell, int | float) else cell


def one_based(rank: float) -> float:
    """A 0-based rank as reports give it; whole unless the expected tie policy made it a half."""
    return int(rank) + 1 if rank == int(rank) else rank + 1


def as_csv(table: Table) -> str:
    """The table as CSV: shares in 0..1, ranks 1-based, ids; nothing where there is no figure."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([column.name for column in table.columns])
    writer.writerows([outside(cell, column) for cell, column in zip(row, table.columns, strict=True)] for row in table.rows)
    return text.getvalue()


def as_latex(table: Table) -> str:
    """The table as a longtable with the rules of booktabs, rounded as on the page."""
    lines = [_cells(table, [column.name for column in table.columns])]
    lines += [_cells(table, texts) for texts in written(table)]
    spec = "".join("l" if column.kind in LEFT else "r" for column in table.columns)
    return "\n".join(
        [
            "% \\usepackage{booktabs,longtable}",
            f"\\begin{{longtable}}{{{spec}}}",
            f"\\caption{{{latex(table.title)}}}\\label{{tab:{table.name}}}\\\\",
            "\\toprule",
            lines[0],
            "\\midrule",
            "\\endhead",
            "\\bottomrule",
            "\\endfoot",
            *lines[1:],
            "\\end{longtable}\n",
        ]
    )


def written(table: Table) -> list[list[str]]:
    """All cells as people read them."""
    places = [decimals(column, values) for column, values in zip(table.columns, columns(table), strict=True)]
    write: list[Callable[[Cell], str]] = [
        lambda cell, column=column, count=count: shown(cell, column, count)  # type: ignore[misc]
        for column, count in zip(table.columns, places, strict=True)
    ]
    return [[to_text(cell) for to_text, cell in zip(write, row, strict=True)] for row in table.rows]


def columns(table: Table) -> list[tuple[Cell, ...]]:
    """The cells, column by column."""
    return list(zip(*table.rows, strict=True)) if table.rows else [()] * len(table.columns)


def _cells(table: Table, texts: list[str]) -> str:
    return " & ".join(map(latex, texts)) + r" \\"


def latex(text: str) -> str:
    """Text with LaTeX's own characters escaped, on one line."""
    return re.sub(r"[\\~^<>|&%$#_{}]", lambda found: LATEX[found[0]], " ".join(text.split())).replace(NONE, "--")
