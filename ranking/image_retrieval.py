"""Images searched by images of the same class: figures from vectors, exact, without ever holding all scores.

Every image is a query against all others ("leave one out"), or the images of a query list against those of a gallery list. A query is
never its own item: it is left out by its id, wherever it would stand. A result is a plain dict, ready for JSON:

    schema, model, checkpoint, corpus, split, digest, leakage    of the result and of the vectors
    protocol    {"name", "queries", "items", "without_relevant": queries left out as no item is of their class}
    ties, unit
    figures     R@1, R@10, R@100, R@1000 (as far as there are so many items), R-precision, MAP@R, MRR, all in percent
    super_classes    where classes are named <super-class>/<class>: queries, R@1, R-precision and MAP@R of the queries of each
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from ranking import metrics
from ranking.matrix import Axis, Provenance, Ranking, RankingError, Relevance
from ranking.metrics import Positions, Ties
from ranking.vectors import Vectors, check_one_model

SCHEMA = 1
CUTOFFS = (1, 10, 100, 1000)
LEAVE_ONE_OUT, QUERY_GALLERY = "leave one out", "query and gallery"
AT_ONCE = 1 << 14
"""Items that are compared with some queries at once."""
NEVER = np.finfo(np.float32).min
"""Score of a query against itself."""
PUBLISHED = "MAP as published"
"""The original's figure under that name: 1 / (1 + r), r the 1-based rank of the first image of the class, 0 if that is above 1,000;
a perfect ranking gives 50."""


@dataclass(frozen=True)
class Products:
    """Scores as an array that is computed when rows are read: `ranking.matrix.Ranking` reads a few at a time."""

    queries: Vectors
    rows: np.ndarray
    """(Q,) which of the query vectors are asked."""
    items: Vectors
    itself: np.ndarray
    """(Q,) the item that is the query itself, or -1."""

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.rows), len(self.items)

    def __getitem__(self, some: slice) -> np.ndarray:
        """(q, items) float32, higher is nearer: inner products, or squared distances, negative."""
        asked = np.asarray(self.queries.rows[self.rows[some]], np.float32)
        scores = np.empty((len(asked), len(self.items)), np.float32)
        for start, block in self.items.blocks(AT_ONCE):
            part = asked @ block.T
            if self.items.made_by.measure == "l2":
                part = 2 * part - (asked**2).sum(1)[:, None] - (block**2).sum(1)
            scores[:, start : start + len(block)] = part
        own = self.itself[some]
        scores[own >= 0, own[own >= 0]] = NEVER
        return scores


def evaluate(
    queries: Vectors,
    items: Vectors,
    classes: Mapping[str, str],
    ties: Ties = "pessimistic",
    leakage: str = "",
    published_map: bool = False,
) -> dict[str, Any]:
    """The result described above; `classes` gives the class of every id. RankingError if the vectors do not belong together."""
    ranking = by_class(queries, items, classes)
    at, made = metrics.positions(ranking, ties), items.made_by
    kinds = [classes[key].rpartition("/")[0] for key in ranking.queries.ids]
    together = list(queries.ids) == list(items.ids)
    return {
        "schema": SCHEMA,
        **{key: getattr(made, key) for key in ("model", "checkpoint", "corpus", "split", "digest")},
        "leakage": leakage,
        "protocol": {
            "name": LEAVE_ONE_OUT if together else QUERY_GALLERY,
            "queries": len(ranking.queries.ids),
            "items": len(items),
            "without_relevant": len(queries) - len(ranking.queries.ids),
        },
        "ties": ties,
        "unit": "percent",
        "figures": figures(at, len(items) - together) | ({PUBLISHED: _published(at)} if published_map else {}),
        "super_classes": {kind: _few(_of(at, [one == kind for one in kinds])) for kind in sorted(set(kinds)) if kind},
    }


def by_class(queries: Vectors, items: Vectors, classes: Mapping[str, str]) -> Ranking:
    """Queries against items of their class, as a ranking whose scores are computed when they are read.

    Queries without an item of their class, itself apart, are left out; RankingError if that leaves none.
    """
    _check_together(queries, items)
    missing = next((key for key in (*queries.ids, *items.ids) if not classes.get(key)), None)
    if missing is not None:
        raise RankingError(f"image {missing!r} has no class; only images with classes can be evaluated")
    place = {key: row for row, key in enumerate(items.ids)}
    members: dict[str, list[int]] = {}
    for key, row in place.items():
        members.setdefault(classes[key], []).append(row)
    relevant = [[row for row in members.get(classes[key], ()) if row != place.get(key)] for key in queries.ids]
    rows = np.array([query for query, found in enumerate(relevant) if found], np.int64)
    if not len(rows):
        raise RankingError(f"none of the {len(queries)} queries has another image of its class among the {len(items)} items")
    counts = np.array([len(relevant[query]) for query in rows])
    kept = Relevance(np.append(0, counts.cumsum()), np.concatenate([relevant[query] for query in rows]).astype(np.int64))
    ids = tuple(queries.ids)
    asked = tuple(ids[query] for query in rows)
    itself = np.array([place.get(key, -1) for key in asked])
    scores = cast(Any, Products(queries, rows, items, itself))
    return Ranking(Axis("image", asked), Axis("image", tuple(items.ids)), kept, scores, _provenance(items))


def of_ids(vectors: Vectors, ids: Sequence[str]) -> Vectors:
    """Some of the vectors, copied into memory; RankingError names an id that is not there."""
    place = {key: row for row, key in enumerate(vectors.ids)}
    unknown = [key for key in ids if key not in place]
    if unknown:
        raise RankingError(f"{len(unknown)} of {len(ids)} images are not in the split, the first: {unknown[0]!r}")
    return Vectors(tuple(ids), vectors.rows[[place[key] for key in ids]], vectors.made_by)


def figures(at: Positions, others: int) -> dict[str, float]:
    """In percent; `others`: how many items a query has."""
    recalls = {f"R@{k}": 100 * metrics.recall_any(at, k) for k in CUTOFFS if k <= others}
    return recalls | {
        "R-precision": 100 * metrics.r_precision(at),
        "MAP@R": 100 * metrics.map_at_r(at),
        "MRR": 100 * metrics.mrr(at),
    }


def as_table(result: dict[str, Any]) -> str:
    """A result as plain text, super-classes from the worst to the best."""
    protocol, kinds = result["protocol"], result["super_classes"]
    lines = [
        f"{result['model']} on {result['corpus']}, split {result['split']}: {protocol['name']}, {protocol['queries']:,} queries, "
        f"{protocol['items']:,} images, ties {result['ties']}, in percent",
        *(f"{name:<20}{value:>8.2f}" for name, value in result["figures"].items()),
    ]
    if protocol["without_relevant"]:
        lines.append(f"{protocol['without_relevant']:,} queries left out: no other image of their class")
    if result["leakage"]:
        lines.append(f"leakage: {result['leakage']}")
    if kinds:
        lines.append(f"{'super-class':<20}{'queries':>8}{'R@1':>8}{'MAP@R':>8}")
        ordered = sorted(kinds.items(), key=lambda kind: float(kind[1]["R@1"]))
        lines += [f"{kind:<20}{some['queries']:>8}{some['R@1']:>8.2f}{some['MAP@R']:>8.2f}" for kind, some in ordered]
    return "\n".join(lines)


def _check_together(queries: Vectors, items: Vectors) -> None:
    check_one_model(queries, items.dimension, items.made_by)
    if {queries.made_by.kind, items.made_by.kind} != {"images"}:
        raise RankingError(f"vectors of {queries.made_by.kind} and {items.made_by.kind}: give those of images")


def _provenance(items: Vectors) -> Provenance:
    made = items.made_by
    meaning = "inner product" if made.measure == "ip" else "squared distance, negative"
    return Provenance(
        made.model, made.checkpoint, made.corpus, made.split, made.digest, meaning, revision=made.revision, weights=made.weights
    )


def _published(at: Positions) -> float:
    return float(100 * np.mean(np.where(at.first < 1000, 1 / (at.first + 2), 0)))


def _few(at: Positions) -> dict[str, Any]:
    return {
        "queries": len(at.counts),
        "R@1": 100 * metrics.recall_any(at, 1),
        "R-precision": 100 * metrics.r_precision(at),
        "MAP@R": 100 * metrics.map_at_r(at),
    }


def _of(at: Positions, chosen: Sequence[bool]) -> Positions:
    """The positions of some queries alone."""
    mask = np.array(chosen)
    return Positions(np.append(0, at.counts[mask].cumsum()), at.values[np.repeat(mask, at.counts)])
