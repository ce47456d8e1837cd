"""Retrieval metrics, numpy only. Everything is computed from the positions of the relevant items in the ranking.

All metrics lie in [0, 1] except ranks; positions are 0-based. Ties follow a named policy: `pessimistic` (default: a tied
irrelevant item stands above), `optimistic` (below), `expected` (halfway). What the image-text literature calls R@k is
`recall_any`: the share of queries with at least one relevant item among the first k ("success" in ir_measures).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from ranking.matrix import Ranking, RankingError

Ties = Literal["pessimistic", "optimistic", "expected"]


@dataclass(frozen=True)
class Positions:
    """Where the relevant items of each query stand: those of query q are values[indptr[q]:indptr[q + 1]], ascending, 0-based.

    Integers; under the expected tie policy multiples of one half.
    """

    indptr: np.ndarray
    values: np.ndarray

    def __post_init__(self) -> None:
        if len(self.indptr) < 2 or (self.counts < 1).any() or self.indptr[0] != 0 or self.indptr[-1] != len(self.values):
            raise RankingError("positions: every query needs at least one relevant item")
        steps = np.where(self.order == 0, self.values + 1, np.diff(self.values, prepend=0))
        if not (steps >= 1).all():  # also false for NaN
            raise RankingError("positions: relevant items of a query must stand at different places, ascending, counted from 0")

    @property
    def counts(self) -> np.ndarray:
        """Relevant items of each query."""
        return np.diff(self.indptr)

    @property
    def first(self) -> np.ndarray:
        """Rank of the best-placed relevant item of each query, 0-based."""
        return self.values[self.indptr[:-1]]

    @property
    def order(self) -> np.ndarray:
        """0, 1, 2, ... within each query: how many relevant items stand above."""
        return np.arange(len(self.values)) - np.repeat(self.indptr[:-1], self.counts)

    def within(self, k: int | np.ndarray) -> np.ndarray:
        """Which relevant items stand among the first k. Halfway between places k and k + 1 is not among them."""
        result: np.ndarray = self.values <= k - 1
        return result

    def per_query(self, values: np.ndarray) -> np.ndarray:
        """Sum of a value per relevant item over each query."""
        return np.add.reduceat(values, self.indptr[:-1], dtype=float)


def positions(ranking: Ranking, ties: Ties = "pessimistic") -> Positions:
    """Positions of every relevant item. A query without a relevant item or a non-finite score raises RankingError."""
    check_policy(ties)
    return positions_by_policy(ranking)[ties]


def check_policy(ties: Ties) -> None:
    """RankingError if this is not the name of a tie policy."""
    if ties not in get_args(Ties):
        raise RankingError(f"tie policy {ties!r}: must be one of {', '.join(get_args(Ties))}")


def positions_by_policy(ranking: Ranking) -> dict[Ties, Positions]:
    """`positions` under every tie policy, in one pass over the scores.

    Position of a relevant item = irrelevant items scored strictly higher + tied irrelevant items times 0, 1/2 or 1
    + relevant items placed before it. No sort of the gallery is needed: counting is enough.
    """
    indptr, indices = ranking.relevant.indptr, ranking.relevant.indices
    empty = np.flatnonzero(np.diff(indptr) == 0)
    if len(empty):
        raise RankingError(
            f"{len(empty)} of {len(ranking.queries.ids)} {ranking.queries.kind} queries have no relevant item, the first: "
            f"{ranking.queries.ids[empty[0]]!r}; select the queries that have one"
        )
    best, worst = np.empty(len(indices), np.int64), np.empty(len(indices), np.int64)
    for start, block in ranking.blocks():
        for query, row in enumerate(block, start):
            mine = slice(indptr[query], indptr[query + 1])
            best[mine], worst[mine] = _row_positions(row, indices[mine])
    return {
        "pessimistic": Positions(indptr, worst),
        "optimistic": Positions(indptr, best),
        "expected": Positions(indptr, (best + worst) / 2),
    }


def _row_positions(row: np.ndarray, relevant: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Optimistic and pessimistic positions of one query's relevant items, ascending."""
    irrelevant = row.copy()
    irrelevant[relevant] = -np.inf  # never counted: every score is finite
    scores = np.sort(row[relevant])[::-1]
    order = np.arange(len(scores))
    above = np.array([np.count_nonzero(irrelevant > score) for score in scores])
    upto = np.array([np.count_nonzero(irrelevant >= score) for score in scores])
    return above + order, upto + order


def recall_any(at: Positions, k: int) -> float:
    """R@k of the image-text literature: share of queries with a relevant item among the first k."""
    return float(np.mean(at.within(k)[at.indptr[:-1]]))


def recall_fraction(at: Positions, k: int) -> float:
    """True recall at k: share of a query's relevant items among the first k, averaged over queries."""
    return float(np.mean(at.per_query(at.within(k)) / at.counts))


def median_rank(at: Positions) -> float:
    """Median rank of the first relevant item, 1-based as papers print it (MedR)."""
    return float(np.median(at.first) + 1)


def mean_rank(at: Positions) -> float:
    """Mean rank of the first relevant item, 1-based (MeanR)."""
    return float(np.mean(at.first) + 1)


def mrr(at: Positions) -> float:
    """Mean reciprocal rank of the first relevant item."""
    return float(np.mean(1 / (at.first + 1)))


def mean_average_precision(at: Positions) -> float:
    """mAP over the whole gallery; a perfect ranking gives 1."""
    return float(np.mean(at.per_query((at.order + 1) / (at.values + 1)) / at.counts))


def r_precision(at: Positions) -> float:
    """Share of relevant items among the first R, R being the query's number of relevant items."""
    return float(np.mean(at.per_query(at.within(np.repeat(at.counts, at.counts))) / at.counts))


def map_at_r(at: Positions) -> float:
    """MAP@R (Musgrave et al. 2020, "A Metric Learning Reality Check"): mean over i <= R of precision@i at hits, divided by R."""
    hit = at.within(np.repeat(at.counts, at.counts))
    return float(np.mean(at.per_query(hit * (at.order + 1) / (at.values + 1)) / at.counts))


def ndcg(at: Positions, k: int) -> float:
    """NDCG@k with binary relevance: discount 1 / log2(rank + 1), rank 1-based, divided by the ideal order of the gallery."""
    dcg = at.per_query(np.where(at.within(k), 1 / np.log2(at.values + 2), 0.0))
    ideal = at.per_query(np.where(at.order < k, 1 / np.log2(at.order + 2), 0.0))
    return float(np.mean(dcg / ideal))


def graded_ndcg(ranking: Ranking, relevance: Callable[[int, int], np.ndarray], k: int = 25, ties: Ties = "pessimistic") -> float:
    """NDCG@k with graded relevance (Jarvelin & Kekalainen 2002): gain 2^relevance - 1, discount 1 / log2(rank + 1), rank 1-based,
    divided by that of the best order of the whole gallery; 0 for a query to which no item is relevant.

    `relevance(start, stop)` gives (queries, items) of queries start..stop-1, 0 or more. Of items with one score the least
    relevant comes first under pessimistic ties, the most relevant under optimistic; under expected each has their mean gain.
    """
    check_policy(ties)
    k = min(k, len(ranking.items.ids))
    discounts = 1 / np.log2(np.arange(k) + 2)
    total = 0.0
    for start, block in ranking.blocks():
        gains = np.exp2(relevance(start, start + len(block)).astype(float)) - 1
        best = np.sort(np.partition(gains, -k, axis=1)[:, -k:], axis=1)[:, ::-1] @ discounts
        for scores, gain, ideal in zip(block, gains, best, strict=True):
            total += _first_gains(scores, gain, k, ties) @ discounts / ideal if ideal else 0.0
    return total / len(ranking.queries.ids)


def _first_gains(scores: np.ndarray, gains: np.ndarray, k: int, ties: Ties) -> np.ndarray:
    """(k,) gains of the items in the first k places."""
    first = np.flatnonzero(scores >= np.partition(scores, -k)[-k])  # all that tie with the one in place k as well
    scores, gains = scores[first], gains[first]
    if ties == "expected":
        _, group, size = np.unique(scores, return_inverse=True, return_counts=True)
        gains = (np.bincount(group, gains) / size)[group]
    best_first: np.ndarray = gains[np.lexsort((-gains if ties == "optimistic" else gains, -scores))][:k]
    return best_first
