"""How much of a collection a text corpus reaches, and how far that is from chance; numpy only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def diversity(counts: np.ndarray, size: int) -> dict[str, float]:
    """Of how often each item was retrieved, (N,), in a collection of `size` items.

    `distinct` items were retrieved at all, `coverage` percent of the collection; `mean`, `std` (of the population) and `max` are over
    how often each of those was. Few distinct items and a high maximum are hubs, which are near to everything.
    """
    hit = counts[counts > 0].astype(float)
    if not len(hit):
        return dict.fromkeys(("distinct", "coverage", "mean", "std", "max"), 0.0)
    return {
        "distinct": len(hit),
        "coverage": 100 * len(hit) / size,
        "mean": float(hit.mean()),
        "std": float(hit.std()),
        "max": float(hit.max()),
    }


def chance(relevant: np.ndarray, size: int, k: int) -> float:
    """R@k, in percent, of k different items drawn at random: k / size where each query has one relevant item.

    `relevant` (Q,) is how many of the `size` items are relevant to each query.
    """
    missed = np.ones(len(relevant))
    for drawn in range(min(k, size)):
        missed *= (size - relevant - drawn) / (size - drawn)  # 0 once all others are drawn, and stays it
    return float(100 * (1 - missed).mean())


def recalls(ranks: np.ndarray, relevant: np.ndarray, size: int, cutoffs: Sequence[int]) -> dict[str, dict[str, float]]:
    """R@k in percent, and by chance. `ranks` (Q,) counts from 1; 0 is a query whose relevant items were not retrieved."""
    return {
        f"R@{k}": {"found": float(100 * ((ranks > 0) & (ranks <= k)).mean()), "random": chance(relevant, size, k)}
        for k in cutoffs
    }


def as_text(statistics: Mapping[str, Any]) -> str:
    """What `ranking.corpus_retrieval` found out, for the terminal."""
    head = f"{statistics['texts']:,} texts over {statistics['images']:,} images, the best {statistics['top']} of each"
    lines = [head, f"{'':<12}{'distinct':>10}{'covered %':>11}{'mean':>9}{'std':>9}{'max':>9}"]
    for name in ("first", "all"):
        row = statistics[name]
        lines.append(
            f"{'first image' if name == 'first' else 'all images':<12}{row['distinct']:>10,.0f}{row['coverage']:>11.2f}"
            f"{row['mean']:>9.2f}{row['std']:>9.2f}{row['max']:>9,.0f}"
        )
    lines.append("most often: " + ", ".join(f"{row['id']} ({row['count']:,})" for row in statistics["most_often"]))
    if statistics["recall"]:
        lines.append("  ".join(f"{k} {row['found']:.2f} (random {row['random']:.3g})" for k, row in statistics["recall"].items()))
        if statistics["leakage"]:
            lines.append(f"these are no results: {statistics['leakage']}")
    elif statistics["own_images"]:
        lines.append(f"no R@k: only {statistics['own_images']:,} of the texts have an image of their own in the collection")
    return "\n".join(lines)
