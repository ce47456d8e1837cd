"""Ranks of the truth under scores that are put together or corrected anew, counted rather than sorted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ranking.matrix import ROWS_AT_ONCE, Ranking
from ranking.metrics import Ties

LEAST_SPREAD = float(np.finfo(np.float32).tiny)
"""Scores that differ by less cannot be brought to one scale in float32."""


@dataclass(frozen=True)
class Change:
    """New scores of M rankings: weights[m, q] * score m of query q and item i, summed over m, less bias[i]."""

    weights: np.ndarray
    """(M, Q)."""
    bias: np.ndarray
    """(items,)."""


def recount(rankings: Sequence[Ranking], changes: Sequence[Change], ties: Ties = "pessimistic") -> list[np.ndarray]:
    """(Q,) 0-based rank of the best truth under each change, in one pass over the scores.

    All rankings have the same queries and items in the same order. Computed in float32; ties count as the policy says.
    """
    relevant, queries = rankings[0].relevant, len(rankings[0].queries.ids)
    ranks = [np.empty(queries) for _ in changes]
    weights = [change.weights.astype(np.float32) for change in changes]
    biases = [change.bias.astype(np.float32) for change in changes]
    for start in range(0, queries, ROWS_AT_ONCE):
        stop = min(start + ROWS_AT_ONCE, queries)
        columns = relevant.indices[relevant.indptr[start] : relevant.indptr[stop]]
        rows = np.repeat(np.arange(stop - start), np.diff(relevant.indptr[start : stop + 1]))
        blocks = [ranking.rows(start, stop) for ranking in rankings]
        for found, weight, bias in zip(ranks, weights, biases, strict=True):
            scores = -np.broadcast_to(bias, blocks[0].shape)
            for own, block in zip(weight, blocks, strict=True):
                scores += own[start:stop, None] * block
            found[start:stop] = _first_ranks(scores, rows, columns, ties)
    return ranks


def _first_ranks(scores: np.ndarray, rows: np.ndarray, columns: np.ndarray, ties: Ties) -> np.ndarray:
    """(queries,) rank of each query's best truth; `scores` of the relevant pairs (rows, columns) are overwritten."""
    best = np.maximum.reduceat(scores[rows, columns], np.searchsorted(rows, np.arange(len(scores))))[:, None]
    scores[rows, columns] = -np.inf
    above = np.count_nonzero(scores > best, axis=1)
    upto = np.count_nonzero(scores >= best, axis=1)
    ranks: np.ndarray = {"optimistic": above, "pessimistic": upto, "expected": (above + upto) / 2}[ties]
    return ranks


def wrong_images_above(images: Ranking, truth: np.ndarray, ties: Ties = "pessimistic") -> np.ndarray:
    """(I,) of an image-to-text ranking: how many other images have a text, not of this image, that stands above its best truth.

    `truth` (I,) is the best truth's score. A tied text stands above unless ties are optimistic.
    """
    pairs, counts = images.relevant, np.empty(len(truth), np.int64)
    for start, block in images.blocks():
        stop = start + len(block)
        scores, best = block.copy(), truth[start:stop, None]
        rows = np.repeat(np.arange(len(block)), np.diff(pairs.indptr[start : stop + 1]))
        scores[rows, pairs.indices[pairs.indptr[start] : pairs.indptr[stop]]] = -np.inf
        of_images = np.maximum.reduceat(scores[:, pairs.indices], pairs.indptr[:-1], axis=1)
        counts[start:stop] = np.count_nonzero(of_images > best if ties == "optimistic" else of_images >= best, axis=1)
    return counts


def log_sums(images: Ranking, temperature: float, best_of_text: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """log sum exp(score / temperature) of an image-to-text ranking: (I,) over the texts of each image, (T,) over the images of each text.

    `best_of_text` (T,) is each text's highest score, to which its sum is related, so that nothing overflows or vanishes.
    """
    of_image, of_text = np.empty(len(images.queries.ids)), np.zeros(len(images.items.ids))
    for start, block in images.blocks():
        best = block.max(axis=1, keepdims=True)
        with np.errstate(over="ignore"):  # what is so far below the best counts for nothing
            rows, columns = (np.exp((block - most) / np.float32(temperature)) for most in (best, best_of_text))
        of_image[start : start + len(block)] = np.log(rows.sum(axis=1, dtype=float)) + best[:, 0] / temperature
        of_text += columns.sum(axis=0, dtype=float)
    return of_image, np.log(of_text) + best_of_text / temperature
