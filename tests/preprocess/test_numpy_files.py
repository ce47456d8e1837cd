"""Arrays of strangers: no pickles, and no memory for numbers that are not there."""

from __future__ import annotations

import io

import numpy as np
import pytest

from corpora.corpus import CorpusError
from preprocess.numpy_files import Npz, open_array, read_array, refusing_damage


def saved(array) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.array("a"),
        np.array(["a", "bc"]),
        np.zeros((0, 3)),
    ],
)
def test_round_trip(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    np.savez_compressed(tmp_path / "a.npz", x=array)
    np.testing.assert_array_equal(read_array(tmp_path / "a.npy"), array)
    with Npz(tmp_path / "a.npz") as arrays:
        assert arrays.keys == {"x"}
        np.testing.assert_array_equal(arrays.read("x"), array)


def test_rows_one_by_one(tmp_path):
    array = np.arange(24, dtype=">f4").reshape(4, 3, 2)
    np.savez(tmp_path / "a.npz", x=array, y=-array)
    with Npz(tmp_path / "a.npz") as arrays:
        for row, (x, y) in enumerate(zip(arrays.open("x").rows(), arrays.open("y").rows(), strict=True)):
            np.testing.assert_array_equal(x, array[row])
            np.testing.assert_array_equal(y, -array[row])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (saved(np.array([{}], object)), "an array of object"),
        (saved(np.zeros(3, "f4,i4")), "expected numbers or text"),
        (saved(np.zeros((3, 5)))[:-1], r"an array of \(3, 5\) float64 in a file of 247 bytes"),
        (saved(np.zeros((3, 5))).replace(b"(3, 5)", b"(9**9)"), "Cannot parse header|malformed"),
        (saved(np.zeros((3, 5))).replace(b"(3, 5), ", b"(3 << 9,)"), "Cannot parse header|malformed"),
        (saved(np.zeros((3, 5))).replace(b"(3, 5)", b"(-3,5)"), "an array of"),
        (saved(np.zeros((30, 50))).replace(b"(30, 50), }     ", b"(30, 50000000)} "), "30, 50000000"),
    ],
)
def test_what_is_refused(data, words):
    with pytest.raises(ValueError, match=words):
        open_array(io.BytesIO(data), len(data))


def test_damage_is_one_error():
    with (
        pytest.raises(CorpusError, match=r"a\.npz: cannot be read \(KeyError: 'x'\); expected bread"),
        refusing_damage("a.npz", "bread"),
    ):
        {}["x"]
