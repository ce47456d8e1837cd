"""How well each kind of query is found: recall by what captions say, how long they are, and what the images are like.

What a caption has, an image has if at least half of its captions do. Recall in a slice has an interval by resampling clusters; its lift is
its difference from all other queries, tested with the clusters' scores under the hypothesis that slice and rest are alike, and corrected
after Benjamini and Hochberg over all slices of a model and direction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from error_analysis.analysis import Analysis
from error_analysis.bootstrap import interval, resampled, unanimous
from error_analysis.contents import Contents
from error_analysis.language import COLOURS, NEGATIONS, NUMBERS, SPATIAL, Reading
from error_analysis.mining import DIRECTIONS, Direction
from error_analysis.section import Cell, Column, Plot, Section, Series, Table
from error_analysis.summary import NOUN, WAY

LEAST = 30
"""Slices with fewer queries are left out, and those that leave fewer outside."""
OBJECTS = 25
"""Most frequent objects of the captions, and of the classes, that make a slice."""
ALPHA = 0.05
NAMED, DRAWN = 3, 12
"""Slices that the sentences name, and that the plot shows."""


@dataclass(frozen=True)
class Slice:
    """Some of the queries."""

    about: str
    name: str
    members: np.ndarray
    """(queries,) bool."""


@dataclass(frozen=True)
class Recall:
    """How a slice is found: shares in 0..1."""

    slice: Slice
    at_1: float
    low: float
    high: float
    at_10: float
    lift: float
    """R@1 less that of all other queries."""
    p: float
    """Two-sided p of the lift, corrected over all slices."""


def recalls(ranks: np.ndarray, slices: Sequence[Slice], clusters: np.ndarray, seed: int = 0) -> tuple[Recall, ...]:
    """Of each slice; `ranks` (queries,) are 0-based. Slices must be neither empty nor everything."""
    if not slices:
        return ()
    hits = ranks <= 0
    members = np.stack([one.members for one in slices], axis=1)
    low, high = interval(resampled(members * hits[:, None].astype(float), members.astype(float), clusters, seed))
    at_1 = np.array([hits[one.members].mean() for one in slices])
    for place, one in enumerate(slices):
        if at_1[place] in (0, 1):
            low[place], high[place] = unanimous(bool(at_1[place]), len(np.unique(clusters[one.members])))
    lifts, p = lift(hits, members, clusters)
    p = stats.false_discovery_control(p)
    return tuple(
        Recall(
            one,
            float(at_1[i]),
            float(low[i]),
            float(high[i]),
            float((ranks[one.members] <= 9).mean()),
            float(lifts[i]),
            float(p[i]),
        )
        for i, one in enumerate(slices)
    )


def lift(hits: np.ndarray, members: np.ndarray, clusters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(M,) share of hits in each slice less that outside, and its two-sided p by a score test on clusters.

    `hits` (Q,) bool, `members` (Q, M) bool. Under the hypothesis that both shares are that of all queries, the difference is a sum over
    independent clusters, and its variance the sum of their squares.
    """
    inside = members.sum(axis=0)
    weights = members / inside - ~members / (len(hits) - inside)
    scores = (hits - hits.mean())[:, None] * weights
    ids, place = np.unique(clusters, return_inverse=True)
    added = np.stack([np.bincount(place, column, len(ids)) for column in scores.T], axis=1)
    difference, spread = added.sum(axis=0), np.sqrt((added**2).sum(axis=0))
    z = difference / np.where(spread > 0, spread, 1)
    return difference, 2 * stats.norm.sf(np.abs(z))


def slices_of(direction: Direction, contents: Contents, sizes: np.ndarray) -> tuple[Slice, ...]:
    """Every slice of the queries of a direction that is large enough. `sizes` (images, 2) are width and height, or (0, 2)."""
    found = (*_by_captions(direction, contents), *_by_images(direction, contents, sizes))
    return tuple(one for one in found if LEAST <= one.members.sum() <= len(one.members) - LEAST)


MARKS: dict[str, tuple[str, Callable[[Reading], bool]]] = {
    "a colour": ("says", lambda reading: not COLOURS.isdisjoint(reading.words)),
    "a number": ("says", lambda reading: any(word in NUMBERS or word.isdigit() for word in reading.words)),
    "a spatial word": ("says", lambda reading: not SPATIAL.isdisjoint(reading.words)),
    "how two things stand": ("says", lambda reading: bool(reading.meaning.relations)),
    "a negation": ("says", lambda reading: any(word in NEGATIONS or word.endswith("n't") for word in reading.words)),
    "no verb": ("part of speech", lambda reading: not reading.count("VB")),
    "two verbs or more": ("part of speech", lambda reading: reading.count("VB") > 1),
    "no adjective": ("part of speech", lambda reading: not reading.count("JJ")),
    "two adjectives or more": ("part of speech", lambda reading: reading.count("JJ") > 1),
    "an adverb": ("part of speech", lambda reading: reading.count("RB") > 0),
    "a pronoun": ("part of speech", lambda reading: reading.count("PRP") > 0),
}
"""What a caption may have -> the kind of slice, and whether it has it."""


def _by_captions(direction: Direction, contents: Contents) -> Iterator[Slice]:
    readings = contents.readings
    for name, (about, has) in MARKS.items():
        yield _marked(direction, contents, about, name, np.array([has(reading) for reading in readings]))
    texts = range(len(readings))
    yield _marked(direction, contents, "says", "a rare word", np.array([bool(contents.rare(text)) for text in texts]))
    yield _marked(direction, contents, "says", "a misspelling", np.array([contents.misspelt(text) for text in texts]))
    frequent = Counter(one for reading in readings for one in reading.meaning.objects)
    for name, _ in sorted(frequent.items(), key=lambda pair: (-pair[1], pair[0]))[:OBJECTS]:
        named = np.array([name in reading.meaning.objects for reading in readings])
        yield _marked(direction, contents, "names", contents.spoken([name]), named)
    for about, values in (
        ("words of the caption", [len(reading.words) for reading in readings]),
        ("objects the caption names", [len(reading.meaning.objects) for reading in readings]),
    ):
        yield from _quarters(about, _of_captions(direction, contents, np.array(values, float)))


def _by_images(direction: Direction, contents: Contents, sizes: np.ndarray) -> Iterator[Slice]:
    classes = contents.split.classes
    for name, _ in Counter(one for one in classes if one).most_common(OBJECTS):
        yield Slice("class", name, _of_images(direction, contents, np.array([one == name for one in classes])) > 0)
    yield from _quarters(
        "objects the image's captions name",
        _of_images(direction, contents, np.array([len(said.objects) for said in contents.said])),
    )
    if len(sizes):
        width, height = sizes.T
        yield from _quarters("megapixels of the image", _of_images(direction, contents, (width * height / 1e6).round(2)))
        for name, members in (("upright", height > width), ("square", height == width), ("wide", width > height)):
            yield Slice("shape of the image", name, _of_images(direction, contents, members) > 0)


def _marked(direction: Direction, contents: Contents, about: str, name: str, marked: np.ndarray) -> Slice:
    return Slice(about, name, _of_captions(direction, contents, marked.astype(float)) >= 0.5)


def _of_captions(direction: Direction, contents: Contents, values: np.ndarray) -> np.ndarray:
    """A value of each caption as one of each query: an image has the mean of its captions'."""
    if direction == "t2i":
        return values
    return np.array([values[texts].mean() for texts in contents.captions])


def _of_images(direction: Direction, contents: Contents, values: np.ndarray) -> np.ndarray:
    """A value of each image as one of each query: a caption has that of the first image it describes."""
    if direction == "i2t":
        return values
    first = np.empty(len(contents.readings), np.int64)
    first[contents.split.pairs[::-1, 1]] = contents.split.pairs[::-1, 0]
    return values[first]


def _quarters(about: str, values: np.ndarray) -> Iterator[Slice]:
    """Slices at the quartiles, as many as differ."""
    edges = np.unique(np.quantile(values, (0.25, 0.5, 0.75), method="lower"))
    edges = edges[edges < values.max()]
    for low, high in zip((-np.inf, *edges), (*edges, np.inf), strict=True):
        name = f"up to {high:.3g}" if low == -np.inf else f"above {low:.3g}" + (f", up to {high:.3g}" if high < np.inf else "")
        yield Slice(about, name, (values > low) & (values <= high))


def section(analysis: Analysis, contents: Contents, sizes: np.ndarray) -> Section:
    """Recall by slice for every model and direction. `sizes` is that of near_duplicates.Duplicates."""
    slices = {direction: slices_of(direction, contents, sizes) if analysis.split.texts else () for direction in DIRECTIONS}
    found = {
        (model.name, direction): recalls(
            model.retrievals[direction].ranks, slices[direction], analysis.clusters[direction], analysis.options.seed
        )
        for model in analysis.models
        for direction in DIRECTIONS
    }
    tables = [
        _table(direction, {name: own for (name, way), own in found.items() if way == direction}) for direction in DIRECTIONS
    ]
    plots = [_plot(direction, {name: own for (name, way), own in found.items() if way == direction}) for direction in DIRECTIONS]
    return Section(
        "slices",
        "Which kinds of queries fail",
        tuple(_sentence(name, direction, own) for (name, direction), own in found.items()),
        tuple(table for table in tables if table.rows),
        tuple(plot for plot in plots if plot.series[0].x),
        _lead(found),
    )


def _lead(found: Mapping[tuple[str, Direction], Sequence[Recall]]) -> str:
    """The model and direction with the slice that is furthest below the rest."""
    worst = [(one.lift, key) for key, own in found.items() for one in own if one.lift < 0 and one.p <= ALPHA]
    if worst:
        name, direction = min(worst)[1]
        return _sentence(name, direction, found[name, direction])
    if any(found.values()):
        return "No kind of image or caption is found worse than the rest beyond chance."
    return ""


def _sentence(name: str, direction: Direction, found: Sequence[Recall]) -> str:
    who, noun = f"{name}, {WAY[direction].lower()}", NOUN[direction]
    if not found:
        return f"{who}: no kind of {noun} has {LEAST} queries, so none is compared with the rest."
    worse = sorted((one for one in found if one.lift < 0 and one.p <= ALPHA), key=lambda one: one.lift)
    if not worse:
        least = min(found, key=lambda one: one.lift)
        return (
            f"{who}: none of {len(found)} kinds of {noun}s is found worse than the rest beyond chance. R@1 is furthest below it for "
            f"{_named(least, noun)}, which so many comparisons may show by chance (p {least.p:.2f})."
        )
    named = "; ".join(_named(one, noun) for one in worse[:NAMED])
    return f"{who}: {len(worse)} of {len(found)} kinds of {noun}s are found worse than the rest. R@1 is furthest below it for {named}."


def _named(one: Recall, noun: str) -> str:
    count = int(one.slice.members.sum())
    return f"{one.slice.about}: {one.slice.name} ({one.at_1:.1%}, {100 * one.lift:+.1f} points, {count:,} {noun}s)"


def _table(direction: Direction, found: dict[str, tuple[Recall, ...]]) -> Table:
    columns = (
        Column("Model"),
        Column("About"),
        Column("Slice"),
        Column("Queries", "count"),
        Column("R@1", "share"),
        Column("from", "share"),
        Column("to", "share"),
        Column("R@10", "share"),
        Column("Lift (points)", "figure"),
        Column("p, corrected", "p"),
    )
    rows = tuple((name, *_cells(one)) for name, own in found.items() for one in own)
    note = (
        f"Slices of at least {LEAST} queries. Lift: R@1 less that of all other queries. Parts of speech are those of Brill's tagger, colours "
        "and the like closed lists of English words; an image has what at least half of its captions have."
    )
    return Table(f"slices-{direction}", f"{WAY[direction]}: recall by kind of {NOUN[direction]}", columns, rows, note)


def _cells(one: Recall) -> Iterator[Cell]:
    yield from (one.slice.about, one.slice.name, int(one.slice.members.sum()))
    yield from (one.at_1, one.low, one.high, one.at_10, 100 * one.lift, one.p)


def _plot(direction: Direction, found: dict[str, tuple[Recall, ...]]) -> Plot:
    """Lifts of the slices that differ most from the rest for any model."""
    own = list(found.values())
    order = sorted(range(len(own[0])), key=lambda i: min((model[i].p, -abs(model[i].lift)) for model in own))[:DRAWN]
    series = tuple(
        Series(
            name,
            tuple(f"{recalls[i].slice.about}: {recalls[i].slice.name}" for i in order),
            tuple(100 * recalls[i].lift for i in order),
        )
        for name, recalls in found.items()
    )
    return Plot(f"slices-lift-{direction}", f"{WAY[direction]}: lift of R@1", "bar", "Slice", "Points above the rest", series)
