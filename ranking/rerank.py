"""Re-ranking: a second model scores only the items that a first one has placed best for each query.

The new ranking file keeps both scores and marks the pairs that were scored again (`ranking.rescored`). A relevant item that is
not on its query's shortlist can never be found by the second model: the shortlist's recall is the ceiling (`ceilings`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from corpora.corpus import Split
from models.protocols import States
from ranking.engine import Engine
from ranking.evaluate import WAYS
from ranking.matrix import Kind, Provenance, Ranking, RankingError
from ranking.rescored import OF_ITEM, OF_QUERY, Rescored

Queries = Literal["both", "image", "text"]
KIND_OF: dict[str, Kind] = {"i2t": "image", "t2i": "text"}


@dataclass(frozen=True, kw_only=True)
class Reranker(Engine):
    """An engine that scores the pairs on shortlists alone; each image and text is still encoded once."""

    first: Ranking
    """The first model's ranking of this split."""
    marks: np.ndarray
    """(images, texts) uint8: which pairs are on whose shortlist, as `shortlists` gives them."""

    def _compare(self, images: States, texts: States, columns: np.ndarray) -> Tensor:
        scores = torch.zeros(len(images[0]), len(columns), device=images[0].device)
        for place, column in enumerate(columns):
            text = tuple(state[place : place + 1] for state in texts)
            on_a_list = torch.from_numpy(np.flatnonzero(self.marks[:, column])).to(scores.device)
            for listed in on_a_list.split(self.pair_batch) if len(on_a_list) else ():
                some = tuple(state.index_select(0, listed) for state in images)
                scores[listed, place] = self.model.score(some, text).float().squeeze(1)
        return scores

    def _ranking(self, scores: np.ndarray, provenance: Provenance) -> Ranking:
        first = self.first.by("image")
        stored = np.concatenate([block for _, block in first.blocks()]) if first.transposed else first.scores
        return replace(super()._ranking(scores, provenance), scores=stored, rescored=Rescored(scores, self.marks))


def shortlists(first: Ranking, split: Split, top: int, queries: Queries = "both") -> np.ndarray:
    """Marks (images, texts) of the `top` best items of each query; of equal ones at the end of a list the earlier.

    A ranking that was re-ranked already, or is not of this split, raises RankingError.
    """
    check_first(first, split)
    marks = np.zeros((len(split.image_ids), len(split.texts)), np.uint8)
    directions: tuple[tuple[Kind, np.ndarray, int], ...] = ("image", marks, OF_QUERY), ("text", marks.T, OF_ITEM)
    for kind, view, mark in directions:
        if queries in ("both", kind):
            for start, block in first.by(kind).blocks():
                best = np.argsort(-block, axis=1, kind="stable")[:, :top]
                view[start + np.arange(len(block))[:, None], best] |= mark
    return marks


def check_first(first: Ranking, split: Split) -> None:
    """RankingError unless this is a plain ranking of the split."""
    if first.rescored is not None:
        raise RankingError("a re-ranked file cannot be re-ranked once more; re-rank the first model's")
    images = first.by("image")
    if first.provenance.digest != split.digest or (images.queries.ids, images.items.ids) != (split.image_ids, split.text_ids):
        raise RankingError(
            f"ranks split {first.provenance.split!r} of {first.provenance.corpus}, {len(images.queries.ids)} images and "
            f"{len(images.items.ids)} texts; the split to re-rank, {split.name!r}, has other records"
        )


def ceilings(ranking: Ranking) -> dict[str, float]:
    """By direction, the percentage of queries with a relevant item on their shortlist: R@k of any re-ranking is at most that."""
    found = {}
    for way in WAYS:
        view = ranking.by(KIND_OF[way])
        hits, any_listed = 0, False
        for start in range(0, len(view.queries.ids), 256):
            stop = min(start + 256, len(view.queries.ids))
            listed = view.second(start, stop)[1] & OF_QUERY > 0
            any_listed |= bool(listed.any())
            hits += sum(bool(listed[query - start, view.relevant.of(query)].any()) for query in range(start, stop))
        if any_listed:
            found[way] = 100 * hits / len(view.queries.ids)
    return found


def comparison(before: dict[str, Any], after: dict[str, Any], ceiling: dict[str, float], top: int) -> str:
    """R@1, R@5 and R@10 of the first ranking and of the new one, with the ceiling, as plain text."""
    lines = [f"{'':<16}{'R@1':>16}{'R@5':>16}{'R@10':>16}   ceiling (R@{top} of the first)"]
    for way, most in ceiling.items():
        cells = (f"{before[way][f'R@{k}']:.2f} -> {after[way][f'R@{k}']:.2f}" for k in (1, 5, 10))
        name = {"i2t": "image to text", "t2i": "text to image"}[way]
        lines.append(f"{name:<16}" + "".join(f"{cell:>16}" for cell in cells) + f"   {most:.2f}")
    return "\n".join(lines)


def over(first: Provenance, second: Provenance) -> Provenance:
    """Of a re-ranked file: the second model's, with what the first one brings. Either may have been trained on the images."""
    whence = {
        "model": first.model,
        "checkpoint": first.checkpoint,
        "weights": first.weights,
        "score_meaning": first.score_meaning,
    }
    leaks = [f"{made.model}: {made.leakage}" for made in (first, second) if made.leakage]
    return replace(
        second,
        model=f"{second.model} over {first.model}",
        config=json.dumps({**json.loads(second.config), "first": whence}, sort_keys=True),
        leakage="; ".join(leaks),
    )
