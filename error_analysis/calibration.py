"""Whether a model knows when it fails: signals that need no truth, against whether the first item is right."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.stats import rankdata

from error_analysis.analysis import Analysis, Model
from error_analysis.bootstrap import LEVEL, interval, resampled, resampled_auroc
from error_analysis.mining import DIRECTIONS, Direction
from error_analysis.neighbours import Neighbours
from error_analysis.section import Cell, Column, Plot, Section, Series, Table
from error_analysis.summary import WAY

BINS = 10
"""Of equal width, of the reliability diagram and of ECE."""
COVERAGES = (1.0, 0.9, 0.8, 0.5)
MARGIN, FIRST, SOFTMAX = "lead of the first item", "score of the first item", "softmax of the first item"


def auroc(signal: np.ndarray, right: np.ndarray) -> float:
    """How often a right query has a higher `signal` (Q,) than a wrong one, ties half (Mann and Whitney). There must be both."""
    positives = int(right.sum())
    above = rankdata(signal)[right].sum() - positives * (positives + 1) / 2
    return float(above / (positives * (len(right) - positives)))


def risks(signal: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(Q,) share of wrong queries among the n of highest signal, for n = 1 .. Q; queries that tie count by their mean."""
    order = np.argsort(-signal, kind="stable")
    ends = np.flatnonzero(np.diff(-signal[order], append=np.inf)) + 1
    wrong = np.cumsum(~right[order])[ends - 1]
    counts = np.arange(1, len(signal) + 1)
    return np.interp(counts, np.append(0, ends), np.append(0, wrong)) / counts


def softmax_of_first(scores: np.ndarray, temperature: float) -> np.ndarray:
    """(Q,) probability of the first of the kept items, scores (Q, k) best first, by softmax(scores / temperature)."""
    first: np.ndarray = 1 / np.exp((scores - scores[:, :1]) / temperature).sum(axis=1)
    return first


def fitted_temperature(scores: np.ndarray, right: np.ndarray) -> float:
    """The temperature at which the softmax of the first item gives `right` (Q,) the highest likelihood (Guo et al. 2017).

    Searched over six decades around the mean spread of a query's kept scores (Q, k), which must not all be equal.
    """
    scale = float(np.log(scores.std(axis=1).mean()))

    def loss(log_temperature: float) -> float:
        probability = np.clip(softmax_of_first(scores, np.exp(log_temperature)), 1e-12, 1 - 1e-12)
        return float(-np.log(np.where(right, probability, 1 - probability)).mean())

    found = minimize_scalar(loss, bounds=(scale - 6.9, scale + 6.9), method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x))


def cross_fitted(scores: np.ndarray, right: np.ndarray, clusters: np.ndarray, seed: int = 0) -> tuple[np.ndarray, float]:
    """(Q,) softmax of the first item at the temperature that the other half of the clusters gives, and the mean temperature."""
    ids, of = np.unique(clusters, return_inverse=True)
    half = np.random.default_rng(seed).permutation(len(ids))[of] % 2 == 0
    temperatures = [fitted_temperature(scores[~own], right[~own]) for own in (half, ~half)]
    probabilities = [softmax_of_first(scores, temperature) for temperature in temperatures]
    return np.where(half, *probabilities), float(np.mean(temperatures))


def bins(confidence: np.ndarray) -> np.ndarray:
    """(Q,) the bin of each confidence in 0..1: n / BINS < confidence <= (n + 1) / BINS, 0 in the first."""
    return np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)


def expected_calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """ECE: mean over queries of the distance between confidence and share right of their bin (Naeini et al. 2015)."""
    gaps = np.bincount(bins(confidence), confidence - right, BINS)
    return float(np.abs(gaps).sum() / len(right))


def section(analysis: Analysis) -> Section:
    """How well the signals of each model tell right from wrong, and what is left when the unsure queries are put aside."""
    judged = [_judged(analysis, model, direction) for model in analysis.models for direction in DIRECTIONS]
    kept = [one for one in judged if one is not None]
    if not kept:
        none = "No model can be judged: each has all or no queries right, scores that do not differ, or too few queries."
        return Section("calibration", "Whether failures show", (none,))
    plots = [plot(kept, direction) for plot in (_risk_plot, _reliability_plot) for direction in DIRECTIONS]
    return Section(
        "calibration",
        "Whether failures show",
        tuple(_sentence(one) for one in kept),
        (_signal_table(kept), _probability_table(kept)),
        tuple(plot for plot in plots if plot.series),
    )


class _Judged:
    """One model and direction with at least one query right and one wrong, and scores that differ."""

    def __init__(self, analysis: Analysis, model: Model, direction: Direction, near: Neighbours) -> None:
        seed, scores = analysis.options.seed, near.scores.astype(float)
        self.model, self.direction, self.clusters, self.seed = model.name, direction, analysis.clusters[direction], seed
        self.right = model.retrievals[direction].ranks <= 0
        self.probability, self.temperature = cross_fitted(scores, self.right, self.clusters, seed)
        self.raw = softmax_of_first(scores, 1.0)
        self.signals = {MARGIN: scores[:, 0] - scores[:, 1], FIRST: scores[:, 0], SOFTMAX: self.probability}
        self.areas = {name: self._area(signal) for name, signal in self.signals.items()}
        self.best = max(self.areas, key=lambda name: self.areas[name][0])

    def _area(self, signal: np.ndarray) -> tuple[float, float, float]:
        """AUROC and the ends of its interval."""
        low, high = interval(resampled_auroc(signal, self.right, self.clusters, self.seed)[:, None])
        return auroc(signal, self.right), float(low[0]), float(high[0])


def _judged(analysis: Analysis, model: Model, direction: Direction) -> _Judged | None:
    near, right = model.neighbours[direction], model.retrievals[direction].ranks <= 0
    clusters = len(np.unique(analysis.clusters[direction]))
    if (
        near.scores.shape[1] < 2
        or right.all()
        or not right.any()
        or clusters < 2
        or not (near.scores[:, 0] > near.scores[:, -1]).all()
    ):
        return None
    return _Judged(analysis, model, direction, near)


def _sentence(one: _Judged) -> str:
    signal = one.signals[one.best]
    area, low, high = one.areas[one.best]
    risk, eighty = risks(signal, one.right), max(1, round(0.8 * len(one.right)))
    return (
        f"{one.model}, {WAY[one.direction].lower()}: the {one.best} tells right from wrong best, for {area:.1%} of pairs "
        f"({low:.1%} to {high:.1%}; chance is 50 %). Without the least sure fifth R@1 is {1 - risk[eighty - 1]:.1%} instead of {1 - risk[-1]:.1%}."
    )


def _signal_table(judged: list[_Judged]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for one in judged:
        for name, signal in one.signals.items():
            risk = risks(signal, one.right)
            kept = (1 - float(risk[max(1, round(share * len(risk))) - 1]) for share in COVERAGES)
            rows.append((one.model, WAY[one.direction], name, *one.areas[name], float(risk.mean()), *kept))
    columns = (
        Column("Model"), Column("Direction"), Column("Signal"), *(Column(name, "figure") for name in ("AUROC", "Low", "High", "AURC")),
        *(Column(f"R@1 of the surest {share:.0%}", "share") for share in COVERAGES),
    )  # fmt: skip
    note = (
        "AUROC: how often a query that is right has a higher signal than one that is wrong. AURC: mean share of wrong queries over all "
        f"coverages, less is better. {LEVEL:.0%} intervals."
    )
    return Table("failure-signals", "Which signal tells failures", columns, tuple(rows), note)


def _probability_table(judged: list[_Judged]) -> Table:
    rows = tuple(
        (
            one.model, WAY[one.direction], float(one.right.mean()), float(one.raw.mean()), expected_calibration_error(one.raw, one.right),
            one.temperature, float(one.probability.mean()), expected_calibration_error(one.probability, one.right),
        )
        for one in judged
    )  # fmt: skip
    columns = (
        Column("Model"), Column("Direction"), Column("R@1", "share"), Column("Mean softmax", "share"), Column("ECE", "share"),
        Column("Temperature", "figure"), Column("Mean softmax, fitted", "share"), Column("ECE, fitted", "share"),
    )  # fmt: skip
    note = f"Softmax over the first items kept, of the scores as they are and at a temperature fitted on the other half of the images. ECE over {BINS} bins."
    return Table("ece", "Softmax as a probability", columns, rows, note)


def _risk_plot(judged: list[_Judged], direction: Direction) -> Plot:
    series = []
    for one in (one for one in judged if one.direction == direction):
        risk = risks(one.signals[one.best], one.right)
        at = np.unique(np.ceil(np.linspace(0.02, 1, 50) * len(risk)).astype(int))
        series.append(Series(one.model, tuple((100 * at / len(risk)).tolist()), tuple((100 * risk[at - 1]).tolist())))
    title = f"{WAY[direction]}: failures among the surest queries"
    return Plot(f"risk-{direction}", title, "line", "surest queries (%)", "of them wrong (%)", tuple(series))


def _reliability_plot(judged: list[_Judged], direction: Direction) -> Plot:
    series = []
    for one in (one for one in judged if one.direction == direction):
        of = bins(one.probability)
        counts = np.bincount(of, minlength=BINS)
        filled = np.flatnonzero(counts)
        held = (of[:, None] == filled).astype(float)
        low, high = interval(resampled(held * one.right[:, None], held, one.clusters, one.seed))
        x, y = (np.bincount(of, values, BINS)[filled] / counts[filled] for values in (one.probability, one.right))
        low, high = np.where(np.isnan(low), y, low), np.where(np.isnan(high), y, high)
        series.append(Series(one.model, *(tuple((100 * values).tolist()) for values in (x, y, low, high))))
    title = f"{WAY[direction]}: reliability of the fitted softmax"
    return Plot(f"reliability-{direction}", title, "line", "softmax of the first item (%)", "right (%)", tuple(series))
