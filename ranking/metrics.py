"""Retrieval metrics, numpy only. Everything is computed from the positions of the relevant items in the ranking.

All metrics lie in [0, 1] except ranks; positions are 0-based. Ties follow a named policy: `pessimistic` (default: a tied
irrelevant item stands above), `optimistic` (below), `expected` (halfway). What the image-text literature calls R@k is
`recall_any`: the share of queries with at least one relevant item among the first k ("success" in ir_measures).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from ranking.matrix import Ranking, RankingError

Ties = Literal["pessimistic", "optimistic", "expected"]


@dataclass(frozen=True)
class Positions:
    """Where the relevant items of each query stand: those of query q are values[indptr[q]:indptr[q + 1]], ascending, 0-based.

    Under the expected tie policy positions are multiples of one half.
    """

    indptr: np.ndarray
    values: np.ndarray

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

    def per_query(self, values: np.ndarray) -> np.ndarray:
        """Sum of a value per relevant item over each query."""
        return np.add.reduceat(values, self.indptr[:-1])


def positions(ranking: Ranking, ties: Ties = "pessimistic") -> Positions:
    """Positions of every relevant item. A query without a relevant item or a non-finite score raises RankingError.

    Position of a relevant item = irrelevant items scored strictly higher + tied irrelevant items times 0, 1/2 or 1
    + relevant items placed before it. No sort of the gallery is needed: counting is enough.
    """
    if ties not in get_args(Ties):
        raise RankingError(f"tie policy {ties!r}: must be one of {', '.join(get_args(Ties))}")
    empty = np.flatnonzero(np.diff(ranking.relevant.indptr) == 0)
    if len(empty):
        raise RankingError(
            f"{len(empty)} of {len(ranking.queries.ids)} {ranking.queries.kind} queries have no relevant item, the first: "
            f"{ranking.queries.ids[empty[0]]!r}; select the queries that have one"
        )
    values = np.empty(len(ranking.relevant.indices), np.float64)
    for start, block in ranking.blocks():
        lo, hi = ranking.relevant.indptr[[start, start + len(block)]]
        values[lo:hi] = _block_positions(
            block, ranking.relevant.indptr[start : start + len(block) + 1] - lo, ranking.relevant.indices[lo:hi], ties
        )
    return Positions(ranking.relevant.indptr, values)


def _block_positions(block: np.ndarray, indptr: np.ndarray, indices: np.ndarray, ties: Ties) -> np.ndarray:
    """Positions of the relevant items of one block of rows, flat, ascending within a row."""
    row = np.repeat(np.arange(len(block)), np.diff(indptr))
    relevant = block[row, indices]
    ordered = relevant[np.lexsort((-relevant, row))]
    irrelevant = block.copy()
    irrelevant[row, indices] = -np.inf
    irrelevant.sort(axis=1)
    above, upto = np.empty(len(ordered)), np.empty(len(ordered))
    for i in range(len(block)):
        mine = slice(indptr[i], indptr[i + 1])
        above[mine] = block.shape[1] - np.searchsorted(irrelevant[i], ordered[mine], side="right")
        upto[mine] = block.shape[1] - np.searchsorted(irrelevant[i], ordered[mine], side="left")
    weight = {"pessimistic": 1.0, "optimistic": 0.0, "expected": 0.5}[ties]
    before = np.arange(len(ordered)) - np.repeat(indptr[:-1], np.diff(indptr))
    result: np.ndarray = above + weight * (upto - above) + before
    return result


def recall_any(at: Positions, k: int) -> float:
    """R@k of the image-text literature: share of queries with a relevant item among the first k."""
    return float(np.mean(at.first < k))


def recall_fraction(at: Positions, k: int) -> float:
    """True recall at k: share of a query's relevant items among the first k, averaged over queries."""
    return float(np.mean(at.per_query((at.values < k).astype(float)) / at.counts))


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
    return float(np.mean(at.per_query((at.values < np.repeat(at.counts, at.counts)).astype(float)) / at.counts))


def map_at_r(at: Positions) -> float:
    """MAP@R (Musgrave et al. 2020, "A Metric Learning Reality Check"): mean over i <= R of precision@i at hits, divided by R."""
    hit = at.values < np.repeat(at.counts, at.counts)
    return float(np.mean(at.per_query(hit * (at.order + 1) / (at.values + 1)) / at.counts))


def ndcg(at: Positions, k: int) -> float:
    """NDCG@k with binary relevance: discount 1 / log2(rank + 1), rank 1-based, divided by the ideal order of the gallery."""
    dcg = at.per_query(np.where(at.values < k, 1 / np.log2(at.values + 2), 0.0))
    ideal = at.per_query(np.where(at.order < k, 1 / np.log2(at.order + 2), 0.0))
    return float(np.mean(dcg / ideal))
