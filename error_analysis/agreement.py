"""Whether the captions of one image fail together, and whether an image is found both ways."""

from __future__ import annotations

import numpy as np
from scipy import stats

from error_analysis.analysis import Analysis, Model
from error_analysis.section import Cell, Column, Plot, Section, Series, Table


def found_by_image(hits: np.ndarray, pairs: np.ndarray, images: int) -> tuple[np.ndarray, np.ndarray]:
    """(images,) how many captions an image has and how many of them hit; `hits` (T,), `pairs` (P, 2) image and text index."""
    return np.bincount(pairs[:, 0], minlength=images), np.bincount(pairs[:, 0], hits[pairs[:, 1]], images).astype(int)


def independent(counts: np.ndarray, share: float) -> np.ndarray:
    """Expected number of images with 0, 1, 2, ... captions found if each of an image's `counts` captions hit by itself with this share."""
    expected = np.zeros(counts.max() + 1)
    for count in np.unique(counts):
        expected[: count + 1] += (counts == count).sum() * stats.binom.pmf(np.arange(count + 1), count, share)
    return expected


def intraclass(found: np.ndarray, counts: np.ndarray) -> float | None:
    """How alike the captions of one image hit: the intraclass correlation of a one-way analysis of variance (Fleiss 1981).

    1 if all captions of an image hit or fail together, 0 if each by itself; none where all hit, all fail, or images have one caption.
    """
    groups, total, share = len(counts), counts.sum(), found.sum() / counts.sum()
    if share in (0, 1) or groups < 2 or total == groups:
        return None
    between = (counts * (found / counts - share) ** 2).sum() / (groups - 1)
    within = (found * (counts - found) / counts).sum() / (total - groups)
    size = (total - (counts**2).sum() / total) / (groups - 1)
    return float((between - within) / (between + (size - 1) * within))


def both_ways(image_hits: np.ndarray, found: np.ndarray) -> tuple[int, int, int, int]:
    """How many images hit, image to text, with a caption that hits back; hit with none; fail with one; fail with none."""
    back = found > 0
    cells = image_hits & back, image_hits & ~back, ~image_hits & back, ~image_hits & ~back
    both, out, home, neither = (int(cell.sum()) for cell in cells)
    return both, out, home, neither


def section(analysis: Analysis) -> Section:
    """Agreement within images and between the directions, for every model."""
    tables = (_together_table(analysis), _ways_table(analysis), _uneven_table(analysis), _one_way_table(analysis))
    said = tuple(sentence for model in analysis.models for sentence in _sentences(analysis, model))
    return Section("agreement", "Captions of one image, and the two directions", said, tables, (_plot(analysis),))


def _found(analysis: Analysis, model: Model) -> tuple[np.ndarray, np.ndarray]:
    hits = model.retrievals["t2i"].ranks <= 0
    return found_by_image(hits, analysis.split.pairs, len(analysis.split.image_ids))


def _ranks_by_image(analysis: Analysis, model: Model) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(images,) best, median and worst 0-based rank of an image's captions."""
    image, text = analysis.split.pairs.T
    ranks = model.retrievals["t2i"].ranks[text].astype(float)
    ordered = ranks[np.lexsort((ranks, image))]
    counts = np.bincount(image)
    first = np.cumsum(counts) - counts
    middle = (ordered[first + (counts - 1) // 2] + ordered[first + counts // 2]) / 2
    return ordered[first], middle, ordered[first + counts - 1]


def _sentences(analysis: Analysis, model: Model) -> list[str]:
    counts, found = _found(analysis, model)
    none, all_found = int((found == 0).sum()), int((found == counts).sum())
    chance = independent(counts, found.sum() / counts.sum())
    _, out, home, _ = both_ways(model.retrievals["i2t"].ranks <= 0, found)
    said = [
        f"{model.name}: for {none / len(counts):.1%} of images none of the captions finds the image first, where {chance[0] / len(counts):.1%} "
        f"were to be expected if captions failed one by one; for {all_found / len(counts):.1%} all do.",
        f"{model.name}: {out:,} images find a caption of theirs first though none of their captions finds them, and {home:,} do not though one does.",
    ]
    return said if counts.max() > 1 else said[1:]


def _together_table(analysis: Analysis) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for model in analysis.models:
        counts, found = _found(analysis, model)
        chance, alike = independent(counts, found.sum() / counts.sum()), intraclass(found, counts)
        seen = np.bincount(found, minlength=len(chance)).tolist()
        rows += [
            (model.name, n, count, float(expected), alike) for n, (count, expected) in enumerate(zip(seen, chance, strict=True))
        ]
    columns = (
        Column("Model"), Column("Captions that find the image", "count"), Column("Images", "count"),
        Column("Expected", "figure"), Column("Intraclass correlation", "figure"),
    )  # fmt: skip
    note = (
        "Text to image at first place. Expected: if every caption hit by itself, with the model's R@1. The correlation is 1 if the captions "
        "of an image hit or fail together and 0 if they do so by themselves: why intervals are drawn by image."
    )
    return Table("captions-together", "Do the captions of an image fail together", columns, tuple(rows), note)


def _ways_table(analysis: Analysis) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for model in analysis.models:
        image_ranks = model.retrievals["i2t"].ranks
        _, middle, _ = _ranks_by_image(analysis, model)
        alike = stats.spearmanr(image_ranks, middle).statistic if np.ptp(image_ranks) and np.ptp(middle) else None
        cells = both_ways(image_ranks <= 0, _found(analysis, model)[1])
        rows.append((model.name, *cells, None if alike is None else float(alike)))
    names = ("Both ways", "Image to text alone", "Text to image alone", "Neither way")
    columns = (Column("Model"), *(Column(name, "count") for name in names), Column("Rank correlation", "figure"))
    note = (
        "Images by whether one of their captions stands first for them, and whether they stand first for one of their captions. The "
        "correlation is Spearman's, of an image's rank and the median rank of its captions."
    )
    return Table("both-ways", "Found both ways", columns, tuple(rows), note)


def _uneven_table(analysis: Analysis) -> Table:
    """Images of which one caption does well and another badly."""
    rows: list[tuple[Cell, ...]] = []
    for model in analysis.models:
        best, middle, worst = _ranks_by_image(analysis, model)
        order = np.argsort(best - worst, kind="stable")
        order = order[worst[order] > best[order]][: analysis.options.sample or None]
        rows += [
            (model.name, analysis.split.image_ids[n], float(best[n]), float(middle[n]), float(worst[n])) for n in order.tolist()
        ]
    columns = (
        Column("Model"),
        Column("Image", "item"),
        *(Column(f"{name} rank", "rank") for name in ("Best", "Median", "Worst")),
    )
    note = "Ranks of the image for its captions: one of them says much less of it, or something else, or has a slip."
    return Table("uneven-captions", "Images whose captions differ most", columns, tuple(rows), note, "t2i")


def _one_way_table(analysis: Analysis) -> Table:
    """Images that hit in one direction and are hard in the other, the hardest first."""
    rows: list[tuple[Cell, ...]] = []
    for model in analysis.models:
        ranks, (best, middle, _) = model.retrievals["i2t"].ranks.astype(float), _ranks_by_image(analysis, model)
        far = np.where(ranks <= 0, best, np.where(best <= 0, ranks, 0))
        order = np.argsort(-far, kind="stable")
        order = order[far[order] > analysis.options.hard - 1][: analysis.options.sample or None]
        rows += [
            (model.name, analysis.split.image_ids[n], float(ranks[n]), float(best[n]), float(middle[n])) for n in order.tolist()
        ]
    columns = (
        Column("Model"), Column("Image", "query"), Column("Rank of its first caption", "rank"),
        Column("Its best rank for a caption", "rank"), Column("Its median rank", "rank"),
    )  # fmt: skip
    return Table("one-way", "Found one way, hard the other", columns, tuple(rows), "Hubs are one reason.", "i2t")


def _plot(analysis: Analysis) -> Plot:
    """Share of images by how many of their captions find them."""
    series = []
    for model in analysis.models:
        counts, found = _found(analysis, model)
        shares = 100 * np.bincount(found, minlength=counts.max() + 1) / len(counts)
        series.append(Series(model.name, tuple(str(n) for n in range(len(shares))), tuple(shares.tolist())))
    return Plot(
        "captions-together",
        "Captions that find their image",
        "bar",
        "captions of an image found first",
        "images (%)",
        tuple(series),
    )
