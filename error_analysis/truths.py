"""Right answers as other judges see them, beside a corpus's own pairs, and where a ranking puts them.

COCO knows five captions of each image and one image of each caption; people who looked found many more. CxC (Parekh et al. 2021,
"Crisscrossed Captions") and ECCV Caption (Chun et al. 2022) hold such judgements of Karpathy's test split; the package
eccv_caption carries both, under COCO's ids of images and captions, and is read here without being imported.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from corpora.corpus import Split
from error_analysis.mining import DIRECTIONS, Direction
from ranking.matrix import Ranking
from ranking.metrics import Positions, Ties, check_policy

PACKAGE = "eccv_caption"
JUDGES = {"CxC": "cxc", "ECCV": "eccv"}
"""Name in the report, and in the package's files."""
FILES: dict[Direction, str] = {"i2t": "image_to_caption", "t2i": "caption_to_image"}
ORIGINAL = "original"
COLUMNS = ("image", "text")


class JudgementError(ValueError):
    """A file of judgements that cannot be used; the message names the file and the first offender."""


@dataclass(frozen=True)
class Judgement:
    """What judges hold right: for every query they judged, the ids of its right items.

    The directions need not mirror each other. A pair of the corpus that is missing here was refused by the judges.
    """

    name: str
    right: dict[Direction, dict[str, list[str]]]
    gallery: dict[Direction, set[str]] = field(default_factory=dict)
    """Items that the judges' benchmark ranks. A right item outside of it can never be found, and still counts."""


@dataclass(frozen=True)
class Truth:
    """A judgement of one direction on the axes of a ranking."""

    name: str
    pairs: np.ndarray
    """(P, 2) int64: query index, item index; sorted, no duplicates."""
    absent: np.ndarray
    """(A,) query index of each right item that can never be found."""

    @property
    def queries(self) -> np.ndarray:
        """(J,) indices of the queries with a right item in the gallery, ascending."""
        return np.unique(self.pairs[:, 0])

    def of(self, queries: np.ndarray) -> Truth:
        """The same truth on these queries alone, which it knows."""
        kept = np.isin(self.pairs[:, 0], queries), np.isin(self.absent, queries)
        return replace(self, pairs=self.pairs[kept[0]], absent=self.absent[kept[1]])

    def accepts(self, queries: np.ndarray, items: np.ndarray) -> np.ndarray:
        """(N,) whether item items[n] is right for query queries[n]."""
        right: np.ndarray = np.isin(_keys(queries, items), _keys(*self.pairs.T))
        return right


def _keys(queries: np.ndarray, items: np.ndarray) -> np.ndarray:
    """(N,) int64, one number a pair, in the order of the pairs."""
    return queries.astype(np.int64) << 32 | items


def judgements_of(split: Split, files: Sequence[Path] = ()) -> tuple[Judgement, ...]:
    """CxC and ECCV Caption where the split is COCO's test, and each file of further pairs. JudgementError if two have one name."""
    found = (*coco_judgements(split), *(read_judgement(path, split) for path in files))
    names = [ORIGINAL, *(judgement.name for judgement in found)]
    if twice := {name for name in names if names.count(name) > 1}:
        raise JudgementError(f"two judgements are named {min(twice)!r}; rename the file")
    return found


def coco_judgements(split: Split) -> tuple[Judgement, ...]:
    """CxC's and ECCV Caption's judgements; none if the split is not of COCO's test images or the package is not installed.

    They are found by id: a caption's is COCO's annotation id, which Karpathy calls `sentid`. Every caption must stand under the
    image under which COCO has it: other corpora number their captions too.
    """
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations or not len(split.pairs):
        return ()
    folder = Path(spec.submodule_search_locations[0]) / "data"
    images_of = _read(folder / f"original_{FILES['t2i']}.json")
    if any(images_of.get(split.text_ids[text]) != [split.image_ids[image]] for image, text in split.pairs.tolist()):
        return ()
    gallery: dict[Direction, set[str]] = {
        "i2t": set(images_of),
        "t2i": {image for images in images_of.values() for image in images},
    }
    return tuple(
        Judgement(name, {way: _read(folder / f"{stem}_{FILES[way]}.json") for way in DIRECTIONS}, gallery)
        for name, stem in JUDGES.items()
    )


def _read(path: Path) -> dict[str, list[str]]:
    return {query: [str(item) for item in items] for query, items in json.loads(path.read_text()).items()}


def read_judgement(path: Path, split: Split) -> Judgement:
    """Pairs to be held right beside the corpus's own, named after their file.

    CSV with the columns image and text, or JSON: a list of objects with these two keys; both hold ids. An id that the split
    does not have raises JudgementError.
    """
    pairs = _named_pairs(path)
    known = {"image": set(split.image_ids), "text": set(split.text_ids)}
    for number, pair in enumerate(pairs, 1):
        for kind, key in zip(COLUMNS, pair, strict=True):
            if key not in known[kind]:
                raise JudgementError(
                    f"{path}: pair {number}: no {kind} {key!r} in split {split.name!r}; ids look like {min(known[kind])!r}"
                )
    own = [(split.image_ids[image], split.text_ids[text]) for image, text in split.pairs.tolist()]
    right: dict[Direction, dict[str, list[str]]] = {way: {} for way in DIRECTIONS}
    for image, text in dict.fromkeys(own + pairs):
        right["i2t"].setdefault(image, []).append(text)
        right["t2i"].setdefault(text, []).append(image)
    return Judgement(path.stem, right)


def _named_pairs(path: Path) -> list[tuple[str, str]]:
    """(image id, text id) of each row of the file."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = json.load(file) if path.suffix == ".json" else list(csv.DictReader(file))
        pairs = [(row["image"], row["text"]) for row in rows]
    except FileNotFoundError:
        raise JudgementError(f"{path}: no such file") from None
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise JudgementError(
            f"{path}: not a list of judgements ({type(error).__name__}: {error}); expected .csv with the columns image and text, "
            'or .json: [{"image": id, "text": id}, ...]'
        ) from None
    odd = next((pair for pair in pairs if not all(isinstance(key, str) for key in pair)), None)
    if odd or not pairs:
        raise JudgementError(f"{path}: {f'ids must be strings, not {odd}' if odd else 'no pairs'}")
    return pairs


def truths_of(ranking: Ranking, direction: Direction, judgements: Sequence[Judgement]) -> tuple[Truth, ...]:
    """The corpus's own pairs, then each judgement, on the axes of this ranking of that direction.

    Where part of a split was ranked, right items that were not are left out, queries that have no other, and judges who saw
    no other query.
    """
    own = Truth(ORIGINAL, ranking.relevant.pairs(), np.array([], np.int64))
    judges = (_truth(ranking, direction, judgement) for judgement in judgements)
    return (own, *(truth for truth in judges if len(truth.pairs)))


def _truth(ranking: Ranking, direction: Direction, judgement: Judgement) -> Truth:
    queries, items = ({key: index for index, key in enumerate(axis.ids)} for axis in (ranking.queries, ranking.items))
    gallery = judgement.gallery.get(direction, items)
    pairs, absent = set(), []
    for query, right in judgement.right[direction].items():
        if query in queries:
            pairs |= {(queries[query], items[item]) for item in right if item in items}
            absent += [queries[query] for item in right if item not in gallery]
    found, lost = np.array(sorted(pairs), np.int64).reshape(-1, 2), np.array(absent, np.int64)
    return Truth(judgement.name, found, lost[np.isin(lost, found[:, 0])])


def positions_under(ranking: Ranking, truths: Sequence[Truth], ties: Ties = "pessimistic") -> tuple[Positions, ...]:
    """Positions of the right items of each truth's queries, as ranking.metrics.positions gives them.

    One pass over the scores serves them all. An absent item stands behind the last of the gallery.
    """
    check_policy(ties)
    pairs = np.unique(np.concatenate([truth.pairs for truth in truths]), axis=0)
    keys, size = _keys(*pairs.T), len(ranking.items.ids)
    scores, above, upto = _counted(ranking, *pairs.T)
    found = []
    for truth in truths:
        at = np.searchsorted(keys, _keys(*truth.pairs.T))
        found.append(_positions(truth, scores[at], above[at], upto[at], size, ties))
    return tuple(found)


def _counted(ranking: Ranking, queries: np.ndarray, items: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The score of each of these pairs, sorted by query, and how many items of its query score above it and at least as high."""
    scores = np.empty(len(queries), np.float32)
    above, upto = np.empty(len(queries), np.int64), np.empty(len(queries), np.int64)
    for start, block in ranking.blocks():
        for pair in range(*np.searchsorted(queries, (start, start + len(block)))):
            row = block[queries[pair] - start]
            scores[pair] = row[items[pair]]
            above[pair] = np.count_nonzero(row > scores[pair])
            upto[pair] = np.count_nonzero(row >= scores[pair])
    return scores, above, upto


def _positions(truth: Truth, scores: np.ndarray, above: np.ndarray, upto: np.ndarray, size: int, ties: Ties) -> Positions:
    """As in ranking.metrics: irrelevant items above, tied ones by policy, and the relevant items placed before."""
    order = np.lexsort((-scores, truth.pairs[:, 0]))
    query, score = truth.pairs[order, 0], scores[order]
    place = np.arange(len(order)) - np.searchsorted(query, query)
    new = np.append(True, (np.diff(query) != 0) | (np.diff(score) != 0))
    group = np.cumsum(new) - 1
    first, last = place[new][group], place[np.append(new[1:], True)][group]
    best, worst = above[order] - first + place, upto[order] - last - 1 + place
    values = {"pessimistic": worst, "optimistic": best, "expected": (best + worst) / 2}[ties]
    return _with_absent(query, values, truth.absent, size)


def _with_absent(query: np.ndarray, values: np.ndarray, absent: np.ndarray, size: int) -> Positions:
    query, values = np.append(query, absent), np.append(values, size + np.arange(len(absent)))
    order = np.lexsort((values, query))
    _, counts = np.unique(query, return_counts=True)
    return Positions(np.append(0, np.cumsum(counts)), values[order])
