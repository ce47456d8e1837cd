"""Hard, easy and chosen queries of one direction of a ranking, each with what was retrieved for it.

All ranks here are 0-based: the rank of the best-placed relevant item. A query is hard from rank 10 on (no truth among
the first ten) and easy at rank 0 (the truth stands first), unless other thresholds are given. A threshold counts places,
as k in R@k does: under the expected tie policy rank 9.5 is not among the first ten.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np

from error_analysis.neighbours import Neighbours
from ranking.matrix import Kind, Ranking, RankingError
from ranking.metrics import Positions, Ties, positions

Direction = Literal["i2t", "t2i"]
By = Literal["rank", "margin", "ap"]
"""What tells hard queries from easy ones: the rank of the best truth, its score less the best wrong item's, or average precision."""
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
QUERY_KIND: dict[Direction, Kind] = {"i2t": "image", "t2i": "text"}
SHOWN = 10
"""Retrieved items kept for each example."""


@dataclass(frozen=True)
class Retrieval:
    """One direction of a ranking and where it puts the relevant items of each query."""

    direction: Direction
    ranking: Ranking
    positions: Positions
    ties: Ties

    @classmethod
    def of(cls, ranking: Ranking, direction: Direction, ties: Ties = "pessimistic") -> Retrieval:
        """Rank the truth of every query. A ranking without an image and a text axis raises RankingError."""
        kinds = ranking.queries.kind, ranking.items.kind
        if set(kinds) != {"image", "text"}:
            raise RankingError(f"error analysis reads image-text rankings; this one has {kinds[0]} queries and {kinds[1]} items")
        directed = ranking.by(QUERY_KIND[direction])
        return cls(direction, directed, positions(directed, ties), ties)

    @cached_property
    def neighbours(self) -> Neighbours:
        """The first items of every query, read at the first use."""
        return Neighbours.of(self.ranking, self.ties)

    @property
    def ranks(self) -> np.ndarray:
        """(queries,) rank of the best-placed relevant item, 0-based; multiples of one half under the expected tie policy."""
        return self.positions.first


@dataclass(frozen=True)
class Example:
    """One query, the 0-based rank of its truth, and the first items retrieved with their scores, best first."""

    direction: Direction
    query: str
    rank: float
    relevant: tuple[str, ...]
    retrieved: tuple[str, ...]
    scores: tuple[float, ...]


@dataclass(frozen=True)
class Mined:
    """Examples drawn from `total` queries of their kind."""

    total: int
    examples: tuple[Example, ...]


def hard(retrieval: Retrieval, threshold: int = 10) -> np.ndarray:
    """Indices of the queries without a truth among the first `threshold` (rank >= threshold), the worst first."""
    order = np.argsort(-retrieval.ranks, kind="stable")
    return order[retrieval.ranks[order] > threshold - 1]


def easy(retrieval: Retrieval, threshold: int = 1) -> np.ndarray:
    """Indices of the queries with a truth among the first `threshold` (rank < threshold), the best first."""
    order = np.argsort(retrieval.ranks, kind="stable")
    return order[retrieval.ranks[order] <= threshold - 1]


def precision(at: Positions) -> np.ndarray:
    """(Q,) average precision of each query over all its truths."""
    result: np.ndarray = at.per_query((at.order + 1) / (at.values + 1)) / at.counts
    return result


def below(retrieval: Retrieval, by: By, threshold: float) -> np.ndarray:
    """Indices of the queries whose margin or average precision is below the threshold, the worst first."""
    values = _ease(retrieval, by)
    order = np.argsort(values, kind="stable")
    return order[values[order] < threshold]


def at_least(retrieval: Retrieval, by: By, threshold: float) -> np.ndarray:
    """Indices of the queries whose margin or average precision is the threshold or more, the best first."""
    values = _ease(retrieval, by)
    order = np.argsort(-values, kind="stable")
    return order[values[order] >= threshold]


def _ease(retrieval: Retrieval, by: By) -> np.ndarray:
    return retrieval.neighbours.margin if by == "margin" else precision(retrieval.positions)


def chosen(retrieval: Retrieval, query_ids: Iterable[str]) -> np.ndarray:
    """Indices of the queries with these ids, in the order given; an unknown id raises RankingError."""
    axis = retrieval.ranking.queries
    where = {key: index for index, key in enumerate(axis.ids)}
    unknown = [key for key in query_ids if key not in where]
    if unknown:
        raise RankingError(f"no {axis.kind} {unknown[0]!r} among the {len(axis.ids)} queries; ids look like {axis.ids[0]!r}")
    return np.array([where[key] for key in query_ids], np.int64)


def mine(retrieval: Retrieval, queries: np.ndarray, sample: int = 40, seed: int = 0) -> Mined:
    """Examples for up to `sample` of these queries (0: all), drawn without replacement, in the order given."""
    drawn = queries
    if 0 < sample < len(queries):
        drawn = queries[np.sort(np.random.default_rng(seed).choice(len(queries), sample, replace=False))]
    return Mined(len(queries), examples(retrieval, drawn))


def examples(retrieval: Retrieval, queries: np.ndarray) -> tuple[Example, ...]:
    """The examples of these query indices, in that order."""
    return tuple(_example(retrieval, query) for query in queries.tolist())


def _example(retrieval: Retrieval, query: int) -> Example:
    ids, near = retrieval.ranking.items.ids, retrieval.neighbours
    return Example(
        retrieval.direction,
        retrieval.ranking.queries.ids[query],
        float(retrieval.ranks[query]),
        tuple(ids[item] for item in retrieval.ranking.relevant.of(query)),
        tuple(ids[item] for item in near.items[query, :SHOWN]),
        tuple(near.scores[query, :SHOWN].tolist()),
    )
