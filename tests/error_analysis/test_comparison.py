from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from error_analysis.comparison import Shift, check_same_split, compare, related
from error_analysis.mining import Retrieval
from ranking.matrix import Axis, Provenance, Ranking, RankingError, Relevance
from ranking.metrics import Positions


@pytest.fixture
def retrieve(known_ranks):
    def make(ranks, items=60):
        return Retrieval.of(known_ranks(ranks, items), "t2i")

    return make


def test_the_gap_is_ten_places_and_the_better_rank_below_ten(retrieve):
    better = retrieve([0, 0, 9, 9, 10, 3, 5])
    worse = retrieve([9, 10, 18, 19, 40, 50, 5])
    assert compare(better, worse) == (Shift("t5", 3, 50), Shift("t1", 0, 10), Shift("t3", 9, 19))
    assert [shift.gap for shift in compare(better, worse)] == [47, 10, 10]


def test_the_reverse_is_the_other_models(retrieve):
    a, b = retrieve([0, 30, 2]), retrieve([12, 1, 2])
    assert [shift.query for shift in compare(a, b)] == ["t0"]
    assert compare(b, a) == (Shift("t1", 1, 30),)


def test_thresholds(retrieve):
    a, b = retrieve([0, 4, 5]), retrieve([3, 7, 9])
    assert [shift.query for shift in compare(a, b, top=5, gap=3)] == ["t0", "t1"]


@settings(max_examples=50, deadline=None)
@given(ranks=st.lists(st.tuples(st.integers(0, 39), st.integers(0, 39)), min_size=1, max_size=20))
def test_the_originals_rule(known_ranks_at, ranks):
    first, second = zip(*ranks, strict=True)
    expected = {
        f"t{query}" for query, (a, b) in enumerate(ranks) if a < 10 and a < b and (b - a) > 9
    }  # as lxmert_clip_tiir states it
    assert {shift.query for shift in compare(known_ranks_at(first), known_ranks_at(second))} == expected


@pytest.fixture(scope="module")
def known_ranks_at():
    """Retrievals with given ranks and no scores behind them."""

    def make(ranks):
        count = len(ranks)
        pairs = Relevance.from_pairs(np.stack([np.arange(count)] * 2, axis=1), count)
        axes = Axis("text", tuple(f"t{i}" for i in range(count))), Axis("image", tuple(f"i{i}" for i in range(count)))
        ranking = Ranking(*axes, pairs, np.zeros((count, count), np.float32), Provenance("m", "", "", "val", "", ""))
        return Retrieval("t2i", ranking, Positions(pairs.indptr, np.array(ranks)), "pessimistic")

    return make


def permuted(ranking: Ranking) -> Ranking:
    """The same ranking with queries and items in another order."""
    rows, columns = np.arange(len(ranking.queries.ids))[::-1], np.roll(np.arange(len(ranking.items.ids)), 3)
    place_of = np.argsort(rows), np.argsort(columns)
    pairs = np.stack([place_of[side][ranking.relevant.pairs()[:, side]] for side in (0, 1)], axis=1)
    return replace(
        ranking,
        queries=Axis("text", tuple(ranking.queries.ids[i] for i in rows)),
        items=Axis("image", tuple(ranking.items.ids[i] for i in columns)),
        relevant=Relevance.from_pairs(pairs, len(rows)),
        scores=ranking.scores[rows][:, columns],
    )


def test_queries_are_matched_by_id(known_ranks):
    a, b = known_ranks([0, 4, 20], 30), known_ranks([15, 4, 1], 30)
    expected = compare(Retrieval.of(a, "t2i"), Retrieval.of(b, "t2i"))
    assert expected == (Shift("t0", 0, 15),)
    assert compare(Retrieval.of(a, "t2i"), Retrieval.of(permuted(b), "t2i")) == expected
    assert related(permuted(b)) == related(b)


def test_files_stored_the_other_way_round_compare(known_ranks):
    a, b = known_ranks([0, 4], 30), known_ranks([15, 4], 30)
    assert len(compare(Retrieval.of(a.T, "t2i"), Retrieval.of(b, "t2i"))) == 1


def test_other_splits_are_refused(known_ranks):
    a = known_ranks([0, 1], 3)
    with pytest.raises(RankingError, match="different splits: 'val' and 'test'"):
        check_same_split(a, known_ranks([0, 1], 3, split="test"))
    with pytest.raises(RankingError, match=r"differ in 1 image ids, the first: 'i3'"):
        check_same_split(a, known_ranks([0, 1], 4))
    with pytest.raises(RankingError, match=r"differ in 1 text ids, the first: 't2'"):
        check_same_split(a, known_ranks([0, 1, 2], 3))
    other = replace(a, relevant=Relevance.from_pairs(np.array([[0, 1], [1, 1]]), 2))
    with pytest.raises(RankingError, match=r"2 relevant pairs, the first: image 'i0' and text 't0'"):
        check_same_split(a, other)
    one, two = (replace(a, provenance=replace(a.provenance, digest=digest, corpus=digest)) for digest in ("x", "y"))
    with pytest.raises(RankingError, match=r"different corpora or parts of one: x \(\d+ images, \d+ texts\) and y \("):
        check_same_split(one, two)
    check_same_split(one, a)  # an imported file has no digest: its ids must do


def test_directions_and_tie_policies_must_agree(known_ranks):
    ranking = known_ranks([0, 1], 2)
    with pytest.raises(RankingError, match="cannot be compared"):
        compare(Retrieval.of(ranking, "t2i"), Retrieval.of(ranking, "i2t"))
    with pytest.raises(RankingError, match="cannot be compared"):
        compare(Retrieval.of(ranking, "t2i"), Retrieval.of(ranking, "t2i", "optimistic"))


@pytest.mark.parametrize("direction", ["i2t", "t2i"])
def test_the_published_list_is_kept_whole(known_ranks_at, test_data, direction):
    published = json.loads((test_data / "published/lxmert_clip_1k/comparison.json").read_text())[direction]
    assert len(published) == {"i2t": 13, "t2i": 51}[direction]
    shifts = compare(*(known_ranks_at([entry[model] for entry in published]) for model in ("clip", "lxmert")))
    assert sorted((shift.better, shift.worse) for shift in shifts) == sorted((e["clip"], e["lxmert"]) for e in published)
    assert {"i2t": (11, 85), "t2i": (10, 169)}[direction] == (shifts[-1].gap, shifts[0].gap)
    assert compare(*(known_ranks_at([entry[model] for entry in published]) for model in ("lxmert", "clip"))) == ()
