"""What stands first for each query of one direction, read from the scores once: the other modules read these arrays.

The places are those that the rank counts: under the pessimistic tie policy a truth stands behind the wrong items that tie
with it, under the optimistic one before them, under the expected one in the order of the items.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ranking.matrix import ROWS_AT_ONCE, Ranking
from ranking.metrics import Ties

KEPT = 50
"""Items kept for each query."""


@dataclass(frozen=True)
class Neighbours:
    """The first k items of each of Q queries, and what the scores of all items say; P is the number of relevant pairs."""

    items: np.ndarray
    """(Q, k) int32, best first."""
    scores: np.ndarray
    """(Q, k) float32 of `items`."""
    relevant: np.ndarray
    """(P,) float32: the score of each relevant pair, in the order of ranking.relevant."""
    truth: np.ndarray
    """(Q,) float32: the best score of a relevant item."""
    best_wrong: np.ndarray
    """(Q,) float32: the best score of an irrelevant item; -inf where every item is relevant."""
    best_wrong_item: np.ndarray
    """(Q,) int32: that item, the first of those that tie; -1 where every item is relevant."""
    mean: np.ndarray
    """(Q,) float64 mean over all items."""
    spread: np.ndarray
    """(Q,) float64 standard deviation over all items."""

    @classmethod
    def of(cls, ranking: Ranking, ties: Ties = "pessimistic", k: int = KEPT) -> Neighbours:
        """Read every score once, block by block. k is cut to the number of items."""
        indptr, indices = ranking.relevant.indptr, ranking.relevant.indices
        k, parts = min(k, len(ranking.items.ids)), []
        for start in range(0, len(ranking.queries.ids), ROWS_AT_ONCE):
            stop = min(start + ROWS_AT_ONCE, len(ranking.queries.ids))
            rows = np.repeat(np.arange(stop - start), np.diff(indptr[start : stop + 1]))
            parts.append(_read(ranking.rows(start, stop), rows, indices[indptr[start] : indptr[stop]], k, ties))
        return cls(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    @property
    def margin(self) -> np.ndarray:
        """(Q,) best truth's score less the best wrong item's: above 0 the truth stands first; inf where every item is relevant."""
        margin: np.ndarray = self.truth.astype(np.float64) - self.best_wrong
        return margin


def _read(block: np.ndarray, rows: np.ndarray, columns: np.ndarray, k: int, ties: Ties) -> tuple[np.ndarray, ...]:
    """The fields of a block of scores (queries, items), whose relevant pairs are (rows, columns)."""
    items, scores = first_items(block, rows, columns, k, ties)
    relevant = block[rows, columns]
    truth = np.maximum.reduceat(relevant, np.searchsorted(rows, np.arange(len(block))))
    wrong = block.copy()
    wrong[rows, columns] = -np.inf
    item = wrong.argmax(axis=1).astype(np.int32)
    best = wrong[np.arange(len(block)), item]
    item[np.isneginf(best)] = -1
    return items, scores, relevant, truth, best, item, block.mean(axis=1, dtype=float), block.std(axis=1, dtype=float)


def first_items(block: np.ndarray, rows: np.ndarray, columns: np.ndarray, k: int, ties: Ties) -> tuple[np.ndarray, np.ndarray]:
    """Items (queries, k) int32 in the first k places of a block of scores (queries, items), best first, and their scores.

    `rows`, `columns` are the relevant pairs. Wrong items that tie stand in their own order.
    """
    last = np.partition(block, block.shape[1] - k, axis=1)[:, block.shape[1] - k]
    kept = block >= last[:, None]
    for row in np.flatnonzero(np.count_nonzero(kept, axis=1) > 2 * k):  # else a model with one score for all would sort them all
        tied = np.flatnonzero(block[row] == last[row])
        kept[row, tied[k + np.count_nonzero(rows == row) :]] = False
    kept[rows, columns] = block[rows, columns] >= last[rows]
    query, item = np.divmod(np.flatnonzero(kept), block.shape[1])
    true = np.zeros(block.shape, bool)
    true[rows, columns] = True
    place = {"pessimistic": 1, "optimistic": -1, "expected": 0}[ties] * true[query, item].astype(np.int8)
    order = np.lexsort((item, place, -block[query, item], query))
    chosen = order[np.searchsorted(query, np.arange(len(block)))[:, None] + np.arange(k)]
    return item[chosen].astype(np.int32), block[query[chosen], item[chosen]]
