"""Model against model, query by query: who wins, who finds what another misses, which queries move furthest."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from error_analysis.analysis import Analysis, Model
from error_analysis.mining import DIRECTIONS, Direction
from error_analysis.section import Cell, Column, Section, Table
from error_analysis.summary import NOUN, WAY, counted
from ranking.evaluate import CUTOFFS


def outcomes(first: np.ndarray, second: np.ndarray) -> tuple[int, int, int]:
    """For how many queries the first of two models has the better rank (Q,), the same, the worse."""
    return int((first < second).sum()), int((first == second).sum()), int((first > second).sum())


def contingency(first: np.ndarray, second: np.ndarray) -> tuple[int, int, int, int]:
    """How many queries both models hit (Q,), the first alone, the second alone, neither."""
    pairs = first & second, first & ~second, ~first & second, ~first & ~second
    both, alone, other, neither = (int(hits.sum()) for hits in pairs)
    return both, alone, other, neither


def phi(both: int, first: int, second: int, neither: int) -> float | None:
    """Correlation of the hits: 1 if the models hit the same queries, 0 if independently; none where one hits all or nothing."""
    margins = float(both + first) * (second + neither) * (both + second) * (first + neither)
    return (both * neither - first * second) / margins**0.5 if margins else None


def fixed(ranks: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(M,) failures of each of M models, ranks (M, Q), beyond the first k, and (M, M) how many of them each model hits."""
    failed = (ranks > k - 1).astype(int)
    return failed.sum(axis=1), failed @ (1 - failed).T


def movers(ranks: np.ndarray) -> np.ndarray:
    """Queries by how many places lie between the best and the worst of M models, ranks (M, Q), the furthest first; none that stays."""
    places = np.ptp(ranks, axis=0)
    order = np.argsort(-places, kind="stable")
    return order[places[order] > 0]


def section(analysis: Analysis) -> Section:
    """All pairs of models, and for three or more who fixes whom."""
    if len(analysis.models) < 2:
        return Section("head-to-head", "Model against model", ("There is one model; give a second ranking file to compare.",))
    tables = [_outcome_table(analysis), _contingency_table(analysis), _fixed_table(analysis)]
    for direction in DIRECTIONS:
        tables += [_mover_table(analysis, direction), _rule_table(analysis, direction)]
    return Section("head-to-head", "Model against model", tuple(_sentences(analysis)), tuple(tables))


def _ranks(analysis: Analysis, direction: Direction) -> np.ndarray:
    """(M, Q)."""
    return np.stack([model.retrievals[direction].ranks for model in analysis.models])


def _sentences(analysis: Analysis) -> list[str]:
    said = []
    for direction in DIRECTIONS:
        ranks, noun = _ranks(analysis, direction), NOUN[direction]
        failures, found = fixed(ranks, 1)
        none = int((ranks > 0).all(axis=0).sum())
        said.append(f"{WAY[direction]}: no model puts a truth first for {counted(none, noun)} of {ranks.shape[1]:,}.")
        for a, b in combinations(range(len(analysis.models)), 2):
            one, two = analysis.models[a].name, analysis.models[b].name
            wins, same, losses = outcomes(ranks[a], ranks[b])
            said.append(
                f"{WAY[direction]}: {one} places the truth better than {two} for {counted(wins, noun)}, worse for {losses:,}, alike for "
                f"{same:,}. Of the {failures[b]:,} that {two} does not put first {one} puts {_share(found[b, a], failures[b])} first, of "
                f"the {failures[a]:,} that {one} does not {two} {_share(found[a, b], failures[a])}."
            )
    return said


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "none"


def _pairs(analysis: Analysis) -> list[tuple[Model, Model, Direction]]:
    return [(a, b, direction) for a, b in combinations(analysis.models, 2) for direction in DIRECTIONS]


def _outcome_table(analysis: Analysis) -> Table:
    counts = ("First better", "Alike", "Second better")
    columns = (Column("First"), Column("Second"), Column("Direction"), *(Column(name, "count") for name in counts))
    rows = tuple(
        (a.name, b.name, WAY[direction], *outcomes(a.retrievals[direction].ranks, b.retrievals[direction].ranks))
        for a, b, direction in _pairs(analysis)
    )
    return Table("outcomes", "Who ranks the truth better", columns, rows)


def _contingency_table(analysis: Analysis) -> Table:
    heads = Column("First"), Column("Second"), Column("Direction"), Column("Figure")
    counts = ("Both hit", "First alone", "Second alone", "Neither")
    rows: list[tuple[Cell, ...]] = []
    for a, b, direction in _pairs(analysis):
        for k in CUTOFFS:
            cells = contingency(*(model.retrievals[direction].ranks <= k - 1 for model in (a, b)))
            rows.append((a.name, b.name, WAY[direction], f"R@{k}", *cells, phi(*cells)))
    columns = (*heads, *(Column(name, "count") for name in counts), Column("Phi", "figure"))
    note = "Phi is the correlation of the hits: 1 if both hit the same queries, 0 if each hits whatever the other does."
    return Table("contingency", "Hits in common", columns, tuple(rows), note)


def _fixed_table(analysis: Analysis) -> Table:
    names = [model.name for model in analysis.models]
    rows: list[tuple[Cell, ...]] = []
    for direction in DIRECTIONS:
        for k in CUTOFFS:
            failures, found = fixed(_ranks(analysis, direction), k)
            for name, count, others in zip(names, failures.tolist(), found.tolist(), strict=True):
                shares = (None if other == name or not count else by / count for other, by in zip(names, others, strict=True))
                rows.append((WAY[direction], f"R@{k}", name, count, *shares))
    columns = (
        Column("Direction"), Column("Figure"), Column("Fails"), Column("Failures", "count"),
        *(Column(f"{name} hits", "share") for name in names),
    )  # fmt: skip
    return Table("fixes", "Who finds what another misses", columns, tuple(rows))


def _mover_table(analysis: Analysis, direction: Direction) -> Table:
    ranks, ids = _ranks(analysis, direction), analysis.models[0].retrievals[direction].ranking.queries.ids
    moved = movers(ranks)
    kept = moved[: analysis.options.sample or None]
    rows = tuple(
        (ids[query], *row, places)
        for query, row, places in zip(
            kept.tolist(), ranks[:, kept].T.tolist(), np.ptp(ranks[:, kept], axis=0).tolist(), strict=True
        )
    )
    columns = (Column("Query", "query"), *(Column(model.name, "rank") for model in analysis.models), Column("Places", "figure"))
    note = f"Places between the best rank and the worst; {len(rows):,} of {len(moved):,} that move at all."
    return Table(f"movers-{direction}", f"{WAY[direction]}: biggest movers", columns, rows, note, direction)


def _rule_table(analysis: Analysis, direction: Direction) -> Table:
    options = analysis.options
    rows = tuple(
        (contrast.better, contrast.worse, shift.query, shift.better, shift.worse, shift.gap)
        for contrast in analysis.contrasts
        for shift in contrast.shifts[direction]
    )
    columns = (
        Column("Better"), Column("Worse"), Column("Query", "query"), Column("Rank, better", "rank"), Column("Rank, worse", "rank"),
        Column("Places", "figure"),
    )  # fmt: skip
    note = f"The better model has a truth among its first {options.top}, the worse at least {options.gap} places later."
    return Table(
        f"much-worse-{direction}", f"{WAY[direction]}: found by one, far behind for another", columns, rows, note, direction
    )
