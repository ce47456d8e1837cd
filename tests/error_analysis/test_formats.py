from __future__ import annotations

import csv
import io

import pytest

from error_analysis.formats import as_csv, as_latex, decimals, latex, one_based, outside, shown
from error_analysis.section import Column, Table

TABLE = Table(
    "mixed",
    "50 % of A & B",
    (
        Column("Name"),
        Column("n", "count"),
        Column("R@1", "share"),
        Column("rank", "rank"),
        Column("p", "p"),
        Column("q", "query"),
    ),
    (
        ('a "b", c', 1200, 0.5, 0, 0.0004, "c1"),
        ("100 %_$#{}~^\\", 7, 1 / 3, 1499, 0.04, "c2"),
        (None, None, None, None, None, None),
    ),
    direction="t2i",
)


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        ("figure", (1, 2.0, None), 0),
        ("figure", (), 0),
        ("figure", (0.0,), 0),
        ("figure", (35.25, 62.1, 88.0), 1),
        ("figure", (3.04, 9.5), 2),
        ("figure", (0.312, 0.2, 12.0), 3),
        ("figure", (-0.031, 0.02, 0.0), 4),
        ("figure", (1e-9,), 4),
        ("figure", (412.5, 981.25), 0),
        ("share", (0, 1), 1),
        ("share", (0.123,), 1),
        ("rank", (3, 4), 0),
        ("rank", (3.5, 4), 1),
        ("p", (0.0123, 0.4), 3),
        ("count", (3, 4), 0),
        ("count", (3.25,), 1),  # expected counts
    ],
)
def test_decimals(kind, values, expected):
    assert decimals(Column("x", kind), values) == expected


@pytest.mark.parametrize(
    ("cell", "kind", "places", "expected"),
    [
        (None, "figure", 1, "\u2013"),
        (True, "text", 0, "yes"),
        (False, "count", 0, "no"),
        ("word", "figure", 1, "word"),
        (0.12345, "share", 1, "12.3 %"),
        (0, "rank", 0, "1"),
        (0.5, "rank", 1, "1.5"),
        (1234567, "count", 0, "1,234,567"),
        (0.00099, "p", 3, "< 0.001"),
        (0.001, "p", 3, "0.001"),
        (-0.04, "figure", 1, "0.0"),  # never -0.0
        (-0.00004, "share", 1, "0.0 %"),
        (-1.25, "figure", 2, "-1.25"),
    ],
)
def test_shown(cell, kind, places, expected):
    assert shown(cell, Column("x", kind), places) == expected


def test_ranks_leave_1_based():
    assert [outside(cell, Column("x", "rank")) for cell in (0, 9, 9.5, None, "none")] == [1, 10, 10.5, None, "none"]
    assert outside(9, Column("x", "count")) == 9
    assert one_based(3.0) == 4 and isinstance(one_based(3.0), int)


def test_csv():
    rows = list(csv.reader(io.StringIO(as_csv(TABLE))))
    assert rows == [
        ["Name", "n", "R@1", "rank", "p", "q"],
        ['a "b", c', "1200", "0.5", "1", "0.0004", "c1"],
        ["100 %_$#{}~^\\", "7", str(1 / 3), "1500", "0.04", "c2"],
        ["", "", "", "", "", ""],
    ]


def test_latex():
    lines = as_latex(TABLE).splitlines()
    assert lines[1] == r"\begin{longtable}{lrrrrl}"
    assert lines[2] == r"\caption{50 \% of A \& B}\label{tab:mixed}\\"
    assert r"Name & n & R@1 & rank & p & q \\" in lines
    assert r'a "b", c & 1,200 & 50.0 \% & 1 & \textless{} 0.001 & c1 \\' in lines
    assert r"100 \%\_\$\#\{\}\textasciitilde{}\textasciicircum{}\textbackslash{} & 7 & 33.3 \% & 1,500 & 0.040 & c2 \\" in lines
    assert r"-- & -- & -- & -- & -- & -- \\" in lines


def test_latex_keeps_a_text_on_one_line_and_other_alphabets():
    assert latex("a\n\nb\tc 狗") == "a b c 狗"


def test_a_table_without_rows():
    empty = Table("empty", "E", (Column("a"), Column("b", "figure")), ())
    assert as_csv(empty) == "a,b\n" and r"a & b \\" in as_latex(empty)
