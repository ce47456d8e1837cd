from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from real_processes import die, killed

from training.state_cache import StateCache, write_states


@pytest.fixture
def rows() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.standard_normal((length, 6)).astype(np.float32) for length in (3, 1, 5, 2)]


def test_round_trip(rows, tmp_path):
    write_states(tmp_path / "cache", iter(rows))
    states, mask = StateCache(tmp_path / "cache").padded(np.array([2, 0, 2]))
    assert states.shape == (3, 5, 6) and states.dtype == torch.float32
    assert mask.tolist() == [[True] * 5, [True] * 3 + [False] * 2, [True] * 5]
    np.testing.assert_array_equal(states[0], rows[2])
    np.testing.assert_array_equal(states[1, :3], rows[0])
    assert (states[1, 3:] == 0).all()
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_rows_may_be_of_any_float_type(rows, tmp_path):
    write_states(tmp_path / "cache", (row.astype(np.float64)[:, ::-1] for row in rows))
    states, _ = StateCache(tmp_path / "cache").padded(np.array([1]))
    np.testing.assert_array_equal(states[0], rows[1][:, ::-1])


def test_killed_half_way(rows, tmp_path):
    """A process that dies while writing leaves no cache; the next start writes it whole, whatever was left."""

    def dying():
        yield from [*rows, *rows]
        die()

    killed(lambda: write_states(tmp_path / "cache", dying()))
    assert [path.name for path in tmp_path.iterdir()] == ["cache.part"]
    write_states(tmp_path / "cache", iter(rows))
    states, _ = StateCache(tmp_path / "cache").padded(np.arange(4))
    np.testing.assert_array_equal(states[3, :2], rows[3])
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


@pytest.mark.parametrize("name", ["values.f32", "offsets.npy", "width.npy"])
@pytest.mark.parametrize("size", [0, -24, None], ids=["empty", "cut", "absent"])
def test_damaged(rows, tmp_path, name, size):
    """24 bytes are a whole row of values: its absence must not pass for a narrower cache."""
    folder = tmp_path / "cache"
    write_states(folder, iter(rows))
    if size is None:
        (folder / name).unlink()
    else:
        os.truncate(folder / name, max(0, (folder / name).stat().st_size + size) if size else 0)
    with pytest.raises(ValueError, match=r"cache: not a whole state cache .* remove it and run again"):
        StateCache(folder)


def test_rows_of_different_width(rows, tmp_path):
    for wrong, widths in (([*rows, np.zeros((2, 7))], r"\[6, 7\]"), ([], r"\[\]")):
        with pytest.raises(ValueError, match=f"states {widths} wide; all rows must have one width"):
            write_states(tmp_path / "cache", iter(wrong))
    assert not (tmp_path / "cache").exists()
