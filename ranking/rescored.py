"""Second scores of some pairs of a ranking: what a re-ranker made of the items that a first model had placed best.

Each direction has its own shortlists: a pair can be on that of its image, of its text, of both or of none.
"""

from __future__ import annotations

from dataclasses import dataclass

import h5py
import numpy as np

OF_QUERY, OF_ITEM = 1, 2
"""Marks of a pair that is on the shortlist of its query (row), of its item (column); 3 is both."""


@dataclass(frozen=True)
class Rescored:
    """Matrices of the shape of the first scores, arrays or open HDF5 datasets, rows and columns as those are stored."""

    scores: np.ndarray | h5py.Dataset
    """float32; 0 where a pair has no second score."""
    marks: np.ndarray | h5py.Dataset
    """uint8: 0, or a sum of OF_QUERY and OF_ITEM."""


def swapped(marks: np.ndarray) -> np.ndarray:
    """Marks as the other direction sees them."""
    return (marks >> 1) | ((marks & OF_QUERY) << 1)


def reordered(first: np.ndarray, second: np.ndarray, listed: np.ndarray) -> np.ndarray:
    """Scores (queries, items) that rank listed items first, by their second scores, and the rest behind, by their first ones.

    Listed items keep their second score. The n-th best of the others gets the query's lowest second score minus n, ties
    included: a mere shift of the first scores would round some of them to ties. A query without a list keeps its first scores.
    """
    scores = np.where(listed, second, first).astype(np.float32)
    for row in np.flatnonzero(listed.any(1) & ~listed.all(1)):
        rest = ~listed[row]
        distinct, place = np.unique(first[row, rest], return_inverse=True)
        scores[row, rest] = second[row, listed[row]].min() - (len(distinct) - place)
    return scores
