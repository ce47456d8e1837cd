from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from error_analysis.neighbours import Neighbours
from ranking.matrix import Axis, Provenance, Ranking, Relevance
from ranking.metrics import positions


def ranking_of(scores, pairs):
    scores = np.asarray(scores, np.float32)
    axes = (
        Axis("image", tuple(f"i{n}" for n in range(len(scores)))),
        Axis("text", tuple(f"t{n}" for n in range(scores.shape[1]))),
    )
    return Ranking(*axes, Relevance.from_pairs(np.array(pairs), len(scores)), scores, Provenance("m", "", "", "val", "", ""))


def neighbours_of(scores, pairs, k=50, ties="pessimistic"):
    return Neighbours.of(ranking_of(scores, pairs), ties, k)


SCORES = [[0.5, 2, 2, 2, -1], [3, 3, 0, 0, 1]]
PAIRS = [[0, 2], [1, 0], [1, 4]]
"""Image 0: its text 2 ties with texts 1 and 3. Image 1: text 0 ties with text 1, text 4 comes third."""


@pytest.mark.parametrize(
    ("ties", "items"),
    [
        ("pessimistic", [[1, 3, 2, 0], [1, 0, 4, 2]]),
        ("optimistic", [[2, 1, 3, 0], [0, 1, 4, 2]]),
        ("expected", [[1, 2, 3, 0], [0, 1, 4, 2]]),
    ],
)
def test_places_are_those_of_the_rank(ties, items):
    found = neighbours_of(SCORES, PAIRS, 4, ties)
    assert found.items.tolist() == items
    assert found.scores.tolist() == [[2, 2, 2, 0.5], [3, 3, 1, 0]]


def test_the_other_fields():
    found = neighbours_of(SCORES, PAIRS)
    assert found.items.shape == (2, 5)
    assert found.relevant.tolist() == [2, 3, 1]
    assert found.truth.tolist() == [2, 3]
    assert found.best_wrong.tolist() == [2, 3]
    assert found.best_wrong_item.tolist() == [1, 1]
    assert found.margin.tolist() == [0, 0]
    assert found.mean.tolist() == pytest.approx([1.1, 1.4])
    assert found.spread.tolist() == pytest.approx([np.std(SCORES[0]), np.std(SCORES[1])])
    assert (found.items.dtype, found.scores.dtype) == (np.int32, np.float32)


def test_nothing_wrong_to_find():
    found = neighbours_of([[1, 2], [3, 1]], [[0, 0], [0, 1], [1, 0]])
    assert found.best_wrong.tolist() == [-np.inf, 1]
    assert found.best_wrong_item.tolist() == [-1, 1]
    assert found.margin.tolist() == [np.inf, 2]


@settings(max_examples=150, deadline=None)
@given(data=st.data(), ties=st.sampled_from(["pessimistic", "optimistic", "expected"]), seed=st.integers(0, 999))
def test_as_a_full_sort(data, ties, seed):
    rng = np.random.default_rng(seed)
    queries, items, levels = (data.draw(st.integers(1, n)) for n in (6, 12, 9))
    scores = rng.integers(0, levels, (queries, items)).astype(np.float32)
    true = rng.random((queries, items)) < 0.3
    true[np.arange(queries), rng.integers(0, items, queries)] = True
    k = data.draw(st.integers(1, items))
    found = neighbours_of(scores, np.argwhere(true), k, ties)
    sign = {"pessimistic": 1, "optimistic": -1, "expected": 0}[ties]
    for query in range(queries):
        order = sorted(range(items), key=lambda item, q=query: (-scores[q, item], sign * true[q, item], item))
        assert found.items[query].tolist() == order[:k]
        assert found.scores[query].tolist() == scores[query, order[:k]].tolist()
        wrong = [item for item in sorted(order, key=lambda item, q=query: (-scores[q, item], item)) if not true[query, item]]
        assert found.best_wrong_item[query] == (wrong[0] if wrong else -1)
        assert found.truth[query] == scores[query][true[query]].max()
    if ties != "expected":
        first = positions(ranking_of(scores, np.argwhere(true)), ties).first
        place = np.array([np.argmax(true[q, found.items[q]]) if true[q, found.items[q]].any() else k for q in range(queries)])
        assert (place == np.minimum(first, k)).all()


def test_many_blocks_and_one_score_for_all():
    scores = np.zeros((600, 300), np.float32)
    pairs = [(query, query % 300) for query in range(600)]
    found = neighbours_of(scores, pairs, 3)
    assert found.items[0].tolist() == [1, 2, 3]
    assert found.items[301].tolist() == [0, 2, 3]
    assert (neighbours_of(scores, pairs, 3, "optimistic").items[:, 0] == np.arange(600) % 300).all()


def test_the_other_direction_reads_the_same_numbers():
    ranking = ranking_of(np.random.default_rng(0).random((7, 9)), [(n % 7, n) for n in range(9)])
    turned = replace(ranking.T, scores=ranking.scores.T.copy(), transposed=False)
    one, two = (Neighbours.of(made.by("text"), k=4) for made in (ranking, turned))
    assert (one.items == two.items).all() and (one.relevant == two.relevant).all()
