"""What could be won without a better encoder: by several models together, by re-ranking, and what the gallery's size costs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import gammaln

from error_analysis.analysis import Analysis, Model
from error_analysis.bootstrap import LEVEL, ends, resampled
from error_analysis.mining import DIRECTIONS, Direction
from error_analysis.recounting import LEAST_SPREAD, Change, recount, wrong_images_above
from error_analysis.section import Cell, Column, Plot, Section, Series, Table
from error_analysis.summary import WAY
from ranking.evaluate import CUTOFFS
from ranking.matrix import Relevance
from ranking.metrics import Ties

RRF = 60
"""The constant of reciprocal-rank fusion (Cormack et al. 2009)."""
DEPTHS = (1, 5, 10, 20, 50, 100, 200, 500, 1000)
SIZES = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000)


def reciprocal_rank_fusion(lists: Sequence[np.ndarray], relevant: Relevance, ties: Ties = "pessimistic") -> np.ndarray:
    """(Q,) 0-based rank of the best truth when the lists (Q, k) of M models are fused; inf where no list has one.

    An item's score is the sum over the lists that hold it of 1 / (RRF + its 1-based place).
    """
    queries, items = len(lists[0]), 1 + max(int(found.max()) for found in lists)
    offset = items * np.arange(queries)[:, None]
    keys, where = np.unique(np.concatenate([(found + offset).ravel() for found in lists]), return_inverse=True)
    places = [np.broadcast_to(1 / (RRF + 1.0 + np.arange(found.shape[1])), found.shape).ravel() for found in lists]
    # added smallest first, so that an item's score does not depend on which model is named first
    order = np.argsort(np.concatenate(places), kind="stable")
    scores = np.bincount(where[order], np.concatenate(places)[order])
    pairs = relevant.pairs()
    pairs = pairs[pairs[:, 1] < items]
    true, query = np.isin(keys, pairs[:, 0] * items + pairs[:, 1]), keys // items
    best = np.full(queries, -np.inf)
    np.maximum.at(best, query[true], scores[true])
    above = np.bincount(query[~true], scores[~true] > best[query[~true]], queries)
    upto = np.bincount(query[~true], scores[~true] >= best[query[~true]], queries)
    ranks = {"optimistic": above, "pessimistic": upto, "expected": (above + upto) / 2}[ties]
    return np.where(np.isfinite(best), ranks, np.inf)


def z_score_fusion(models: Sequence[Model], direction: Direction) -> np.ndarray:
    """(Q,) 0-based rank of the best truth by the sum of the models' scores, each with mean 0 and deviation 1 over a query's items."""
    spreads = np.stack([model.neighbours[direction].spread for model in models])
    weights = np.divide(1, spreads, out=np.zeros_like(spreads), where=spreads > LEAST_SPREAD)
    retrievals = [model.retrievals[direction] for model in models]
    rankings = [retrieval.ranking for retrieval in retrievals]
    return recount(rankings, [Change(weights, np.zeros(len(rankings[0].items.ids)))], retrievals[0].ties)[0]


def first_in_gallery(above: np.ndarray, own: np.ndarray, images: int, size: int) -> float:
    """Expected R@1 when `size` of `images` images are drawn: exact, over all galleries that hold a query's own images.

    `above` (Q,) other images that stand above the query's best truth, `own` (Q,) images that are its truth: none of the
    former may be among the size - own drawn of images - own.
    """
    others, drawn = images - own, np.maximum(size - own, 0)
    safe = others - above
    possible = safe >= drawn
    log_share = _log_choose(np.where(possible, safe, drawn), drawn) - _log_choose(others, drawn)
    return float(np.mean(np.where(possible, np.exp(log_share), 0)))


def _log_choose(total: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    result: np.ndarray = gammaln(total + 1) - gammaln(drawn + 1) - gammaln(total - drawn + 1)
    return result


def section(analysis: Analysis) -> Section:
    """Fusion and oracle of the models, the ceiling of re-ranking, and R@1 by gallery size."""
    fused = _fused(analysis) if len(analysis.models) > 1 else {}
    rows = [row for direction, ranks in fused.items() for row in _combined_rows(analysis, direction, ranks)]
    tables = ([_combined_table(rows)] if rows else []) + [_ceiling_table(analysis)]
    said = _of_combined(rows) if rows else ["There is one model: what several have together cannot be told."]
    curves = _curves(analysis)
    return Section(
        "headroom",
        "What could be won",
        (*said, *_of_ceiling(analysis), *_of_curves(analysis, curves)),
        (*tables, _gallery_table(curves)),
        tuple(_gallery_plot(curves, direction) for direction in DIRECTIONS),
    )


def _fused(analysis: Analysis) -> dict[Direction, dict[str, np.ndarray]]:
    """(Q,) ranks by direction, of each model and of what they give together."""
    found: dict[Direction, dict[str, np.ndarray]] = {}
    for direction in DIRECTIONS:
        retrievals = [model.retrievals[direction] for model in analysis.models]
        lists = [model.neighbours[direction].items for model in analysis.models]
        ranks = {model.name: model.retrievals[direction].ranks for model in analysis.models}
        together = {
            "reciprocal ranks": reciprocal_rank_fusion(lists, retrievals[0].ranking.relevant, retrievals[0].ties),
            "oracle": np.min(list(ranks.values()), axis=0),
        }
        if all(retrieval.ranking.rescored is None for retrieval in retrievals):
            together = {"z-scores": z_score_fusion(analysis.models, direction)} | together
        found[direction] = ranks | {f"all, {name}": values for name, values in together.items()}
    return found


def _combined_rows(analysis: Analysis, direction: Direction, ranks: dict[str, np.ndarray]) -> list[tuple[Cell, ...]]:
    """Rows of direction, what, R@k for each cut-off, gain in R@1 over the best single model, low, high."""
    best = max((model.name for model in analysis.models), key=lambda name: float((ranks[name] <= 0).mean()))
    gains = np.stack([100.0 * (values <= 0) - 100.0 * (ranks[best] <= 0) for values in ranks.values()], axis=1)
    drawn = resampled(gains, np.ones_like(gains), analysis.clusters[direction], analysis.options.seed)
    rows: list[tuple[Cell, ...]] = []
    for (name, values), gain, found in zip(ranks.items(), gains.mean(axis=0), ends(drawn), strict=True):
        recalls = (100 * float((values <= k - 1).mean()) for k in CUTOFFS)
        rows.append((WAY[direction], name, *recalls, float(gain), *found))
    return rows


def _combined_table(rows: list[tuple[Cell, ...]]) -> Table:
    names = (*(f"R@{k}" for k in CUTOFFS), "Gain at R@1", "Low", "High")
    columns = (Column("Direction"), Column("Ranking"), *(Column(name, "figure") for name in names))
    note = (
        f"Gain over the best single model, with its {LEVEL:.0%} interval. Oracle: for each query the model that has the better rank, a "
        "bound for choosing between models. Reciprocal ranks are added over the first 50 items of each model, z-scores over all. Ties count as "
        "everywhere: where two models swap two items, their reciprocal ranks tie."
    )
    return Table("combined", "All models together", columns, tuple(rows), note)


def _of_combined(rows: list[tuple[Cell, ...]]) -> list[str]:
    said = []
    for way in WAY.values():
        own = {str(row[1]): row for row in rows if row[0] == way}
        oracle = own["all, oracle"]
        fusion = max(
            (name for name in own if name.startswith("all") and "oracle" not in name), key=lambda name: _number(own[name][2])
        )
        low, high = own[fusion][6:]
        chance = "" if low is None or high is None or _number(low) <= 0 <= _number(high) else ", beyond chance"
        said.append(
            f"{way}: were each query put to the model that ranks it best, R@1 would be {oracle[2]:.1f}, {oracle[5]:.1f} above the best one. The best fusion, of "
            f"{fusion.removeprefix('all, ')}, gives {own[fusion][2]:.1f} ({own[fusion][5]:+.1f}{chance})."
        )
    return said


def _number(cell: Cell) -> float:
    assert isinstance(cell, float)
    return cell


def _ceiling_table(analysis: Analysis) -> Table:
    most = {direction: len(analysis.models[0].retrievals[direction].ranking.items.ids) for direction in DIRECTIONS}
    depths = [k for k in DEPTHS if k <= max(most.values())]
    rows = tuple(
        (model.name, WAY[direction], *(_within(model, direction, k) if k <= most[direction] else None for k in depths))
        for model in analysis.models
        for direction in DIRECTIONS
    )
    columns = (Column("Model"), Column("Direction"), *(Column(f"First {k}", "share") for k in depths))
    note = "Queries with a truth among so many first items: what a perfect re-ranker of these would make of R@1."
    return Table("ceiling", "The ceiling of re-ranking", columns, rows, note)


def _within(model: Model, direction: Direction, k: int) -> float:
    return float((model.retrievals[direction].ranks <= k - 1).mean())


def _of_ceiling(analysis: Analysis) -> list[str]:
    """One sentence a model: R@1 after a perfect re-ranking of the first ten."""
    said = []
    for model in analysis.models:
        parts = [
            f"{WAY[direction].lower()} R@1 at most {_within(model, direction, 10):.1%} (now {_within(model, direction, 1):.1%})"
            for direction in DIRECTIONS
        ]
        said.append(f"A perfect re-ranking of the first 10 of {model.name} would make {' and '.join(parts)}.")
    return said


def _curves(analysis: Analysis) -> dict[tuple[str, Direction], dict[int, float]]:
    """R@1 by gallery size, for each model and direction."""
    images = len(analysis.split.image_ids)
    sizes = sorted({size for size in SIZES if size < images} | {images})
    curves: dict[tuple[str, Direction], dict[int, float]] = {}
    for model in analysis.models:
        retrieval = model.retrievals["i2t"]
        wrong = wrong_images_above(retrieval.ranking, model.neighbours["i2t"].truth, retrieval.ties)
        captions = model.retrievals["t2i"]
        for direction, above, own in (
            ("i2t", wrong, np.ones(images, np.int64)),
            ("t2i", np.ceil(captions.ranks), np.diff(captions.ranking.relevant.indptr)),
        ):
            curves[model.name, direction] = {  # type: ignore[index]
                size: first_in_gallery(above, own, images, size) for size in sizes if size >= own.max()
            }
    return curves


def _gallery_table(curves: dict[tuple[str, Direction], dict[int, float]]) -> Table:
    sizes = sorted({size for curve in curves.values() for size in curve})
    rows = tuple((name, WAY[direction], *(curve.get(size) for size in sizes)) for (name, direction), curve in curves.items())
    columns = (Column("Model"), Column("Direction"), *(Column(f"{size:,} images", "share") for size in sizes))
    note = (
        "R@1 where so many of the images stand in the gallery, with all their captions: the exact mean over all such galleries that "
        "hold the query's own, not over a few that were drawn. Figures of galleries of different sizes are not to be compared."
    )
    return Table("gallery", "R@1 by gallery size", columns, rows, note)


def _of_curves(analysis: Analysis, curves: dict[tuple[str, Direction], dict[int, float]]) -> list[str]:
    images, said = len(analysis.split.image_ids), []
    for model in analysis.models:
        parts = []
        for direction in DIRECTIONS:
            curve = curves[model.name, direction]
            half = max((size for size in curve if size <= images / 2), default=images)
            parts.append(f"{WAY[direction].lower()} R@1 {curve[half]:.1%} instead of {curve[images]:.1%}")
        if half < images:
            said.append(f"Among {half:,} images instead of {images:,} {model.name} would have {' and '.join(parts)}.")
    return said


def _gallery_plot(curves: dict[tuple[str, Direction], dict[int, float]], direction: Direction) -> Plot:
    series = tuple(
        Series(name, tuple(float(size) for size in curve), tuple(100 * share for share in curve.values()))
        for (name, way), curve in curves.items()
        if way == direction
    )
    return Plot(
        f"gallery-{direction}",
        f"{WAY[direction]}: R@1 by gallery size",
        "line",
        "images in the gallery",
        "R@1 (%)",
        series,
        log_x=True,
    )
