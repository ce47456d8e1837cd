from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import ir_measures
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import coverage_error, label_ranking_average_precision_score, ndcg_score

from ranking.matrix import Ranking, RankingError
from ranking.metrics import (
    Positions,
    Ties,
    map_at_r,
    mean_average_precision,
    mean_rank,
    median_rank,
    mrr,
    ndcg,
    positions,
    positions_by_policy,
    r_precision,
    recall_any,
    recall_fraction,
)

POLICIES: tuple[Ties, ...] = get_args(Ties)
METRICS: dict[str, Callable[[Positions], float]] = {
    "R@1": lambda at: recall_any(at, 1),
    "R@3": lambda at: recall_any(at, 3),
    "fraction@3": lambda at: recall_fraction(at, 3),
    "MedR": median_rank,
    "MeanR": mean_rank,
    "MRR": mrr,
    "mAP": mean_average_precision,
    "R-precision": r_precision,
    "MAP@R": map_at_r,
    "NDCG@3": lambda at: ndcg(at, 3),
}


def figures(at: Positions) -> dict[str, float]:
    return {name: metric(at) for name, metric in METRICS.items()}


def by_query(at: Positions) -> list[list[float]]:
    return [part.tolist() for part in np.split(at.values, at.indptr[1:-1])]


def first_ranks(ranks: np.ndarray) -> Positions:
    return Positions(np.arange(len(ranks) + 1), ranks)


# Worked by hand


def test_by_hand(ranking_of):
    scores = [
        [0.9, 0.1, 0.8, 0.3, 0.2],  # order 0 2 3 4 1; relevant 2 and 4: positions 1 and 3
        [0.5, 0.4, 0.3, 0.2, 0.1],  # order 0 1 2 3 4; relevant 0 and 1: positions 0 and 1
        [0.1, 0.2, 0.3, 0.4, 0.5],  # order 4 3 2 1 0; relevant 0: position 4
    ]
    at = positions(ranking_of(scores, [[2, 4], [0, 1], [0]]))
    assert by_query(at) == [[1, 3], [0, 1], [4]]
    assert at.first.tolist() == [1, 0, 4]
    assert [recall_any(at, k) for k in (1, 2, 4, 5)] == [1 / 3, 2 / 3, 2 / 3, 1]
    assert recall_fraction(at, 2) == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert (median_rank(at), mean_rank(at)) == (2, pytest.approx((2 + 1 + 5) / 3))
    assert mrr(at) == pytest.approx((1 / 2 + 1 + 1 / 5) / 3)
    assert mean_average_precision(at) == pytest.approx(((1 / 2 + 2 / 4) / 2 + 1 + 1 / 5) / 3)
    assert r_precision(at) == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert map_at_r(at) == pytest.approx(((1 / 2) / 2 + 1 + 0) / 3)
    gain = [1 / np.log2(place + 1) for place in range(1, 6)]
    assert ndcg(at, 3) == pytest.approx((gain[1] / (gain[0] + gain[1]) + 1 + 0) / 3)
    assert ndcg(at, 5) == pytest.approx(((gain[1] + gain[3]) / (gain[0] + gain[1]) + 1 + gain[4]) / 3)


def test_ties_by_hand(ranking_of):
    ranking = ranking_of([[2, 1, 1, 1, 1, 0]], [[1, 2]])  # below item 0 two relevant and two irrelevant items tie
    assert {ties: by_query(positions(ranking, ties))[0] for ties in POLICIES} == {
        "optimistic": [1, 2],
        "expected": [2, 3],
        "pessimistic": [3, 4],
    }


def test_constant_scores_are_no_success(ranking_of):
    ranking = ranking_of(np.zeros((4, 101)), [[0], [50], [100], [1, 2]])
    assert positions(ranking).first.tolist() == [100, 100, 100, 99]
    assert positions(ranking, "expected").first.tolist() == [50, 50, 50, 49.5]
    assert recall_any(positions(ranking, "optimistic"), 1) == 1


def test_halfway_between_two_places_is_not_within(ranking_of):
    at = positions(ranking_of([[1, 1, 0]], [[0]]), "expected")
    assert (at.first.tolist(), recall_any(at, 1), recall_any(at, 2)) == ([0.5], 0, 1)
    assert mean_rank(at) == 1.5


def test_negative_zero_is_a_tie(ranking_of):
    ranking = ranking_of([[0.0, -0.0]], [[0]])
    assert (positions(ranking).first[0], positions(ranking, "optimistic").first[0]) == (1, 0)


def test_extremes_of_float32(ranking_of):
    low, high = np.finfo(np.float32).min, np.finfo(np.float32).max
    ranking = ranking_of([[high, low, 0, np.nextafter(high, 0, dtype=np.float32)], [low, low, low, low]], [[1, 3], [0, 1, 2, 3]])
    assert by_query(positions(ranking)) == [[1, 3], [0, 1, 2, 3]]


def test_all_relevant_and_single(ranking_of):
    assert set(figures(positions(ranking_of([[3, 3, 3]], [[0, 1, 2]]))).values()) == {1}
    assert set(figures(positions(ranking_of([[-7]], [[0]]))).values()) == {1}


# Faults of the original systems, as rules that must not come back


def test_perfect_retrieval_has_map_one(ranking_of):
    """Not 0.5, as with 1 / (rank + 1) over 1-based ranks."""
    scores = np.repeat(np.eye(4), 5, axis=1)
    at = positions(ranking_of(scores, np.arange(20).reshape(4, 5)))
    assert set(figures(at).values()) - {recall_fraction(at, 3)} == {1}
    assert recall_fraction(at, 3) == 3 / 5


def test_one_of_five_captions_is_a_hit(ranking_of):
    """Recall of the literature asks for any relevant item; the fraction found is another figure."""
    at = positions(ranking_of([[9, 8, 7, 6, 5, 4, 3, 2, 1, 0]], [[0, 6, 7, 8, 9]]))
    assert (recall_any(at, 1), recall_fraction(at, 1), recall_fraction(at, 5), recall_any(at, 5)) == (1, 0.2, 0.2, 1)


@pytest.mark.parametrize("k", [1, 5, 10])
def test_place_k_counts_and_place_k_plus_one_does_not(ranking_of, k):
    scores = -np.arange(20.0)[None]
    assert recall_any(positions(ranking_of(scores, [[k - 1]])), k) == 1
    assert recall_any(positions(ranking_of(scores, [[k]])), k) == 0


def test_directions_do_not_mix(captioned):
    """One direction's figures are the same whether or not the other was computed before, and differ from the pooled ones."""
    ranking = captioned(12, 3)
    alone = figures(positions(captioned(12, 3).T))
    images, texts = positions(ranking), positions(ranking.T)
    assert figures(texts) == alone
    pooled = np.concatenate([images.first, texts.first])
    assert recall_any(first_ranks(pooled), 1) != recall_any(texts, 1)


@pytest.mark.parametrize("ties", POLICIES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused(ranking_of, ties, value):
    for item in (0, 1):  # the relevant one and another
        scores = np.zeros((2, 3))
        scores[1, item] = value
        with pytest.raises(RankingError, match=f"first {value} for query 'i1' and item 't{item}'"):
            positions(ranking_of(scores, [[0], [0]]), ties)


def test_queries_without_a_relevant_item_are_refused(ranking_of):
    with pytest.raises(RankingError, match="2 of 4 image queries have no relevant item, the first: 'i1'"):
        positions(ranking_of(np.zeros((4, 3)), [[0], [], [1], []]))
    with pytest.raises(RankingError, match="1 of 3 text queries have no relevant item, the first: 't2'"):
        positions(ranking_of(np.zeros((2, 3)), [[0], [1]]).T)


def test_unknown_tie_policy(ranking_of):
    with pytest.raises(RankingError, match="tie policy 'random': must be one of pessimistic, optimistic, expected"):
        positions(ranking_of([[1]], [[0]]), "random")


@pytest.mark.parametrize(
    ("indptr", "values", "message"),
    [
        ([0], [], "at least one relevant item"),
        ([0, 1, 1], [0], "at least one relevant item"),
        ([0, 1], [0, 1], "at least one relevant item"),
        ([1, 2], [0, 1], "at least one relevant item"),
        ([0, 1], [np.nan], "different places"),
        ([0, 1], [-1], "different places"),
        ([0, 2], [3, 3], "different places"),
        ([0, 2], [3, 1], "different places"),
    ],
)
def test_positions_that_cannot_be(indptr, values, message):
    with pytest.raises(RankingError, match=message):
        Positions(np.array(indptr), np.array(values, float))


# Against other libraries, without ties


@pytest.fixture(scope="module")
def untied(ranking_of) -> tuple[Ranking, np.ndarray]:
    """Forty queries, 300 items, 1 to 30 relevant ones each, and the relevance as a boolean matrix."""
    rng = np.random.default_rng(5)
    scores = rng.permuted(np.tile(np.linspace(-1, 1, 300), (40, 1)), axis=1)
    relevant = [np.sort(rng.choice(300, rng.integers(1, 31), replace=False)) for _ in range(40)]
    truth = np.zeros((40, 300), bool)
    for query, items in enumerate(relevant):
        scores[query, items] += rng.uniform(0, 1, len(items))  # better than chance, and off the grid of the others
        truth[query, items] = True
    return ranking_of(scores, relevant), truth


def test_against_ir_measures(untied):
    ranking, truth = untied
    qrels = [ir_measures.Qrel(f"q{query}", f"d{item}", 1) for query, item in np.argwhere(truth)]
    run = [
        ir_measures.ScoredDoc(f"q{query}", f"d{item}", float(score)) for (query, item), score in np.ndenumerate(ranking.scores)
    ]
    at = positions(ranking)
    ours: dict[str, Any] = {"RR": mrr(at), "AP": mean_average_precision(at), "Rprec": r_precision(at)}
    for k in (1, 5, 10, 100):
        ours |= {f"Success@{k}": recall_any(at, k), f"R@{k}": recall_fraction(at, k), f"nDCG@{k}": ndcg(at, k)}
    theirs = ir_measures.calc_aggregate([ir_measures.parse_measure(name) for name in ours], qrels, run)
    assert ours == pytest.approx({str(measure): value for measure, value in theirs.items()}, abs=1e-9)


def test_against_scikit_learn(untied):
    ranking, truth = untied
    at = positions(ranking)
    assert mean_average_precision(at) == pytest.approx(label_ranking_average_precision_score(truth, ranking.scores))
    assert ndcg(at, 10) == pytest.approx(ndcg_score(truth, ranking.scores, k=10))
    last = at.values[at.indptr[1:] - 1]
    assert np.mean(last) + 1 == pytest.approx(coverage_error(truth, ranking.scores))


# Properties


@st.composite
def tied_cases(draw: st.DrawFn) -> tuple[np.ndarray, list[list[int]]]:
    """Few distinct scores, so ties are everywhere, and at least one relevant item a query."""
    queries, items = draw(st.integers(1, 5)), draw(st.integers(1, 10))
    scores = draw(arrays(np.float32, (queries, items), elements=st.integers(-2, 2).map(float)))
    relevant = draw(st.lists(st.sets(st.integers(0, items - 1), min_size=1), min_size=queries, max_size=queries))
    return scores, [sorted(chosen) for chosen in relevant]


def sorted_positions(row: np.ndarray, relevant: list[int], relevant_first: bool) -> list[int]:
    """Sort the whole gallery, ties broken for or against the relevant items, and look where they stand."""
    order = sorted(range(len(row)), key=lambda item: (-row[item], (item in relevant) != relevant_first))
    return [place for place, item in enumerate(order) if item in relevant]


@given(tied_cases())
def test_counting_equals_sorting(ranking_of, case):
    scores, relevant = case
    at = positions_by_policy(ranking_of(scores, relevant))
    best = [sorted_positions(row, items, True) for row, items in zip(scores, relevant, strict=True)]
    worst = [sorted_positions(row, items, False) for row, items in zip(scores, relevant, strict=True)]
    assert by_query(at["optimistic"]) == best
    assert by_query(at["pessimistic"]) == worst
    assert by_query(at["expected"]) == [
        [(a + b) / 2 for a, b in zip(*pair, strict=True)] for pair in zip(best, worst, strict=True)
    ]


@given(tied_cases(), st.sampled_from(POLICIES))
def test_metrics_equal_loops(ranking_of, case, ties):
    at = positions(ranking_of(*case), ties)
    places = [[1 + place for place in query] for query in by_query(at)]  # 1-based, as in papers
    mean = {name: 0.0 for name in ("R@3", "fraction@3", "MRR", "mAP", "R-precision", "MAP@R", "NDCG@3")}
    for query in places:
        number = len(query)
        precision = [(found + 1) / place for found, place in enumerate(query)]
        found = {
            "R@3": float(min(query) <= 3),
            "fraction@3": sum(place <= 3 for place in query) / number,
            "MRR": 1 / min(query),
            "mAP": sum(precision) / number,
            "R-precision": sum(place <= number for place in query) / number,
            "MAP@R": sum(p for p, place in zip(precision, query, strict=True) if place <= number) / number,
            "NDCG@3": sum(1 / np.log2(place + 1) for place in query if place <= 3)
            / sum(1 / np.log2(place + 1) for place in range(1, min(3, number) + 1)),
        }
        mean = {name: value + found[name] / len(places) for name, value in mean.items()}
    ours = figures(at)
    assert {name: ours[name] for name in mean} == pytest.approx(mean)


@given(tied_cases(), st.randoms(use_true_random=False))
def test_order_of_queries_and_items_changes_nothing(ranking_of, case, random):
    scores, relevant = case
    rows, columns = (random.sample(range(size), size) for size in scores.shape)
    moved = [sorted(columns.index(item) for item in relevant[row]) for row in rows]
    for ties in POLICIES:
        before = figures(positions(ranking_of(scores, relevant), ties))
        assert figures(positions(ranking_of(scores[rows][:, columns], moved), ties)) == pytest.approx(before)


@given(tied_cases(), st.sampled_from([np.exp, np.arctan, lambda x: x**3, lambda x: 1e30 * x - 1e31]))
def test_monotone_change_of_scores_changes_nothing(ranking_of, case, change):
    scores, relevant = case
    for ties in POLICIES:
        before, after = (positions(ranking_of(matrix, relevant), ties).values for matrix in (scores, change(scores)))
        np.testing.assert_array_equal(before, after)


@given(tied_cases())
def test_policies_are_ordered(ranking_of, case):
    at = positions_by_policy(ranking_of(*case))
    assert (at["optimistic"].values <= at["expected"].values).all()
    assert (at["expected"].values <= at["pessimistic"].values).all()
    for name in ("R@1", "R@3", "fraction@3", "MRR", "mAP", "R-precision", "MAP@R", "NDCG@3"):
        best, middle, worst = (METRICS[name](at[ties]) for ties in ("optimistic", "expected", "pessimistic"))
        assert 1 >= best >= middle >= worst >= 0


@given(tied_cases())
def test_irrelevant_item_at_the_bottom_changes_nothing(ranking_of, case):
    scores, relevant = case
    longer = np.concatenate([scores, np.full((len(scores), 1), -9)], axis=1)
    for ties in POLICIES:
        before, after = (positions(ranking_of(matrix, relevant), ties).values for matrix in (scores, longer))
        np.testing.assert_array_equal(before, after)


def test_several_blocks(captioned):
    """More queries than are read at once, ties and all."""
    ranking = captioned(600, 2)
    ranking = replace(ranking, scores=np.round(ranking.scores, 1))
    for side in (ranking, ranking.T):
        scores = side.rows(0, len(side.queries.ids))
        expected = [sorted_positions(scores[query], side.relevant.of(query).tolist(), False) for query in (0, 255, 256, 599)]
        assert [by_query(positions(side))[query] for query in (0, 255, 256, 599)] == expected
