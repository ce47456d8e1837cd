"""How sure the figures are: an interval for each, and whether two models differ by more than chance.

Clusters are drawn, not queries (`Analysis.clusters`): the captions of one image fail together. McNemar's and Wilcoxon's tests
know nothing of clusters, so a difference counts only if its bootstrap interval leaves out zero as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from error_analysis.analysis import Analysis, Model
from error_analysis.bootstrap import (
    LEVEL,
    PERMUTATIONS,
    RESAMPLES,
    ends,
    holm,
    mcnemar,
    paired_permutation,
    resampled,
    resampled_medians,
    signed_ranks,
    unanimous,
    wilcoxon,
)
from error_analysis.mining import DIRECTIONS, Direction
from error_analysis.section import Cell, Column, Plot, Section, Series, Table
from error_analysis.summary import WAY
from ranking.evaluate import CUTOFFS
from ranking.metrics import Positions

ALPHA = 0.05
LED = 3
NOISE = "It is noise."


@dataclass(frozen=True)
class Verdict:
    """Whether two models differ on a figure. `difference` is first less second; `better` is empty where it may be chance."""

    first: str
    second: str
    direction: Direction
    figure: str
    test: str
    difference: float
    low: float | None
    high: float | None
    p: float
    corrected: float = 1.0
    better: str = ""


def per_query(at: Positions) -> dict[str, np.ndarray]:
    """(Q,) values whose means are the figures of `ranking.evaluate`, under its names: shares in percent, ranks from 1."""
    first, precision = at.first + 1, (at.order + 1) / (at.values + 1)
    in_r = at.within(np.repeat(at.counts, at.counts))
    gains = np.where(at.within(10), 1 / np.log2(at.values + 2), 0.0)
    ideal = np.where(at.order < 10, 1 / np.log2(at.order + 2), 0.0)
    return {
        **{f"R@{k}": 100.0 * (first <= k) for k in CUTOFFS},
        "MeanR": first.astype(float),
        "MRR": 100 / first,
        "mAP": 100 * at.per_query(precision) / at.counts,
        "R-precision": 100 * at.per_query(in_r) / at.counts,
        "MAP@R": 100 * at.per_query(in_r * precision) / at.counts,
        "NDCG@10": 100 * at.per_query(gains) / at.per_query(ideal),
        **{f"recall_fraction@{k}": 100 * at.per_query(at.within(k)) / at.counts for k in CUTOFFS},
    }


class Draws:
    """Every figure of every model in every resample, the same clusters for all."""

    def __init__(self, analysis: Analysis) -> None:
        self.analysis, seed = analysis, analysis.options.seed
        self.figures: dict[tuple[str, str], dict[str, np.ndarray]] = {}
        for direction in DIRECTIONS:
            clusters = analysis.clusters[direction]
            for model in analysis.models:
                at = model.retrievals[direction].positions
                values = per_query(at)
                columns = np.stack(list(values.values()), axis=1)
                drawn = dict(zip(values, resampled(columns, np.ones_like(columns), clusters, seed).T, strict=True))
                self.figures[model.name, direction] = drawn | {"MedR": resampled_medians(at.first + 1, clusters, seed)}

    def rsum(self, model: str) -> np.ndarray:
        """(RESAMPLES,) the sum of the six R@k."""
        total: np.ndarray = sum((self.figures[model, d][f"R@{k}"] for d in DIRECTIONS for k in CUTOFFS), np.zeros(RESAMPLES))
        return total


def figure_rows(draws: Draws) -> tuple[tuple[Cell, ...], ...]:
    """Rows of model, direction, figure, value, low, high."""
    rows: list[tuple[Cell, ...]] = []
    for model in draws.analysis.models:
        for direction in DIRECTIONS:
            clusters = len(np.unique(draws.analysis.clusters[direction]))
            for figure, drawn in draws.figures[model.name, direction].items():
                value = _figure(model, direction, figure)
                whole = figure.startswith("R@") and value in (0, 100)  # of which no resample differs
                low, high = unanimous(value == 100, clusters)
                rows.append((model.name, WAY[direction], figure, value, *((100 * low, 100 * high) if whole else _ends(drawn))))
        rsum = float(model.metrics["figures"]["rsum"])
        rows.append((model.name, "both", "rsum", rsum, *_ends(draws.rsum(model.name))))
    return tuple(rows)


def difference_rows(draws: Draws) -> tuple[tuple[Cell, ...], ...]:
    """Rows of first, second, direction, figure, first less second, low, high for every pair of models and every figure."""
    rows: list[tuple[Cell, ...]] = []
    for a, b in combinations(draws.analysis.models, 2):
        for direction in DIRECTIONS:
            one, two = (draws.figures[model.name, direction] for model in (a, b))
            for figure in one:
                value = _figure(a, direction, figure) - _figure(b, direction, figure)
                rows.append((a.name, b.name, WAY[direction], figure, value, *_ends(one[figure] - two[figure])))
    return tuple(rows)


def _figure(model: Model, direction: Direction, figure: str) -> float:
    return float(model.metrics["figures"][direction][figure])


def _ends(drawn: np.ndarray) -> tuple[float | None, float | None]:
    """The interval of one resampled figure."""
    return ends(drawn[:, None])[0]


def verdicts(analysis: Analysis) -> tuple[Verdict, ...]:
    """Every pair of models, both directions: McNemar on hits at each cut-off, Wilcoxon and a paired permutation on ranks.

    All p-values of all pairs are corrected together (Holm). A model is called better where the corrected p is below ALPHA
    and the cluster bootstrap interval of the difference leaves out zero.
    """
    pairs = [(a, b, direction) for a, b in combinations(analysis.models, 2) for direction in DIRECTIONS]
    found = [verdict for a, b, direction in pairs for verdict in _tested(a, b, direction, analysis)]
    corrected = holm(np.array([verdict.p for verdict in found])).tolist()
    return tuple(
        replace(verdict, corrected=p, better=_better(verdict) if p < ALPHA else "")
        for verdict, p in zip(found, corrected, strict=True)
    )


def _better(found: Verdict) -> str:
    """The better model, or nothing where the interval holds zero or there is none."""
    if found.low is None or found.high is None or found.low <= 0 <= found.high:
        return ""
    first_is_more, less_is_better = found.low > 0, found.figure == "MeanR"
    return found.second if first_is_more == less_is_better else found.first


def _tested(a: Model, b: Model, direction: Direction, analysis: Analysis) -> list[Verdict]:
    clusters, seed = analysis.clusters[direction], analysis.options.seed
    one, two = (model.retrievals[direction].ranks.astype(float) for model in (a, b))
    lead, ones = signed_ranks(two - one), np.ones(len(one))
    hits = [(one <= k - 1, two <= k - 1) for k in CUTOFFS]
    # (figure, test, p, numerator and denominator of the difference)
    rows = [
        (f"R@{k}", "McNemar, exact", mcnemar(x, y), 100.0 * x - 100.0 * y, ones) for k, (x, y) in zip(CUTOFFS, hits, strict=True)
    ]
    rows.append(("rank", "Wilcoxon, signed ranks", wilcoxon(two - one), lead, np.abs(lead)))
    permuted = paired_permutation((one - two)[:, None], clusters, seed)
    rows.append(("MeanR", "permutation of clusters", float(permuted[0]), one - two, ones))
    over, under = (np.stack(columns, axis=1) for columns in list(zip(*rows, strict=True))[3:])
    return [
        Verdict(a.name, b.name, direction, figure, test, float(x.sum() / max(w.sum(), 1)), *found, p)
        for (figure, test, p, x, w), found in zip(rows, ends(resampled(over, under, clusters, seed)), strict=True)
    ]


def section(analysis: Analysis) -> Section:
    """Intervals of all figures, and for two models or more their differences and what of them may be chance."""
    draws, found = Draws(analysis), verdicts(analysis)
    rows = figure_rows(draws)
    tables = [_figure_table(rows)]
    if found:
        tables += [_difference_table(draws), _verdict_table(found)]
    pairs = _of_pairs(found)
    said = [*_of_recall(rows, [model.name for model in analysis.models]), *pairs]
    return Section("confidence", "How sure the figures are", tuple(said), tuple(tables), _plots(rows), _lead(pairs))


def _of_recall(rows: Sequence[tuple[Cell, ...]], models: Sequence[str]) -> list[str]:
    """One sentence a model: R@1 with its interval."""
    found = {row[:3]: row[3:] for row in rows}
    said = []
    for model in models:
        parts = []
        for way in WAY.values():
            value, low, high = found[model, way, "R@1"]
            if low is None:
                return ["All images and captions hang together, so no interval can be given."]
            parts.append(f"{way.lower()} {value:.1f} ({low:.1f} to {high:.1f})")
        said.append(f"R@1 of {model} with its {LEVEL:.0%} interval: {' and '.join(parts)}.")
    return said


def _lead(pairs: Sequence[str]) -> str:
    """What is more than chance, and of how many pairs of models nothing is."""
    real, noise = ([said for said in pairs if said.endswith(NOISE) is chance] for chance in (False, True))
    if len(noise) > 1:
        noise = [f"{len(noise)} pairs of models differ by no more than chance: that is noise."]
    return " ".join([*real[:LED], *noise])


def _of_pairs(found: Sequence[Verdict]) -> list[str]:
    """One sentence a pair of models: what is more than chance, or that nothing is."""
    said = []
    for a, b in dict.fromkeys((verdict.first, verdict.second) for verdict in found):
        own = [verdict for verdict in found if (verdict.first, verdict.second) == (a, b)]
        if not any(verdict.better for verdict in own):
            said.append(f"{a} and {b} differ by no more than chance: none of {len(own)} tests finds a difference. {NOISE}")
        for better, other in ((a, b), (b, a)):
            won = [f"{verdict.figure} {WAY[verdict.direction].lower()}" for verdict in own if verdict.better == better]
            where = f"all {len(own)} tests" if len(won) == len(own) else f"{len(won)} of {len(own)} tests: {', '.join(won)}"
            if won:
                said.append(f"{better} is better than {other} beyond chance in {where}.")
    return said


def _figure_table(rows: tuple[tuple[Cell, ...], ...]) -> Table:
    columns = (Column("Model"), Column("Direction"), Column("Figure"), *_figures("Value", "Low", "High"))
    note = (
        f"{LEVEL:.0%} percentile intervals of {RESAMPLES:,} bootstrap resamples of images with their captions. Shares in percent, "
        "ranks from 1. Where all queries hit, or none, the interval is Clopper and Pearson's over the images."
    )
    return Table("intervals", "Every figure with its interval", columns, rows, note)


def _difference_table(draws: Draws) -> Table:
    columns = (
        *(Column(name) for name in ("First", "Second", "Direction", "Figure")),
        *_figures("Difference", "Low", "High"),
    )
    note = "First less second, both models on the same resamples. Of MeanR and MedR less is better."
    return Table("differences", "Model against model", columns, difference_rows(draws), note)


def _verdict_table(found: Sequence[Verdict]) -> Table:
    heads = [Column(name) for name in ("First", "Second", "Direction", "Figure", "Test")]
    last = Column("p", "p"), Column("p, Holm", "p"), Column("Better")
    rows = tuple(
        (
            *(v.first, v.second, WAY[v.direction], v.figure, v.test),
            *(v.difference, v.low, v.high, v.p, v.corrected, v.better or "noise"),
        )
        for v in found
    )
    note = (
        f"Holm's correction over all {len(found)} tests of this table. A model is better where the corrected p is below {ALPHA} and the "
        "interval, which knows that the captions of an image fail together, leaves out zero. The difference that goes with Wilcoxon's "
        "test is the share of the signed ranks that the first wins less the share that the second wins, -1 to 1. "
        f"{PERMUTATIONS:,} permutations."
    )
    return Table("significance", "What is more than chance", (*heads, *_figures("Difference", "Low", "High"), *last), rows, note)


def _figures(*names: str) -> tuple[Column, ...]:
    return tuple(Column(name, "figure") for name in names)


def _plots(rows: Sequence[tuple[Cell, ...]]) -> tuple[Plot, ...]:
    """R@k of each model; none without intervals."""
    shown: dict[str, list[tuple[Any, ...]]] = {}
    for model, way, figure, *values in rows:
        if str(figure).startswith("R@"):
            shown.setdefault(str(model), []).append((f"{figure} {str(way).lower()}", *values))
    if any(row[2] is None for own in shown.values() for row in own):
        return ()
    series = tuple(Series(model, *zip(*own, strict=True)) for model, own in shown.items())
    return (Plot("intervals", f"R@k with {LEVEL:.0%} intervals", "bar", "", "percent", series),)
