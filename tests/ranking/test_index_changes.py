"""An index that is changed finds what one finds that is built anew from what should be in it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from collections_made_up import COUNT, MERGED, ROWS, TOP, TYPES, all_of, best, built, collection, names, origin, scores
from hypothesis import given, settings
from hypothesis import strategies as st
from real_processes import die, killed

from ranking.index import SearchIndexError, read_index
from ranking.index_changes import merge, put, remove
from ranking.vectors import Vectors


def expected(living: dict[str, np.ndarray], measure="ip", k: int = TOP) -> list[list[str]]:
    """Brute force over the items that should be there."""
    ids = list(living)
    return [[ids[place] for place in row] for row in best(scores(np.stack(list(living.values())), measure), k)]


def items(vectors: Vectors) -> dict[str, np.ndarray]:
    return dict(zip(vectors.ids, vectors.rows, strict=True))


@pytest.mark.parametrize("measure", ["ip", "l2"])
@pytest.mark.parametrize("kind", ["Flat", "HNSW16", "IVF8,Flat"])
@pytest.mark.parametrize("shards", [1, 3])
def test_put_replace_remove(tmp_path, measure, kind, shards):
    folder, living = tmp_path / "index", items(collection(measure))
    built(folder, kind, measure, shards)

    def check() -> None:
        index = read_index(folder, all_of(kind))
        assert names(index) == expected(living, measure) and len(index) == len(living)

    more = collection(measure, first=590, count=30, seed=5)  # ten that are there and twenty new ones
    assert put(folder, more) == (20, 10)
    living |= items(more)
    check()
    gone = sorted({names_of_query[0] for names_of_query in expected(living, measure)})
    assert remove(folder, gone) == len(gone)
    for key in gone:
        del living[key]
    check()
    back = Vectors([gone[0]], ROWS[:1], origin(measure))
    assert put(folder, back) == (1, 0)
    living |= items(back)
    check()


@pytest.mark.parametrize("measure", ["ip", "l2"])
@pytest.mark.parametrize("kind", MERGED)
def test_merging_changes_no_result(tmp_path, measure, kind):
    """Shards, additions and gaps before; one shard without gaps after. What is found stays the same, to the last score."""
    folder = tmp_path / "index"
    built(folder, kind, measure, 3)
    put(folder, collection(measure, first=595, count=40, seed=5))
    remove(folder, [f"item-{number}" for number in (*range(0, 600, 3), 630)])
    before = read_index(folder, all_of(kind))
    assert merge(folder) == len(before) == 634 - 200
    after = read_index(folder, all_of(kind))
    assert len(after.shards) == 1 and len(after) == len(after.ids) == 434 and len(list((folder / "shards").iterdir())) == 1
    queries = np.random.default_rng(9).standard_normal((50, 16), np.float32)
    for index in (before, after):  # of equal scores, of product quantisers, any may come first
        found, places = index.search(queries, 20)
        rows = [sorted(zip(np.round(s, 4), index.ids.take(p), strict=True)) for s, p in zip(found, places, strict=True)]
        if index is before:
            first = rows, found
    np.testing.assert_allclose(found, first[1], rtol=1e-4, atol=1e-5)
    same = [len({key for _, key in a} & {key for _, key in b}) for a, b in zip(rows, first[0], strict=True)]
    assert np.mean(same) > 19.9
    assert put(folder, collection(measure, first=0, count=3, seed=6)) == (1, 2)  # and it can be changed again


@given(st.data())
@settings(max_examples=8, deadline=None)
def test_any_changes_in_any_order(tmp_path_factory, data):
    """Against a dictionary."""
    folder, living = tmp_path_factory.mktemp("changes") / "index", items(collection())
    kind = data.draw(st.sampled_from(["Flat", "IVF8,Flat"]))
    built(folder, kind, shards=2)
    for step in range(data.draw(st.integers(1, 4))):
        action = data.draw(st.sampled_from(["put", "remove", "merge"]))
        if action == "merge":
            merge(folder)
        elif action == "remove":
            gone = data.draw(st.sets(st.sampled_from(sorted(living)), min_size=1, max_size=20))
            assert remove(folder, sorted(gone)) == len(gone)
            living = {key: row for key, row in living.items() if key not in gone}
        else:
            more = collection(first=data.draw(st.integers(0, 620)), count=data.draw(st.integers(1, 30)), seed=100 + step)
            new = sum(key not in living for key in more.ids)
            assert put(folder, more) == (new, len(more) - new)
            living |= items(more)
    assert names(read_index(folder, all_of(kind))) == expected(living)


@pytest.mark.parametrize("kind", TYPES)
def test_the_width_of_a_search_holds_after_removals(tmp_path, kind):
    """faiss takes nprobe and efSearch from elsewhere when something is left out."""
    built(tmp_path / "index", kind)
    before = names(read_index(tmp_path / "index", all_of(kind)))
    far = sorted({f"item-{n}" for n in range(COUNT)}.difference(*before))[0]
    remove(tmp_path / "index", [far])
    assert names(read_index(tmp_path / "index", all_of(kind))) == before


def test_an_open_index_is_that_of_before(tmp_path):
    index = built(tmp_path / "index", shards=2)
    before = names(index)
    put(tmp_path / "index", collection(seed=3))
    remove(tmp_path / "index", ["item-3"])
    merge(tmp_path / "index")
    assert names(index) == before != names(read_index(tmp_path / "index"))


def test_an_index_without_anything(tmp_path):
    built(tmp_path / "index")
    remove(tmp_path / "index", list(collection().ids))
    index = read_index(tmp_path / "index")
    assert len(index) == 0 and names(index) == [[]] * 40
    with pytest.raises(SearchIndexError, match="every item was taken out"):
        merge(tmp_path / "index")
    assert put(tmp_path / "index", collection(count=9)) == (9, 0)
    assert merge(tmp_path / "index") == 9


@pytest.mark.parametrize("place", ["write_ids", "write_info"])
def test_killed_while_it_is_changed(tmp_path, monkeypatch, place):
    """The index is as before, and the same command then goes through."""
    built(tmp_path / "index", shards=2)
    for action in (lambda: put(tmp_path / "index", collection(seed=3)), lambda: merge(tmp_path / "index")):
        before = names(read_index(tmp_path / "index"))
        with monkeypatch.context() as patch:
            patch.setattr(f"ranking.index_changes.{place}", lambda *_: die())
            killed(action)
        assert names(read_index(tmp_path / "index")) == before
        action()
    assert names(read_index(tmp_path / "index")) == expected(items(collection(seed=3)))


def test_taking_out_twice_is_taking_out_once(tmp_path):
    """A job that was killed after it may be started again."""
    built(tmp_path / "index")
    assert remove(tmp_path / "index", ["item-1", "item-2"]) == 2
    changes = read_index(tmp_path / "index").info.changes
    assert remove(tmp_path / "index", ["item-1", "item-2"]) == 0
    assert read_index(tmp_path / "index").info.changes == changes


def test_what_is_refused(tmp_path):
    folder = tmp_path / "index"
    with pytest.raises(SearchIndexError, match="no index here"):
        put(folder, collection())
    built(folder, "HNSW16")
    with pytest.raises(SearchIndexError, match="1 of the 2 ids are not in this index, the first: 'nobody'"):
        remove(folder, ["item-3", "nobody"])
    assert len(read_index(folder)) == COUNT
    with pytest.raises(SearchIndexError, match="faiss merges no HNSW16"):
        merge(folder)
    for change in ({"weights": "x"}, {"model": "x"}, {"kind": "texts"}, {"measure": "l2"}):
        other = replace(collection(), made_by=replace(origin(), **change))
        with pytest.raises(SearchIndexError, match=f"of another {next(iter(change))} than these"):
            put(folder, other)
    with pytest.raises(SearchIndexError, match="of another dimension"):
        put(folder, Vectors(["a"], ROWS[:1, :5].copy(), origin()))
    assert put(folder, replace(collection(count=1), made_by=replace(origin(), corpus="other", split="new"))) == (0, 1)


def test_two_changes_at_once_are_refused(tmp_path):
    import fcntl

    built(tmp_path / "index")
    with (tmp_path / "index" / "changing").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(SearchIndexError, match="another process is changing this index"):
            remove(tmp_path / "index", ["item-1"])
