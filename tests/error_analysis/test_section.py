from __future__ import annotations

import math

import numpy as np
import pytest

from error_analysis.section import Column, Plot, Series, Table


@pytest.mark.parametrize("cell", [float("nan"), math.inf, -math.inf, np.int64(3), np.float32(0.5), [1], b"x"])
def test_a_cell_is_plain_and_finite(cell):
    with pytest.raises(ValueError, match=r"table t: cell .* \(\w+\); give str, int, finite float or None"):
        Table("t", "T", (Column("a"),), ((cell,),))


def test_what_a_cell_may_be():
    cells = ("text", 3, 0.5, np.float64(0.25), True, None)
    assert Table("t", "T", tuple(Column(str(n)) for n in range(6)), (cells,)).rows == (cells,)


def test_a_row_fits_the_columns():
    with pytest.raises(ValueError, match="table t: a row of 2 cells under 1 columns"):
        Table("t", "T", (Column("a"),), ((1, 2),))


@pytest.mark.parametrize("kind", ["query", "item"])
def test_ids_need_a_direction(kind):
    with pytest.raises(ValueError, match=r"table t: .* needs their direction"):
        Table("t", "T", (Column("a", kind),), ())
    Table("t", "T", (Column("a", kind),), (), direction="i2t")


@pytest.mark.parametrize("name", ["", "a b", "../x", "Big", ".hidden", "ü"])
def test_a_name_is_a_file_stem(name):
    with pytest.raises(ValueError, match="the name of a table or plot is a file's"):
        Table(name, "T", (), ())
    with pytest.raises(ValueError, match="the name of a table or plot is a file's"):
        Plot(name, "T", "line", "x", "y", ())


@pytest.mark.parametrize(
    "wrong",
    [
        {"y": (1.0,)},
        {"low": (0.0, 0.0)},
        {"high": (0.0, 0.0)},
        {"low": (0.0,), "high": (1.0, 1.0)},
        {"low": (0.0, 0.0), "high": (1.0,)},
    ],
)
def test_a_series_has_a_value_for_every_x(wrong):
    with pytest.raises(ValueError, match="series s: 2 x"):
        Series("s", **{"x": (1.0, 2.0), "y": (1.0, 2.0)} | wrong)


@pytest.mark.parametrize("field", ["x", "y", "low", "high"])
def test_a_point_is_finite(field):
    values = {name: (0.0, 1.0) for name in ("x", "y", "low", "high")}
    Series("s", **values)
    with pytest.raises(ValueError, match="series s: a value is not finite"):
        Series("s", **values | {field: (0.0, float("nan"))})
