"""Where the truth stands: all figures, the ranks as plots, and every query of the split as a row of a table."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from error_analysis.analysis import Analysis, Model, Options
from error_analysis.mining import DIRECTIONS, Direction, precision
from error_analysis.section import Cell, Column, Plot, Section, Series, Table
from error_analysis.summary import NOUN, WAY, counted, histogram, of_models

LISTS = EXAMPLES, QUERIES = "examples", "queries"
"""Sections that list queries and find nothing."""
LEVELS = ("chosen", "hard", "easy")
BY = {"margin": "a margin (best truth's score less the best wrong item's)", "ap": "an average precision"}
FIGURES = ("R@1", "R@5", "R@10", "MedR", "MeanR", "MRR", "mAP", "R-precision", "MAP@R", "NDCG@10")


def section(analysis: Analysis) -> Section:
    """Every figure of every model, and how the ranks lie."""
    plots = [plot(analysis, direction) for plot in (_histogram, _recall) for direction in DIRECTIONS]
    return Section(
        "ranks",
        "Where the truth stands",
        tuple(of_models(analysis)),
        (_figures(analysis),),
        (*plots, *_shifts(analysis)),
    )


def queries(analysis: Analysis) -> Section:
    """Every query: its rank, margin, average precision and first item for each model."""
    return Section(
        QUERIES,
        "Every query",
        (
            "Choose a query to see what each model retrieved for it. A filter such as a rank from 11 leaves the hard ones, "
            "two filters those that one model finds and another misses.",
        ),
        tuple(_queries(analysis, direction) for direction in DIRECTIONS),
    )


def _figures(analysis: Analysis) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (WAY[direction], label, *(float(model.metrics["figures"][direction][label]) for model in analysis.models))
        for direction in DIRECTIONS
        for label in FIGURES
    ]
    rows.append(("Both directions", "rsum", *(float(model.metrics["figures"]["rsum"]) for model in analysis.models)))
    columns = (Column("Direction"), Column("Figure"), *(Column(model.name, "figure") for model in analysis.models))
    note = "Shares in percent; MedR and MeanR are ranks, less is better; rsum is the sum of the six R@k, at most 600."
    return Table("figures", "All figures", columns, tuple(rows), note)


def examples(analysis: Analysis) -> Section:
    """The chosen queries, and a sample of the hard and of the easy ones, of every model."""
    options = analysis.options
    drawn = f"At most {options.sample} of a kind, drawn with seed {options.seed}." if options.sample else "All of them."
    return Section(
        EXAMPLES,
        "Hard and easy queries",
        (
            f"{_rule(options)} {drawn}",
            *(_counted(model) for model in analysis.models),
        ),
        tuple(_examples(analysis, direction) for direction in DIRECTIONS),
    )


def _rule(options: Options) -> str:
    if options.by == "rank":
        return f"Hard: no truth among the first {options.hard}. Easy: a truth {_among(options.easy)}."
    hard, easy = options.ends
    return f"Hard: {BY[options.by]} below {hard:g}. Easy: of {easy:g} or more."


def _among(places: int) -> str:
    return "in the first place" if places == 1 else f"among the first {places}"


def _counted(model: Model) -> str:
    found = [
        f"{model.mined['hard'][direction].total:,} hard and {counted(model.mined['easy'][direction].total, f'easy {NOUN[direction]}')}"
        for direction in DIRECTIONS
    ]
    return f"{model.name} has {' and '.join(found)}."


def _examples(analysis: Analysis, direction: Direction) -> Table:
    rows = tuple(
        (model.name, level, found.query, found.rank, found.retrieved[0])
        for model in analysis.models
        for level, mined in sorted(model.mined.items(), key=lambda one: LEVELS.index(one[0]))
        for found in mined[direction].examples
    )
    columns = (Column("Model"), Column("List"), Column("Query", "query"), Column("Rank", "rank"), Column("First item", "item"))
    return Table(f"examples-{direction}", f"{WAY[direction]}: examples", columns, rows, direction=direction)


def _histogram(analysis: Analysis, direction: Direction) -> Plot:
    items = len(analysis.models[0].retrievals[direction].ranking.items.ids)
    series = []
    for model in analysis.models:
        bars = histogram(model.retrievals[direction].ranks, items)
        names = [f"{bar['first']:,}" + (f"\u2013{bar['last']:,}" if bar["last"] > bar["first"] else "") for bar in bars]
        series.append(Series(model.name, tuple(names), tuple(100 * bar["share"] for bar in bars)))
    share = f"share of {NOUN[direction]}s (%)"
    return Plot(f"ranks-{direction}", f"{WAY[direction]}: rank of the truth", "bar", "rank", share, tuple(series))


def _recall(analysis: Analysis, direction: Direction) -> Plot:
    items = len(analysis.models[0].retrievals[direction].ranking.items.ids)
    cutoffs = np.unique(np.geomspace(1, items, 25).round())
    series = tuple(
        Series(model.name, tuple(cutoffs.tolist()), _recalls(model.retrievals[direction].ranks, cutoffs))
        for model in analysis.models
    )
    return Plot(f"recall-{direction}", f"{WAY[direction]}: R@k", "line", "k", "R@k (%)", series, log_x=True)


def _recalls(ranks: np.ndarray, cutoffs: np.ndarray) -> tuple[float, ...]:
    """R@k for each k, in percent."""
    return tuple(100 * float((ranks <= k - 1).mean()) for k in cutoffs)


def _shifts(analysis: Analysis) -> tuple[Plot, ...]:
    """Rank against rank, for each pair of models."""
    return tuple(
        Plot(
            f"shift-{direction}-{one}-{other}",
            f"{WAY[direction]}: {a.name} against {b.name}",
            "scatter",
            f"rank, {a.name}",
            f"rank, {b.name}",
            (Series(f"{NOUN[direction]}s", _places(a, direction), _places(b, direction)),),
            f"Each point is {'an image' if direction == 'i2t' else 'a caption'}; below the diagonal {b.name} is better.",
            log_x=True,
            log_y=True,
        )
        for direction in DIRECTIONS
        for (one, a), (other, b) in combinations(enumerate(analysis.models, 1), 2)
    )


def _places(model: Model, direction: Direction) -> tuple[float, ...]:
    return tuple((model.retrievals[direction].ranks + 1).astype(float).tolist())


def _queries(analysis: Analysis, direction: Direction) -> Table:
    models = analysis.models
    several = bool((models[0].retrievals[direction].positions.counts > 1).any())
    columns: list[tuple[Column, list[Cell]]] = [
        (Column(NOUN[direction].capitalize(), "query"), list(models[0].retrievals[direction].ranking.queries.ids))
    ]
    for model in models:
        columns.append((Column(f"{model.name}: rank", "rank"), model.retrievals[direction].ranks.tolist()))
    for model in models:
        ids, first = model.retrievals[direction].ranking.items.ids, model.neighbours[direction].items[:, 0]
        columns.append((Column(f"{model.name}: first", "item"), [ids[item] for item in first]))
    for model in models:
        margins = model.neighbours[direction].margin
        columns.append(
            (Column(f"{model.name}: margin", "figure"), [None if np.isinf(margin) else margin for margin in margins.tolist()])
        )
    if several:  # of a single truth it says what the rank says
        for model in models:
            columns.append((Column(f"{model.name}: AP", "share"), precision(model.retrievals[direction].positions).tolist()))
    return Table(
        f"queries-{direction}",
        f"{WAY[direction]}: every {NOUN[direction]}",
        tuple(column for column, _ in columns),
        tuple(zip(*(values for _, values in columns), strict=True)),
        "Margin: the score of the best truth less that of the best wrong item; below 0 a wrong item stands first."
        + (" AP: average precision over all truths." if several else ""),
        direction,
    )
