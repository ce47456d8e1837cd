"""False negatives: the same rankings under other judges' truth, and which "errors" these judges accept.

Recall asks for one right item among the first k. MAP@R and R-precision ask for all of them, R being how many there are, and so tell
models apart where a query has many right items (Chun et al. 2022, "ECCV Caption").
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from itertools import permutations

import numpy as np

from error_analysis.analysis import Analysis
from error_analysis.mining import DIRECTIONS, Direction, Retrieval
from error_analysis.section import Cell, Column, Plot, Section, Series, Table
from error_analysis.summary import NOUN, WAY
from error_analysis.truths import (
    ORIGINAL,
    PACKAGE,
    Judgement,
    Truth,
    positions_under,
    truths_of,
)
from ranking import metrics
from ranking.evaluate import CUTOFFS, evaluate
from ranking.metrics import Positions

NAME, TITLE = "judgements", "False negatives: what other judges accept"
FIGURES = (*(f"R@{k}" for k in CUTOFFS), "MAP@R", "R-precision")
FOLD = 1000
"""Images of a fold, as papers count COCO's "1k"."""


@dataclass(frozen=True)
class Errors:
    """First items of the queries that a judge saw, as the corpus and as the judge see them: numbers of queries."""

    judged: int
    wrong: int
    """By the corpus."""
    accepted: int
    """Of the wrong ones, by the judge."""
    refused: int
    """Right by the corpus and wrong by the judge."""


@dataclass(frozen=True)
class Judged:
    """One direction of one model under the corpus's own truth, which comes first, and under each judge's."""

    model: str
    direction: Direction
    retrieval: Retrieval
    truths: tuple[Truth, ...]
    figures: dict[str, dict[str, float]]
    """By name of the truth: number of queries, FIGURES."""
    first: np.ndarray
    """(queries,) index of the item in first place."""


def figures(at: Positions) -> dict[str, float]:
    """Number of queries, and FIGURES as shares."""
    recalls = {f"R@{k}": metrics.recall_any(at, k) for k in CUTOFFS}
    return {"queries": len(at.counts), **recalls, "MAP@R": metrics.map_at_r(at), "R-precision": metrics.r_precision(at)}


def errors(own: Truth, judge: Truth, first: np.ndarray) -> Errors:
    """`first` (queries,) is the index of the item in first place."""
    queries = judge.queries
    right, held = own.accepts(queries, first[queries]), judge.accepts(queries, first[queries])
    return Errors(len(queries), int((~right).sum()), int((held & ~right).sum()), int((right & ~held).sum()))


def judged(model: str, retrieval: Retrieval, first: np.ndarray, judgements: Sequence[Judgement]) -> Judged:
    """`first` (queries,) is the index of the item in first place.

    Where a judge saw only some of the queries, the corpus's own truth on these alone is a truth more, for a fair comparison.
    """
    truths = truths_of(retrieval.ranking, retrieval.direction, judgements)
    own, *judges = truths
    some = [judge for judge in judges if len(judge.queries) < len(own.queries)]
    shown = (*truths, *(replace(own.of(judge.queries), name=f"{ORIGINAL}, where {judge.name} judged") for judge in some))
    found = zip(shown, positions_under(retrieval.ranking, shown, retrieval.ties), strict=True)
    return Judged(model, retrieval.direction, retrieval, truths, {truth.name: figures(at) for truth, at in found}, first)


def section(analysis: Analysis, judgements: Sequence[Judgement]) -> Section:
    """Under the corpus's own truth and under that of each judge."""
    if not judgements:
        return Section(NAME, TITLE, (_nothing(),))
    found = [
        judged(model.name, model.retrievals[way], model.neighbours[way].items[:, 0], judgements)
        for way in DIRECTIONS
        for model in analysis.models
    ]
    sentences = (
        _in_all(found),
        *(_accepted(one) for one in found if one.truths[1:]),
        *(said for way in DIRECTIONS for said in _orders(found, way)),
    )
    tables = _figure_table(found), _error_table(found), *(_accepted_table(found, way) for way in DIRECTIONS)
    return Section(NAME, TITLE, sentences, tables, tuple(_plot(found, way) for way in DIRECTIONS))


def _nothing() -> str:
    return (
        "Nothing is known of this split beyond the corpus's own pairs, so every other item counts as wrong. CxC and ECCV Caption "
        f"judge COCO's test split, prepared with preprocess_karpathy; they come with the package {PACKAGE}."
    )


def _in_all(found: list[Judged]) -> str:
    """The least and the greatest share that each judge accepts."""
    shares: dict[str, list[float]] = {}
    for one in found:
        own, *judges = one.truths
        for judge in judges:
            seen = errors(own, judge, one.first)
            shares.setdefault(judge.name, []).extend([100 * seen.accepted / seen.wrong] if seen.wrong else [])
    said = [f"{name} {min(of):.1f} to {max(of):.1f} %" for name, of in shares.items() if of]
    return (
        f"Of first items that the corpus counts as wrong, judges accept, by model and direction: {', '.join(said)}."
        if said
        else "Judges saw no query whose first item is wrong."
    )


def _accepted(one: Judged) -> str:
    own, *judges = one.truths
    item = NOUN["t2i" if one.direction == "i2t" else "i2t"]
    shares = ", ".join(_share(judge.name, errors(own, judge, one.first)) for judge in judges)
    return f"{one.model}, {WAY[one.direction].lower()}: of the first {item}s that the corpus counts as wrong, {shares}."


def _share(judge: str, seen: Errors) -> str:
    if not seen.wrong:
        return f"{judge} judged none"
    percent = 100 * seen.accepted / seen.wrong
    return f"{judge} accepts {seen.accepted:,} of the {seen.wrong:,} that it judged ({percent:.1f} %)"


def _orders(found: list[Judged], direction: Direction) -> Iterator[str]:
    """Which judges turn the order of two models round: better by the corpus's R@1, worse by the judge's MAP@R."""
    models = [one for one in found if one.direction == direction]
    own = {one.model: one.figures[ORIGINAL]["R@1"] for one in models}
    for judge in models[0].truths[1:]:
        other = {one.model: one.figures[judge.name]["MAP@R"] for one in models}
        if any(own[a] > own[b] and other[a] < other[b] for a, b in permutations(own, 2)):
            yield (
                f"{WAY[direction]}, the models stand in the order {_best_first(own)} by the corpus's R@1 and "
                f"{_best_first(other)} by MAP@R under {judge.name}."
            )


def _best_first(figure: dict[str, float]) -> str:
    return ", ".join(sorted(figure, key=lambda model: -figure[model]))


def _with_folds(found: list[Judged]) -> Iterator[tuple[Judged, str, dict[str, float]]]:
    """Every line of the table: a model's direction, the name of a truth, and its figures; then the mean of COCO's folds."""
    means = {one.model: fold_figures(one.retrieval) for one in found if one.direction == "i2t"}
    for one in found:
        yield from ((one, name, values) for name, values in one.figures.items())
        if values := means[one.model].get(one.direction):
            yield one, f"{ORIGINAL}, mean of folds of {FOLD:,} images", values


def fold_figures(retrieval: Retrieval, size: int = FOLD) -> dict[Direction, dict[str, float]]:
    """Number of queries and FIGURES by direction, mean over contiguous folds of `size` images; empty where there are no two."""
    images = len(retrieval.ranking.by("image").queries.ids)
    if images % size or images == size:
        return {}
    percent = evaluate(retrieval.ranking, "folds", retrieval.ties, fold_size=size)["figures"]
    return {
        way: {"queries": percent[way]["queries"], **{name: percent[way][name] / 100 for name in FIGURES}} for way in DIRECTIONS
    }


def _figure_table(found: list[Judged]) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (one.model, WAY[one.direction], name, int(values["queries"]), *(values[figure] for figure in FIGURES))
        for one, name, values in _with_folds(found)
    ]
    heads = Column("Model"), Column("Direction"), Column("Truth"), Column("Queries", "count")
    note = "Recall: one right item among the first k. MAP@R and R-precision: all R right items of a query among its first R."
    return Table(
        "judgements", "Figures under each truth", (*heads, *(Column(name, "share") for name in FIGURES)), tuple(rows), note
    )


def _error_table(found: list[Judged]) -> Table:
    heads = Column("Model"), Column("Direction"), Column("Judge")
    counts = "Queries judged", "Wrong by the corpus", "Of these accepted", "Right by the corpus, refused"
    rows: list[tuple[Cell, ...]] = []
    for one in found:
        own, *judges = one.truths
        for judge in judges:
            seen = errors(own, judge, one.first)
            share = seen.accepted / seen.wrong if seen.wrong else None
            rows.append((one.model, WAY[one.direction], judge.name, *astuple(seen), share))
    columns = *heads, *(Column(name, "count") for name in counts), Column("Accepted share", "share")
    return Table("judgements-errors", "First places as the corpus and as each judge see them", columns, tuple(rows))


def _accepted_table(found: list[Judged], direction: Direction) -> Table:
    """One row for each query and model whose first item is wrong by the corpus and right by a judge; the furthest truth first."""
    accepted = [row for one in found if one.direction == direction for row in _accepted_rows(one)]
    rows: list[tuple[Cell, ...]] = [*sorted(accepted, key=lambda row: -row[4])]
    columns = (
        Column(NOUN[direction].capitalize(), "query"),
        Column("Model"),
        Column("First item", "item"),
        Column("Accepted by"),
        Column("Rank", "rank"),
    )
    return Table(
        f"judgements-accepted-{direction}",
        f"Errors that a judge accepts, {WAY[direction].lower()}",
        columns,
        tuple(rows),
        "The rank is that of the corpus's own truth.",
        direction,
    )


def _accepted_rows(one: Judged) -> Iterator[tuple[str, str, str, str, float]]:
    own, *judges = one.truths
    ranking, queries = one.retrieval.ranking, np.arange(len(one.first))
    held = np.array([judge.accepts(queries, one.first) for judge in judges], bool).reshape(len(judges), len(queries))
    for query in np.flatnonzero(held.any(axis=0) & ~own.accepts(queries, one.first)).tolist():
        by = ", ".join(judge.name for judge, accepts in zip(judges, held[:, query], strict=True) if accepts)
        item = ranking.items.ids[one.first[query]]
        yield ranking.queries.ids[query], one.model, item, by, one.retrieval.ranks[query].item()


def _plot(found: list[Judged], direction: Direction) -> Plot:
    series = []
    for one in found:
        if one.direction == direction:
            bars = {
                f"{figure}, {truth}": 100 * values[figure] for figure in ("R@1", "MAP@R") for truth, values in one.figures.items()
            }
            series.append(Series(one.model, tuple(bars), tuple(bars.values())))
    return Plot(
        f"judgements-{direction}", f"{WAY[direction]}: the same ranking under each truth", "bar", "", "percent", tuple(series)
    )
