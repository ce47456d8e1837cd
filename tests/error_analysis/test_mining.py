from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from error_analysis.mining import Retrieval, at_least, below, chosen, easy, examples, hard, mine
from ranking.matrix import Axis, Provenance, Ranking, RankingError, Relevance, read_ranking, write_ranking


def queries_of(mined):
    return [example.query for example in mined.examples]


def test_hard_starts_at_rank_10_and_easy_is_rank_0(known_ranks):
    retrieval = Retrieval.of(known_ranks([0, 1, 9, 10, 11, 0], 12), "t2i")
    assert retrieval.ranks.tolist() == [0, 1, 9, 10, 11, 0]
    assert hard(retrieval).tolist() == [4, 3]  # the worst first
    assert easy(retrieval).tolist() == [0, 5]


def test_thresholds_count_places(known_ranks):
    retrieval = Retrieval.of(known_ranks([0, 1, 2, 4, 5], 8), "t2i")
    assert hard(retrieval, 5).tolist() == [4]
    assert hard(retrieval, 1).tolist() == [4, 3, 2, 1]
    assert easy(retrieval, 3).tolist() == [0, 1, 2]


def test_every_query_is_hard_or_among_the_first_ten(known_ranks):
    retrieval = Retrieval.of(known_ranks([0, 5, 9, 10, 19], 20), "t2i")
    assert sorted([*hard(retrieval, 10), *easy(retrieval, 10)]) == [0, 1, 2, 3, 4]


def test_by_margin_and_by_average_precision():
    """Two images; of four captions a owns 0, 1 and b 2, 3."""
    scores = np.array([[4, 1, 3, 0], [5, 0, 2, 1]], np.float32)
    relevant = Relevance.from_pairs(np.array([[0, 0], [0, 1], [1, 2], [1, 3]]), 2)
    ranking = Ranking(Axis("image", ("a", "b")), Axis("text", tuple("wxyz")), relevant, scores, SOURCE)
    retrieval = Retrieval.of(ranking, "i2t")
    # a: truths at places 1 and 3, margin 4 - 3, AP (1 + 2/3) / 2; b: at 2 and 3, margin 2 - 5, AP (1/2 + 2/3) / 2
    assert below(retrieval, "margin", 1).tolist() == [1] and below(retrieval, "margin", 1.5).tolist() == [1, 0]
    assert at_least(retrieval, "margin", 1).tolist() == [0] and at_least(retrieval, "margin", -3).tolist() == [0, 1]
    assert below(retrieval, "ap", 0.58).tolist() == [] and below(retrieval, "ap", 0.59).tolist() == [1]
    assert at_least(retrieval, "ap", 0.83).tolist() == [0] and at_least(retrieval, "ap", 0.84).tolist() == []


@pytest.mark.parametrize(
    ("ties", "is_hard", "is_easy"), [("pessimistic", [0], []), ("optimistic", [], [0]), ("expected", [0], [])]
)
def test_ties_follow_the_policy_as_recall_does(ties, is_hard, is_easy):
    scores = np.zeros((1, 2), np.float32)  # the truth ties with the only wrong item: rank 1, 0 or one half
    ranking = Ranking(
        Axis("text", ("t",)), Axis("image", ("a", "b")), Relevance.from_pairs(np.array([[0, 0]]), 1), scores, SOURCE
    )
    retrieval = Retrieval.of(ranking, "t2i", ties)
    assert hard(retrieval, 1).tolist() == is_hard
    assert easy(retrieval, 1).tolist() == is_easy


SOURCE = Provenance("m", "", "", "val", "", "made up")


def test_an_example_holds_query_rank_truth_and_the_first_ten(known_ranks):
    retrieval = Retrieval.of(known_ranks([11, 2], 12), "t2i")
    first, second = examples(retrieval, np.array([1, 0]))
    assert (first.direction, first.query, first.rank, first.relevant) == ("t2i", "t1", 2, ("i1",))
    assert first.retrieved[:3] == ("i0", "i2", "i1")
    assert first.scores[:3] == (3.0, 2.0, 0.0)
    assert len(second.retrieved) == 10 and "i0" not in second.retrieved


def test_both_directions_of_one_file(known_ranks, tmp_path):
    ranking = known_ranks([0, 1, 2], 3)
    write_ranking(tmp_path / "r.h5", ranking)
    stored = read_ranking(tmp_path / "r.h5")
    for direction in ("i2t", "t2i"):
        ours, theirs = Retrieval.of(ranking, direction), Retrieval.of(stored.T, direction)
        assert examples(ours, np.arange(3)) == examples(theirs, np.arange(3))
    assert Retrieval.of(ranking, "i2t").ranking.queries.kind == "image"


def test_a_gallery_smaller_than_ten(known_ranks):
    (example,) = examples(Retrieval.of(known_ranks([1], 3), "t2i"), np.array([0]))
    assert len(example.retrieved) == len(example.scores) == 3


def test_sampling_is_seeded_and_without_replacement(known_ranks):
    retrieval = Retrieval.of(known_ranks([15] * 30, 40), "t2i")
    drawn = mine(retrieval, hard(retrieval), 8, seed=3)
    assert drawn.total == 30
    assert len(set(queries_of(drawn))) == 8
    assert drawn == mine(retrieval, hard(retrieval), 8, seed=3)
    assert queries_of(drawn) != queries_of(mine(retrieval, hard(retrieval), 8, seed=4))


@pytest.mark.parametrize("sample", [0, 30, 40])
def test_fewer_than_asked_is_all_of_them(known_ranks, sample):
    retrieval = Retrieval.of(known_ranks([15] * 30, 40), "t2i")
    assert queries_of(mine(retrieval, hard(retrieval), sample)) == [f"t{i}" for i in range(30)]


def test_a_sample_keeps_the_order(known_ranks):
    retrieval = Retrieval.of(known_ranks(list(range(10, 30)), 40), "t2i")
    ranks = [example.rank for example in mine(retrieval, hard(retrieval), 6).examples]
    assert ranks == sorted(ranks, reverse=True)


def test_nothing_to_mine(known_ranks):
    retrieval = Retrieval.of(known_ranks([0, 0], 3), "t2i")
    assert mine(retrieval, hard(retrieval)) == type(mine(retrieval, hard(retrieval)))(0, ())


def test_chosen_queries_keep_the_given_order(known_ranks):
    retrieval = Retrieval.of(known_ranks([0, 1, 2], 3), "t2i")
    assert chosen(retrieval, ["t2", "t0"]).tolist() == [2, 0]
    with pytest.raises(RankingError, match=r"no text 't9' among the 3 queries; ids look like 't0'"):
        chosen(retrieval, ["t2", "t9"])


def test_blocks_of_rows_change_nothing(known_ranks, monkeypatch):
    ranking = known_ranks([3, 11, 0, 7, 12, 1, 2], 14)
    queries = np.array([6, 1, 4, 0])
    whole = examples(Retrieval.of(ranking, "t2i"), queries)
    monkeypatch.setattr("error_analysis.neighbours.ROWS_AT_ONCE", 2)
    assert examples(Retrieval.of(ranking, "t2i"), queries) == whole


def test_nan_is_refused(known_ranks):
    ranking = known_ranks([0, 1], 3)
    ranking.scores[1, 2] = np.nan
    with pytest.raises(RankingError, match="not finite"):
        Retrieval.of(ranking, "t2i")


def test_images_against_images_are_refused(known_ranks):
    ranking = known_ranks([0, 1], 2)
    both = replace(ranking, queries=Axis("image", ("a", "b")))
    with pytest.raises(RankingError, match="image queries and image items"):
        Retrieval.of(both, "i2t")


@settings(max_examples=60, deadline=None)
@given(data=st.data(), ties=st.sampled_from(["pessimistic", "optimistic"]))
def test_the_shown_order_agrees_with_the_rank(data, ties):
    items = data.draw(st.integers(1, 25))
    scores = np.array([data.draw(st.lists(st.integers(0, 3), min_size=items, max_size=items))], np.float32)
    truths = data.draw(st.lists(st.integers(0, items - 1), min_size=1, max_size=3, unique=True))
    pairs = np.array([(0, truth) for truth in truths])
    axis = Axis("image", tuple(str(item) for item in range(items)))
    retrieval = Retrieval.of(Ranking(Axis("text", ("t",)), axis, Relevance.from_pairs(pairs, 1), scores, SOURCE), "t2i", ties)
    (example,) = examples(retrieval, np.array([0]))
    places = [place for place, key in enumerate(example.retrieved) if key in example.relevant]
    assert len(example.retrieved) == min(10, items)
    assert list(example.scores) == sorted(scores[0].tolist(), reverse=True)[:10]
    assert [scores[0][int(key)] for key in example.retrieved] == list(example.scores)
    assert min(places, default=None) == (example.rank if example.rank < 10 else None)
