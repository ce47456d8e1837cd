"""What the ranks say, in plain sentences and as a histogram."""

from __future__ import annotations

from typing import Any

import numpy as np

from error_analysis.analysis import Analysis, Contrast, Model, hard_for_all
from error_analysis.mining import DIRECTIONS, QUERY_KIND, Direction, Retrieval

NOUN: dict[Direction, str] = {direction: "image" if kind == "image" else "caption" for direction, kind in QUERY_KIND.items()}
WAY: dict[Direction, str] = {"i2t": "Image to text", "t2i": "Text to image"}


def histogram(ranks: np.ndarray, items: int) -> list[dict[str, Any]]:
    """How many queries have their truth in each range of 1-based ranks: 1, 2-5, 6-10, 11-20, 21-50, ... up to `items`.

    `ranks` (queries,) are 0-based; halfway between two places counts as the later, as in R@k.
    """
    edges = [0, 1, 5, 10]
    while edges[-1] < items:
        edges.append(edges[-1] * 5 // 2 if str(edges[-1]).startswith("2") else edges[-1] * 2)
    edges = [edge for edge in edges if edge < items] + [items]
    counts, _ = np.histogram(np.ceil(ranks), edges)
    return [
        {"first": low + 1, "last": high, "queries": int(count), "share": float(count / len(ranks))}
        for low, high, count in zip(edges, edges[1:], counts, strict=False)
    ]


def sentences(analysis: Analysis) -> list[str]:
    """What is right and wrong with each model, and where the models differ."""
    return of_models(analysis) + [
        _of_contrast(contrast, analysis) for contrast in analysis.contrasts if any(contrast.shifts.values())
    ]


def of_models(analysis: Analysis) -> list[str]:
    """What all models miss, first of all; then each model for itself."""
    said = [
        f"{model.name} is tested with what it knows: {leak}." for model in analysis.models if (leak := model.provenance.leakage)
    ]
    said += [_of_model(model, analysis.options.hard) for model in analysis.models]
    said += [_of_ties(model) for model in analysis.models if any(_tied(model, direction) for direction in DIRECTIONS)]
    return [_of_all(analysis), *said] if len(analysis.models) > 1 else said


def _of_all(analysis: Analysis) -> str:
    hard = {direction: hard_for_all(analysis, direction) for direction in DIRECTIONS}
    if not any(hard.values()):
        return f"For every query some model has a truth among the first {analysis.options.hard}."
    missed = " and ".join(
        f"{counted(count, NOUN[direction])} ({100 * count / len(analysis.ranks(direction)):.1f} %)"
        for direction, count in hard.items()
    )
    return f"For {missed} no model has a truth among the first {analysis.options.hard}."


def _of_model(model: Model, hard: int) -> str:
    shares = []
    for direction in DIRECTIONS:
        ranks = model.retrievals[direction].ranks
        right = int((ranks <= 0).sum())
        shares.append(f"{100 * right / len(ranks):.1f} % of {NOUN[direction]}s ({right:,} of {len(ranks):,})")
    missed = " and ".join(_missed(model.retrievals[direction], hard) for direction in DIRECTIONS)
    return f"{model.name} puts a truth first for {' and '.join(shares)}. It has none among the first {hard} for {missed}."


def _missed(retrieval: Retrieval, hard: int) -> str:
    missed = retrieval.ranks[retrieval.ranks > hard - 1]
    count = counted(len(missed), NOUN[retrieval.direction])
    if not len(missed):
        return count
    share, items = 100 * len(missed) / len(retrieval.ranks), len(retrieval.ranking.items.ids)
    return (
        f"{count} ({share:.1f} %, their median rank {np.median(missed) + 1:,.0f}, the worst {missed.max() + 1:,.0f} of {items:,})"
    )


def _of_ties(model: Model) -> str:
    tied = " and ".join(counted(_tied(model, direction), NOUN[direction]) for direction in DIRECTIONS)
    return f"{model.name} gives a truth and a wrong item the same score for {tied}: these ranks depend on the tie policy."


def _tied(model: Model, direction: Direction) -> int:
    return int(model.metrics["figures"][direction]["tied"]["queries"])


def _of_contrast(contrast: Contrast, analysis: Analysis) -> str:
    found = " and ".join(counted(len(contrast.shifts[direction]), NOUN[direction]) for direction in DIRECTIONS)
    options = analysis.options
    return f"{contrast.better} has the truth of {found} among its first {options.top}, {contrast.worse} at least {options.gap} places later."


def counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
