"""Build, search and change an index as a user does."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
from starting import start

from ranking.index import read_index
from ranking.vectors import Origin, in_memory, write_vectors

ROWS = np.random.default_rng(0).standard_normal((300, 8), np.float32)
ROWS /= np.linalg.norm(ROWS, axis=1, keepdims=True)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where the test stands: items in vectors/items, and twenty more in vectors/new."""
    monkeypatch.chdir(tmp_path)
    made_by = Origin("tiny", "none", "made-up", "test", weights="w")
    write_vectors(tmp_path / "vectors" / "items", in_memory(ROWS), [f"i{n}" for n in range(300)], made_by)
    write_vectors(tmp_path / "vectors" / "new", in_memory(-ROWS[:20]), [f"i{n}" for n in range(290, 310)], made_by)
    return tmp_path


BUILD = ("build_index", "--vectors", "vectors/items", "--index", "indexes/items", "--type", "IVF4,Flat", "--shards", "2")
SEARCH = ("search_index", "--queries", "vectors/items", "--index", "indexes/items", "--file", "out/self.parquet", "--top", "3")
CHANGE = ("change_index", "--index", "indexes/items")


def neighbours() -> dict[str, list[str]]:
    table = pq.read_table("out/self.parquet")
    return dict(zip(table["query"].to_pylist(), table["items"].to_pylist(), strict=True))


def test_build_search_change(folder, capfd):
    assert start(*BUILD, "--part", "1/2") == 0
    assert "indexes/items will stand when all are" in capfd.readouterr().out
    assert start(*BUILD, "--part", "2/2") == 0
    assert "IVF4,Flat over 300 vectors of 8, 0 MB: indexes/items" in capfd.readouterr().out
    assert start(*SEARCH, "--parameters", "nprobe=4", "--vectors", "vectors/items") == 0
    assert "recall@3 against exact search: 1.0000" in capfd.readouterr().out
    assert all(found[0] == query and len(found) == 3 for query, found in neighbours().items())
    (folder / "gone.txt").write_text("i0\ni1\n")
    assert start(*CHANGE, "--remove", "gone.txt", "--vectors", "vectors/new", "--merge") == 0
    printed = capfd.readouterr().out
    assert "2 items taken out" in printed and "10 items put in, 10 replaced" in printed and "308 items in 1 shards" in printed
    (folder / "out" / "self.parquet").unlink()
    assert start(*SEARCH, "--parameters", "nprobe=4") == 0
    found = neighbours()
    assert not {"i0", "i1"} & {key for keys in found.values() for key in keys} and "i299" not in found["i299"][:1]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("build_index", "--vectors", "vectors/none"), "vectors/none: no vectors here"),
        ((*BUILD[:-4], "--type", "IVF4,Nonsense"), "index type 'IVF4,Nonsense'"),
        ((*BUILD, "--part", "3/2"), "--part 3/2"),
        (("build_index", "--shards", "0"), "--shards 0"),
        (("search_index", "--top", "0"), "--top 0"),
        ((*SEARCH[:3], "--index", "indexes/none"), "indexes/none: no index here"),
        (("change_index", "--index", "indexes/none"), "nothing to change"),
        (("change_index", "--index", "indexes/none", "--merge"), "indexes/none: no index here"),
    ],
)
def test_bad_input_is_one_line(folder, capfd, arguments, message):
    end = start(*arguments)
    printed = capfd.readouterr()
    assert end != 0 and message in f"{end}{printed.out}{printed.err}" and "Traceback" not in printed.err


def test_an_index_of_halves(folder):
    """Default type and names."""
    made_by = Origin("tiny", "none", "made-up", "test")
    write_vectors(folder / "vectors" / "scenes-images", in_memory(ROWS), [str(n) for n in range(300)], made_by, "float16")
    assert start("build_index") == 0
    assert len(read_index("indexes/scenes-images")) == 300
