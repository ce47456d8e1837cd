"""What a run has reached so far: its last step, its loss and its figures, from the files that jobs leave."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LOWER_IS_BETTER = ("MedR", "MeanR")
"""Figures that count places."""


@dataclass(frozen=True)
class Results:
    """Of a training run, or of a ranking; all empty for a run that leaves neither kind of file."""

    step: int = 0
    """Training steps that are logged."""
    share: float | None = None
    """Of the whole training, between 0 and 1, where the options tell."""
    loss: float | None = None
    figures: dict[str, float] = field(default_factory=dict)
    """Of the best validation, whose weights are in checkpoints/best, or of the ranking: rsum, i2t_R@1 ... The first is what is best."""


def results_of(run_dir: Path) -> Results:
    """Read metrics.jsonl, which a training job leaves, or metrics.json, which a ranking job leaves."""
    lines = _whole_lines(run_dir / "metrics.jsonl")
    if not lines:
        return Results(figures=_ranking_figures(run_dir / "metrics.json"))
    validations = [json.loads(line)["validation"] for line in lines if b'"validation"' in line]
    losses = [line for line in lines if b'"loss"' in line]
    last = json.loads(losses[-1]) if losses else {}
    return Results(
        step=json.loads(lines[-1])["step"],
        share=_share(run_dir, last),
        loss=last.get("loss"),
        figures=max(validations, key=lambda figures: float(next(iter(figures.values()))), default={}),
    )


def better(name: str, one: float, other: float) -> bool:
    """Whether one value of a figure is better than another."""
    return one < other if name.split("_")[-1] in LOWER_IS_BETTER else one > other


def _whole_lines(path: Path) -> list[bytes]:
    """The last line may be in the middle of being written."""
    try:
        return path.read_bytes().split(b"\n")[:-1]
    except OSError:
        return []


def _share(run_dir: Path, row: dict[str, Any]) -> float | None:
    """The last row's part of the training. A YAML parser would take longer than all the rest."""
    try:
        options = dict(re.findall(r"^(steps|epochs): ([\d.e+-]+)$", (run_dir / "config.yaml").read_text(), re.M))
    except OSError:
        return None
    steps, epochs = float(options.get("steps", 0)), float(options.get("epochs", 0))
    if not row or not (steps or epochs):
        return None
    return min(1.0, row["step"] / steps if steps else row["epoch"] / epochs)


def _ranking_figures(path: Path) -> dict[str, float]:
    """The figures of a ranking under the names that a validation has; an error report's file holds none of its own."""
    try:
        figures = json.loads(path.read_text()).get("figures", {})
    except (OSError, ValueError):
        return {}
    if "rsum" not in figures:
        return {name: value for name, value in figures.items() if isinstance(value, float)}
    ways = {
        f"{way}_{name}": value for way in ("i2t", "t2i") for name, value in figures[way].items() if isinstance(value, int | float)
    }
    return {"rsum": figures["rsum"], **ways}
