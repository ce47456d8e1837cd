"""A search of many queries in pieces: brute force agrees, however the work is shared or broken off."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from collections_made_up import COUNT, QUERIES, ROWS, best, built, collection, origin, scores
from real_processes import die, killed

from corpora.pieces import Part
from ranking.index import Index, SearchIndexError, exact_search, recall
from ranking.index_changes import put, remove
from ranking.neighbours import NeighbourSearch
from ranking.vectors import Measure, Vectors, VectorsError

ASKED = Vectors([f"query-{number}" for number in range(len(QUERIES))], QUERIES, origin(), "queries")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """40 queries are three blocks."""
    monkeypatch.setattr("ranking.neighbours.BLOCK", 16)


def search(folder: Path, k: int = 5, measure: Measure = "ip", **more) -> NeighbourSearch:
    asked = replace(ASKED, made_by=origin(measure))
    return NeighbourSearch(folder / "out" / "neighbours.parquet", asked, folder / "index", k, **more)


def read(folder: Path) -> dict[str, list[str]]:
    table = pq.read_table(folder / "out" / "neighbours.parquet")
    assert table["query"].to_pylist() == list(ASKED.ids)
    assert [path.name for path in (folder / "out").iterdir()] == ["neighbours.parquet"]
    return dict(zip(table["query"].to_pylist(), table["items"].to_pylist(), strict=True))


@pytest.mark.parametrize("measure", ["ip", "l2"])
@pytest.mark.parametrize("shards", [1, 4])
def test_the_file_is_brute_force(tmp_path, measure, shards):
    built(tmp_path / "index", "Flat", measure, shards)
    assert search(tmp_path, measure=measure).run()
    truth = scores(ROWS, measure)
    places = best(truth, 5)
    assert list(read(tmp_path).values()) == [[f"item-{place}" for place in row] for row in places]
    found = pq.read_table(tmp_path / "out" / "neighbours.parquet")["scores"].to_pylist()
    np.testing.assert_allclose(found, np.take_along_axis(truth, places, 1), rtol=1e-4, atol=1e-4)
    kept = json.loads(pq.read_schema(tmp_path / "out" / "neighbours.parquet").metadata[b"misrank"])
    assert kept["k"] == 5 and kept["queries"] == "queries" and kept["index"]["type"] == "Flat"


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_parts_give_the_file_of_one_job(tmp_path, count):
    """Of 3 blocks and 4 shards."""
    for name in ("whole", "parts"):
        built(tmp_path / name / "index", shards=4)
    search(tmp_path / "whole").run()
    done = [search(tmp_path / "parts").run(Part(number, count)) for number in range(count, 0, -1)]
    assert done == [False] * (count - 1) + [True]
    name = Path("out") / "neighbours.parquet"
    assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()


def test_as_many_parts_as_shards_open_one_shard_each(tmp_path, monkeypatch):
    from ranking import neighbours

    built(tmp_path / "index", shards=4)
    read_index, opened = neighbours.read_index, []
    monkeypatch.setattr(neighbours, "read_index", lambda *given: opened.append(given[3].start) or read_index(*given))
    search(tmp_path).run(Part(3, 4))
    assert opened == [2]


def test_killed_and_gone_on_with(tmp_path, monkeypatch):
    built(tmp_path / "index", shards=2)
    find, left = Index.search, [4]

    def dying(self, rows, k):
        left[0] -= 1
        return die() if not left[0] else find(self, rows, k)

    with monkeypatch.context() as patch:
        patch.setattr(Index, "search", dying)
        killed(search(tmp_path).run)
    searched = []
    monkeypatch.setattr(Index, "search", lambda self, rows, k: searched.append(len(rows)) or find(self, rows, k))
    assert search(tmp_path).run()
    assert searched == [16, 16, 8]
    assert list(read(tmp_path).values()) == [[f"item-{place}" for place in row] for row in best(scores(ROWS, "ip"), 5)]


def test_a_changed_index_and_few_items(tmp_path):
    """What was taken out is not found, what was put in is; where fewer than k are there, the lists are short."""
    built(tmp_path / "index")
    put(tmp_path / "index", collection(first=COUNT, count=3, seed=1))
    remove(tmp_path / "index", [f"item-{number}" for number in range(COUNT - 1)])
    assert search(tmp_path).run()
    assert all(sorted(found) == ["item-599", "item-600", "item-601", "item-602"] for found in read(tmp_path).values())


def test_a_damaged_piece_is_searched_again(tmp_path):
    built(tmp_path / "index", shards=2)
    assert not search(tmp_path).run(Part(1, 2))
    piece = tmp_path / "out" / ".neighbours.parquet.pieces" / "000002"
    piece.write_bytes(piece.read_bytes()[:100])
    with pytest.raises(SearchIndexError, match="is removed; run again"):
        search(tmp_path).run()
    assert search(tmp_path).run() and len(read(tmp_path)) == 40


def test_a_file_of_another_search_is_refused(tmp_path):
    built(tmp_path / "index")
    assert search(tmp_path).run() and search(tmp_path).run()
    for other in (search(tmp_path, k=6), search(tmp_path, parameters="nprobe=2")):
        with pytest.raises(SearchIndexError, match="neighbours of another search"):
            other.run()
    remove(tmp_path / "index", ["item-3"])
    with pytest.raises(SearchIndexError, match="neighbours of another search"):
        search(tmp_path).run()


def test_recall_is_that_of_the_queries(tmp_path):
    built(tmp_path / "index", "IVF8,Flat")
    truth = exact_search(collection(), QUERIES, 5)[1]
    from ranking.index import read_index

    narrow = recall(read_index(tmp_path / "index", "nprobe=2").search(QUERIES, 5)[1], truth)
    assert search(tmp_path, parameters="nprobe=2").recall(collection()) == narrow < 1
    assert search(tmp_path, parameters="nprobe=8").recall(collection()) == 1
    with pytest.raises(SearchIndexError, match="not built from these vectors"):
        search(tmp_path).recall(collection(seed=1))
    remove(tmp_path / "index", ["item-3"])
    with pytest.raises(SearchIndexError, match="or was changed since"):
        search(tmp_path).recall(collection())


@pytest.mark.parametrize("change", [{"weights": "v"}, {"model": "other"}, {"measure": "l2"}])
def test_queries_of_another_model_are_refused(tmp_path, change):
    built(tmp_path / "index", "Flat", "ip", 1)
    others = replace(ASKED, made_by=replace(origin(), **change))
    with pytest.raises(VectorsError, match=f"queries have {next(iter(change))} "):
        NeighbourSearch(tmp_path / "out.parquet", others, tmp_path / "index", 5)
