"""Graded relevance of images to captions, for NDCG: files of ROUGE-L that jobs/rouge_relevance.py writes, and others' such as SPICE.

relevance-<split>-<method>.h5: `values` (texts, images) float32 in the split's order; attributes schema, method, digest (of
the split). TERN's own files are bare float32 numbers of the same shape without a header, -1 where none was computed; their
rows and columns are taken for those of the split, in its order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from corpora.corpus import Split
from ranking.matrix import Ranking, RankingError, written_aside

SCHEMA = 1
Rows = Callable[[int, int], np.ndarray]
"""(first query, query behind the last) -> relevance of all items to them, (queries, items)."""


@dataclass(frozen=True)
class GradedRelevance:
    """How relevant each image is to each text, 0 or more. `method` names it in results."""

    method: str
    text_ids: Sequence[str]
    image_ids: Sequence[str]
    values: np.ndarray
    """(texts, images) float32."""

    def __post_init__(self) -> None:
        shape = len(self.text_ids), len(self.image_ids)
        if self.values.shape != shape:
            raise RankingError(f"relevance {self.method}: {self.values.shape} values for {shape[0]} texts and {shape[1]} images")
        if not (self.values >= 0).all():  # also false for NaN
            bad = np.argwhere(~(self.values >= 0))
            text, image = bad[0]
            raise RankingError(
                f"relevance {self.method}: {len(bad)} of {self.values.size} values are negative or NaN: not computed, the first for "
                f"text {self.text_ids[text]!r} and image {self.image_ids[image]!r}; let the job that computes them end first"
            )

    def of(self, ranking: Ranking) -> Rows:
        """The relevance of a ranking's items to its queries; ids that are not in the file are a RankingError."""
        texts = _places(self.text_ids, ranking.by("text").queries.ids, f"relevance {self.method}: text")
        images = _places(self.image_ids, ranking.by("image").queries.ids, f"relevance {self.method}: image")
        if ranking.queries.kind == "text":
            return lambda start, stop: self.values[np.ix_(texts[start:stop], images)]
        return lambda start, stop: self.values[np.ix_(texts, images[start:stop])].T


def _places(known: Sequence[str], wanted: Sequence[str], what: str) -> np.ndarray:
    place = {key: number for number, key in enumerate(known)}
    try:
        return np.array([place[key] for key in wanted])
    except KeyError as error:
        raise RankingError(f"{what} {error} has none; it is of another split") from None


def read_relevance(path: Path, split: Split) -> GradedRelevance:
    """A relevance file for a split. A missing, damaged or foreign file is a RankingError."""
    try:
        if not h5py.is_hdf5(path):
            return _read_bare(path, split)
        with h5py.File(path) as file:
            if file.attrs.get("schema") != SCHEMA:
                raise RankingError(f"{path}: schema {file.attrs.get('schema')}, this version reads {SCHEMA}; compute it again")
            if file.attrs["digest"] != split.digest:
                raise RankingError(
                    f"{path}: of another split, or of {split.name} before its corpus was made anew; compute it again"
                )
            return GradedRelevance(str(file.attrs["method"]), split.text_ids, split.image_ids, file["values"][:])
    except RankingError:
        raise
    except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise RankingError(f"{path}: no whole relevance file ({error}); compute it again") from None


def _read_bare(path: Path, split: Split) -> GradedRelevance:
    shape = len(split.text_ids), len(split.image_ids)
    size = path.stat().st_size
    if size != 4 * shape[0] * shape[1]:
        raise RankingError(
            f"{path}: {size:,} bytes; bare float32 values for the {shape[0]} texts and {shape[1]} images of split {split.name} are "
            f"{4 * shape[0] * shape[1]:,}"
        )
    graded = GradedRelevance(path.stem, split.text_ids, split.image_ids, np.fromfile(path, "<f4").reshape(shape))
    _check_order(graded.values, split, path)
    return graded


def _check_order(values: np.ndarray, split: Split, path: Path) -> None:
    """RankingError unless texts are more relevant to their own images than to others: in another order they are not."""
    images, texts = split.pairs[:: -(-len(split.pairs) // 1000)].T  # a thousand of them tell
    own, row = values[texts, images][:, None], values[texts]
    lead = (own > row).mean() - (own < row).mean()
    if lead < 0.5:
        raise RankingError(
            f"{path}: a text is more relevant to its own image than to {50 + 50 * lead:.0f} % of all, by chance 50 %: rows and columns "
            f"are not those of split {split.name}, or in another order"
        )


def write_relevance(path: Path, method: str, split: Split, blocks: Iterable[np.ndarray]) -> None:
    """Store the relevance of a split's images to its texts, block of texts after block, whole or not at all."""
    shape = len(split.text_ids), len(split.image_ids)
    with written_aside(path) as part, h5py.File(part, "w", libver="v110") as file:
        file.attrs.update({"schema": SCHEMA, "method": method, "digest": split.digest})
        values = file.create_dataset("values", shape, np.float32, chunks=(1, shape[1]), fletcher32=True)
        row = 0
        for block in blocks:
            values[row : row + len(block)] = block
            row += len(block)
        if row != shape[0]:
            raise RankingError(f"{path}: relevance of {row} texts for a split of {shape[0]}")
