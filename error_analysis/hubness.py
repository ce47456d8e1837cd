"""Items that stand first for far too many queries, items that never do, and what R@k gains when hubs are corrected for."""

from __future__ import annotations

import numpy as np
from scipy import stats

from error_analysis.analysis import Analysis, Model
from error_analysis.bootstrap import LEVEL, ends, resampled
from error_analysis.mining import DIRECTIONS, Direction
from error_analysis.recounting import LEAST_SPREAD, Change, log_sums, recount
from error_analysis.section import Cell, Column, Plot, Section, Series, Table
from error_analysis.summary import WAY, counted
from ranking.evaluate import CUTOFFS

NEAR = 10
"""Places that count as an occurrence; also the neighbours of CSLS."""
HUB = 2.0
"""A hub occurs more often than the mean by so many standard deviations (Radovanovic et al. 2010)."""
TEMPERATURE = 0.5
"""Of inverted softmax, in standard deviations of a query's scores; the best or near it for five trained models of ours."""
LISTED = 100
"""Hubs in the table of a direction."""
OTHER: dict[Direction, Direction] = {"i2t": "t2i", "t2i": "i2t"}
ITEM: dict[Direction, str] = {"i2t": "caption", "t2i": "image"}


def k_occurrence(items: np.ndarray, count: int) -> np.ndarray:
    """(count,) in how many of the lists `items` (Q, k) each item stands: N_k of Radovanovic et al. 2010."""
    return np.bincount(items.ravel(), minlength=count)


def skewness(occurrences: np.ndarray) -> float:
    """Third standardised moment of N_k: near 0 without hubs, large with them; 0 where all items occur equally often."""
    return float(stats.skew(occurrences)) if np.ptp(occurrences) else 0.0


def hubs(occurrences: np.ndarray) -> np.ndarray:
    """Indices of the hubs, the most frequent first."""
    order = np.argsort(-occurrences, kind="stable")
    return order[occurrences[order] > occurrences.mean() + HUB * occurrences.std()]


def wrongly_first(items: np.ndarray, ranks: np.ndarray, count: int) -> np.ndarray:
    """(count,) for how many failed queries, of rank above 0, each item is the first of `items` (Q, k)."""
    return np.bincount(items[ranks > 0, 0], minlength=count)


def corrected(model: Model) -> dict[Direction, dict[str, np.ndarray]]:
    """(Q,) 0-based ranks by direction and method, where scores are corrected by how near an item is to all queries.

    CSLS (Conneau et al. 2018): less the mean score of the item's NEAR nearest queries, halved. Inverted softmax (Smith et al.
    2017): less the log of the sum over queries of exp(score / T), times T. Both look at all queries of the split together.
    """
    near, retrievals = model.neighbours, model.retrievals
    spread = float(near["i2t"].spread.mean())
    temperature, unit = (
        TEMPERATURE * spread,
        2.0 ** -round(np.log2(spread)),
    )  # exact, and keeps any scale of scores within float32
    sums = dict(zip(DIRECTIONS, log_sums(retrievals["i2t"].ranking, temperature, near["t2i"].scores[:, 0]), strict=True))
    ranks: dict[Direction, dict[str, np.ndarray]] = {}
    for direction, retrieval in retrievals.items():
        units, other = np.full((1, len(retrieval.ranks)), unit), OTHER[direction]
        nearest = near[other].scores[:, :NEAR].mean(axis=1, dtype=float)
        changes = [Change(units, unit * nearest / 2), Change(units, unit * temperature * sums[other])]
        found = recount([retrieval.ranking], changes, retrieval.ties)
        ranks[direction] = dict(zip(("CSLS", "inverted softmax"), found, strict=True))
    return ranks


def section(analysis: Analysis) -> Section:
    """Hubs and orphans of every model and direction, and the gain of two corrections."""
    gains = [row for model in analysis.models if _measured(model) for row in _gain_rows(analysis, model)]
    tables = [_counts_table(analysis), *(_hub_table(analysis, direction) for direction in DIRECTIONS)]
    if gains:
        tables.insert(1, _gain_table(gains))
    said = [sentence for model in analysis.models for sentence in _of_hubs(model)]
    said += [sentence for model in analysis.models if (sentence := _of_gain(model, gains))]
    plots = tuple(_plot(analysis, direction) for direction in DIRECTIONS)
    return Section("hubness", "Hubs", tuple(said), tuple(tables), plots, _lead(analysis))


def _measured(model: Model) -> bool:
    """Whether scores can be corrected: the second scores of a re-ranked file order the items but measure nothing between them."""
    scored_by_one = all(retrieval.ranking.rescored is None for retrieval in model.retrievals.values())
    return scored_by_one and bool(model.neighbours["i2t"].spread.mean() > LEAST_SPREAD)


def _counts(model: Model, direction: Direction) -> tuple[np.ndarray, np.ndarray]:
    """N_k and wrong first places of every item."""
    retrieval, near = model.retrievals[direction], model.neighbours[direction]
    count = len(retrieval.ranking.items.ids)
    return k_occurrence(near.items[:, :NEAR], count), wrongly_first(near.items, retrieval.ranks, count)


def _lead(analysis: Analysis) -> str:
    """The model and direction that loses the greatest share of its queries to hubs."""
    worst, lead = -1.0, ""
    for model in analysis.models:
        for direction, sentence in zip(DIRECTIONS, _of_hubs(model), strict=True):
            occurrences, wrong = _counts(model, direction)
            share = float(wrong[hubs(occurrences)].sum() / len(model.retrievals[direction].ranks))
            worst, lead = (share, sentence) if share > worst else (worst, lead)
    return lead


def _of_hubs(model: Model) -> list[str]:
    said = []
    for direction in DIRECTIONS:
        occurrences, wrong = _counts(model, direction)
        found = hubs(occurrences)
        if not len(found) or not wrong.sum():
            said.append(f"{model.name}, {WAY[direction].lower()}: no {'failure' if len(found) else 'hub'}.")
            continue
        share = wrong[found].sum() / wrong.sum()
        orphans = int((occurrences == 0).sum())
        said.append(
            f"{model.name}, {WAY[direction].lower()}: {counted(len(found), ITEM[direction])} of {len(wrong):,} are hubs and take the "
            f"first place of {share:.1%} of the failed queries; {counted(orphans, ITEM[direction])} never "
            f"{'stands' if orphans == 1 else 'stand'} among the first {NEAR} (skewness {skewness(occurrences):.2f})."
        )
    return said


def _counts_table(analysis: Analysis) -> Table:
    names = ("Mean", "Most")
    columns = (
        Column("Model"), Column("Direction"), Column("Items", "count"), *(Column(name, "figure") for name in names),
        Column("Skewness", "figure"), Column("Hubs", "count"), Column("Failures at hubs", "share"), Column("Orphans", "count"),
    )  # fmt: skip
    rows: list[tuple[Cell, ...]] = []
    for model in analysis.models:
        for direction in DIRECTIONS:
            occurrences, wrong = _counts(model, direction)
            at_hubs = float(wrong[hubs(occurrences)].sum() / wrong.sum()) if wrong.any() else None
            rows.append((
                model.name, WAY[direction], len(occurrences), float(occurrences.mean()), float(occurrences.max()),
                skewness(occurrences), len(hubs(occurrences)), at_hubs, int((occurrences == 0).sum()),
            ))  # fmt: skip
    note = (
        f"Of how many queries an item is among the first {NEAR}. A hub is more than {HUB:g} standard deviations above the mean, an "
        "orphan is there for no query. Failures at hubs: failed queries whose first item is a hub."
    )
    return Table("hubness", "How evenly items are retrieved", columns, tuple(rows), note)


def _hub_table(analysis: Analysis, direction: Direction) -> Table:
    columns = (
        Column("Model"), Column("Item", "item"), Column(f"Among the first {NEAR}", "count"), Column("Wrongly first", "count"),
        Column("Its own queries", "count"),
    )  # fmt: skip
    rows: list[tuple[Cell, ...]] = []
    for model in analysis.models:
        ranking = model.retrievals[direction].ranking
        occurrences, wrong = _counts(model, direction)
        own = np.bincount(ranking.relevant.indices, minlength=len(occurrences))
        rows += [
            (model.name, ranking.items.ids[item], int(occurrences[item]), int(wrong[item]), int(own[item]))
            for item in hubs(occurrences)[:LISTED].tolist()
        ]
    note = f"At most {LISTED} of a model, the most frequent first. Its own queries: those to which it is relevant."
    return Table(f"hubs-{direction}", f"{WAY[direction]}: hubs", columns, tuple(rows), note, direction)


def _gain_rows(analysis: Analysis, model: Model) -> list[tuple[Cell, ...]]:
    """Rows of model, direction, method, figure, before, after, gain, low, high."""
    rows: list[tuple[Cell, ...]] = []
    for direction, methods in corrected(model).items():
        before = model.retrievals[direction].ranks
        for method, after in methods.items():
            pairs = [(before <= k - 1, after <= k - 1) for k in CUTOFFS]
            gain = 100.0 * np.stack([now.astype(int) - then for then, now in pairs], axis=1)
            drawn = resampled(gain, np.ones_like(gain), analysis.clusters[direction], analysis.options.seed)
            for k, (then, now), found in zip(CUTOFFS, pairs, ends(drawn), strict=True):
                shares = 100 * float(then.mean()), 100 * float(now.mean())
                rows.append((model.name, WAY[direction], method, f"R@{k}", *shares, shares[1] - shares[0], *found))
    return rows


def _gain_table(rows: list[tuple[Cell, ...]]) -> Table:
    columns = (
        Column("Model"), Column("Direction"), Column("Correction"), Column("Figure"),
        *(Column(name, "figure") for name in ("Before", "After", "Gain", "Low", "High")),
    )  # fmt: skip
    note = (
        "Both corrections look at all queries of the split at once, which a search engine cannot do for queries to come: a diagnosis, "
        f"no result to publish beside others. CSLS with {NEAR} neighbours; inverted softmax at {TEMPERATURE:g} standard deviations of a "
        f"query's scores. In percent, with {LEVEL:.0%} intervals."
    )
    return Table("hubness-gain", "What correcting for hubs gains", columns, tuple(rows), note)


def _of_gain(model: Model, rows: list[tuple[Cell, ...]]) -> str:
    """The better correction of each direction at R@1; empty where all scores are equal."""
    if any(retrieval.ranking.rescored for retrieval in model.retrievals.values()):
        return f"{model.name} was re-ranked: its scores come from two models, and are not corrected for hubs."
    parts = []
    for direction in DIRECTIONS:
        own = [row for row in rows if (row[0], row[1], row[3]) == (model.name, WAY[direction], "R@1")]
        if own:
            _, _, method, _, before, after, _, low, high = max(own, key=lambda row: float(row[5] or 0))
            sure = "" if low is None or high is None or float(low) <= 0 <= float(high) else " (beyond chance)"
            parts.append(f"{WAY[direction].lower()} R@1 would go from {before:.1f} to {after:.1f}{sure} by {method}")
    return f"{model.name}, corrected for hubs: {'; '.join(parts)}." if parts else ""


def _plot(analysis: Analysis, direction: Direction) -> Plot:
    """How many items have an N_k of at least so much."""
    series = []
    for model in analysis.models:
        counts = np.bincount(_counts(model, direction)[0])
        least = np.cumsum(counts[::-1])[::-1]
        steps = np.flatnonzero(np.diff(least, append=0))  # where the curve falls
        kept = steps[np.unique(np.linspace(0, len(steps) - 1, 60).astype(int))]
        series.append(Series(model.name, tuple((kept + 1.0).tolist()), tuple((100 * least[kept] / least[0]).tolist())))
    share = f"{ITEM[direction]}s with at least so many (%)"
    return Plot(
        f"occurrence-{direction}", f"{WAY[direction]}: how often items are retrieved", "line", f"queries with it among the first {NEAR}, and one", share,
        tuple(series), log_x=True, log_y=True,
    )  # fmt: skip
