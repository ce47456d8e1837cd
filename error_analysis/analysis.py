"""Everything the report says about one or more rankings of one split, before it is laid out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import permutations
from typing import Any, Literal

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from corpora.corpus import Corpus, Split
from error_analysis.comparison import Shift, check_same_split, compare, related
from error_analysis.mining import (
    DIRECTIONS,
    By,
    Direction,
    Example,
    Mined,
    Retrieval,
    at_least,
    below,
    chosen,
    easy,
    examples,
    hard,
    mine,
)
from error_analysis.neighbours import Neighbours
from ranking.evaluate import evaluate
from ranking.matrix import Axis, Provenance, Ranking, RankingError, Relevance
from ranking.metrics import Ties

Level = Literal["hard", "easy", "chosen"]
LISTS: tuple[Level, Level] = ("hard", "easy")


@dataclass(frozen=True)
class Options:
    """What counts as hard, easy and much worse, in places, and which examples are kept."""

    hard: int = 10
    """Hard: no truth among the first so many."""
    easy: int = 1
    """Easy: a truth among the first so many."""
    top: int = 10
    """A model does well where it has a truth among the first so many,"""
    gap: int = 10
    """and another much worse where it has it at least so many places later."""
    sample: int = 40
    """Examples of a list; 0 for all."""
    seed: int = 0
    ties: Ties = "pessimistic"
    by: By = "rank"
    """What the lists of hard and easy queries go by; the options above are for ranks, those below for the others."""
    hard_below: float | None = None
    """Hard: a margin or average precision below this; by default 0 and 0.1."""
    easy_from: float | None = None
    """Easy: a margin or average precision of this or more; by default 0 and 1."""
    images: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, least in (("hard", 1), ("easy", 1), ("top", 1), ("gap", 1), ("sample", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"--{name} {getattr(self, name)}: must be at least {least}")

    @property
    def ends(self) -> tuple[float, float]:
        """The margin or average precision below which a query is hard, and from which on it is easy."""
        hard, easy = (0.0, 0.0) if self.by == "margin" else (0.1, 1.0)
        return hard if self.hard_below is None else self.hard_below, easy if self.easy_from is None else self.easy_from

    def ids(self, direction: Direction) -> tuple[str, ...]:
        """The chosen queries of a direction."""
        return self.images if direction == "i2t" else self.captions


@dataclass(frozen=True)
class Model:
    """One ranking under its name in the report. Images and texts stand in the order of the split, whatever the file's."""

    name: str
    provenance: Provenance
    metrics: dict[str, Any]
    retrievals: dict[Direction, Retrieval]
    mined: dict[Level, dict[Direction, Mined]]

    @property
    def neighbours(self) -> dict[Direction, Neighbours]:
        """The first items of every query."""
        return {direction: retrieval.neighbours for direction, retrieval in self.retrievals.items()}


@dataclass(frozen=True)
class Contrast:
    """Queries on which one model does well and another much worse: all of them, and examples (better, worse) of the widest gaps."""

    better: str
    worse: str
    shifts: dict[Direction, tuple[Shift, ...]]
    examples: dict[Direction, tuple[tuple[Example, Example], ...]]


@dataclass(frozen=True)
class Analysis:
    """One or more models on one split, and every ordered pair of them."""

    corpus: str
    split: Split
    options: Options
    models: tuple[Model, ...]
    contrasts: tuple[Contrast, ...]

    @cached_property
    def clusters(self) -> dict[Direction, np.ndarray]:
        """(queries,) int by direction: which queries belong together, as the captions of one image do, and images that share a caption.

        What is resampled is a cluster, never a single query: the captions of one image fail together.
        """
        images, texts = len(self.split.image_ids), len(self.split.text_ids)
        image, text = self.split.pairs.T
        graph = coo_array((np.ones(len(image)), (image, images + text)), shape=(images + texts, images + texts))
        of = connected_components(graph, directed=False)[1]
        return {"i2t": of[:images], "t2i": of[images:]}

    def ranks(self, direction: Direction) -> dict[str, dict[str, float]]:
        """0-based rank of the truth by query id and model name."""
        table: dict[str, dict[str, float]] = {}
        for model in self.models:
            retrieval = model.retrievals[direction]
            for query, rank in zip(retrieval.ranking.queries.ids, retrieval.ranks.tolist(), strict=True):
                table.setdefault(query, {})[model.name] = rank
        return table


def analyse(rankings: dict[str, Ranking], corpus: Corpus, options: Options) -> Analysis:
    """Analyse rankings, by name, of one split of this corpus. A RankingError says which one is of another split or corpus."""
    first, *others = rankings
    for name in others:
        with _said_of(f"{first} and {name}"):
            check_same_split(rankings[first], rankings[name])
    models = []
    for name, ranking in rankings.items():
        with _said_of(name):
            split = split_of(corpus, ranking)
            models.append(_model(name, in_order_of(split, ranking), options))
    contrasts = tuple(_contrast(better, worse, options) for better, worse in permutations(models, 2))
    return Analysis(corpus.name, split, options, tuple(models), contrasts)


@contextmanager
def _said_of(name: str) -> Iterator[None]:
    """Name the model in the error."""
    try:
        yield
    except RankingError as error:
        raise RankingError(f"{name}: {error}") from None


def split_of(corpus: Corpus, ranking: Ranking) -> Split:
    """The records a ranking speaks of: its split, or those images of it that were ranked.

    A ranking of another corpus raises RankingError: by the split's digest, or where the file has none, by ids and relevance.
    """
    whole = corpus.split(ranking.provenance.split)
    images, texts = set(ranking.by("image").queries.ids), set(ranking.by("text").queries.ids)
    split = whole.subset(images) if images < set(whole.image_ids) else whole
    made = ranking.provenance
    hint = f"give the corpus that was ranked (the file says {made.corpus!r}) or rank again"
    if made.digest and made.digest not in (whole.digest, split.digest):
        raise RankingError(f"ranking file from another corpus: split {whole.name!r} of {corpus.folder} has other records; {hint}")
    for kind, ranked, known in (("image", images, split.image_ids), ("text", texts, split.text_ids)):
        differ = ranked.symmetric_difference(known)
        if differ:
            raise RankingError(
                f"ranking file from another corpus: {len(differ)} {kind} ids differ from split {whole.name!r} of {corpus.folder}, "
                f"the first: {min(differ)!r}; {hint}"
            )
    if related(ranking) != {(split.image_ids[image], split.text_ids[text]) for image, text in split.pairs.tolist()}:
        raise RankingError(f"ranking file from another corpus: its relevant pairs are not those of {corpus.folder}; {hint}")
    return split


def in_order_of(split: Split, ranking: Ranking) -> Ranking:
    """The ranking with images as queries, images and texts in the order of the split; copied into memory where the file has another."""
    ranking = ranking.by("image")
    if (ranking.queries.ids, ranking.items.ids) == (split.image_ids, split.text_ids):
        return ranking
    row = {key: place for place, key in enumerate(split.image_ids)}
    column = {key: place for place, key in enumerate(ranking.items.ids)}
    rows, columns = np.array([row[key] for key in ranking.queries.ids]), [column[key] for key in split.text_ids]
    shape = len(rows), len(columns)
    scores, second, marks = (np.empty(shape, kind) for kind in (np.float32, np.float32, np.uint8))  # untouched pages cost nothing
    for start, block in ranking.first.blocks():
        stop = start + len(block)
        scores[rows[start:stop]] = block[:, columns]
        if ranking.rescored:
            for part, values in zip((second, marks), ranking.second(start, stop), strict=True):
                part[rows[start:stop]] = values[:, columns]
    return replace(
        ranking,
        queries=Axis("image", split.image_ids),
        items=Axis("text", split.text_ids),
        relevant=Relevance.from_pairs(split.pairs, shape[0]),
        scores=scores,
        transposed=False,
        rescored=replace(ranking.rescored, scores=second, marks=marks) if ranking.rescored else None,
    )


def _model(name: str, ranking: Ranking, options: Options) -> Model:
    retrievals = {direction: Retrieval.of(ranking, direction, options.ties) for direction in DIRECTIONS}
    mined: dict[Level, dict[Direction, Mined]] = {"hard": {}, "easy": {}, "chosen": {}}
    for direction, retrieval in retrievals.items():
        if options.by == "rank":
            found = hard(retrieval, options.hard), easy(retrieval, options.easy)
        else:
            found = below(retrieval, options.by, options.ends[0]), at_least(retrieval, options.by, options.ends[1])
        for level, queries in zip(LISTS, found, strict=True):
            mined[level][direction] = mine(retrieval, queries, options.sample, options.seed)
        mined["chosen"][direction] = mine(retrieval, chosen(retrieval, options.ids(direction)), sample=0)
    return Model(name, ranking.provenance, evaluate(ranking, ties=options.ties), retrievals, mined)


def _contrast(better: Model, worse: Model, options: Options) -> Contrast:
    shifts = {
        direction: compare(better.retrievals[direction], worse.retrievals[direction], options.top, options.gap)
        for direction in DIRECTIONS
    }
    shown: dict[Direction, tuple[tuple[Example, Example], ...]] = {}
    for direction, found in shifts.items():
        ids = [shift.query for shift in found[: options.sample or None]]
        pair = [examples(model.retrievals[direction], chosen(model.retrievals[direction], ids)) for model in (better, worse)]
        shown[direction] = tuple(zip(*pair, strict=True))
    return Contrast(better.name, worse.name, shifts, shown)


def hard_for_all(analysis: Analysis, direction: Direction) -> int:
    """How many queries are hard for every model."""
    ranks = np.array([list(by_model.values()) for by_model in analysis.ranks(direction).values()])
    return int((ranks.min(axis=1) > analysis.options.hard - 1).sum())
