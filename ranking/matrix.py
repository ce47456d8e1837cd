"""The ranking file: every score of one model on one split, with named axes.

HDF5: `scores` (queries, items) float32, chunked; `queries/id`, `items/id` with attribute `kind` (image or text);
`relevant/indptr`, `relevant/indices` (CSR over queries); file attributes: schema, model, checkpoint, corpus, split,
digest (of the split), config, revision, score_meaning. Rows are images as the engine writes it; `.T` reads the other
direction from the same numbers.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import h5py
import numpy as np

SCHEMA = 1
ROWS_AT_ONCE = 256

Kind = Literal["image", "text"]


class RankingError(ValueError):
    """A ranking file or matrix that cannot be trusted; the message names the file and the first offender."""


@dataclass(frozen=True)
class Axis:
    """One side of the matrix: what its entries are and their ids, unique and in order."""

    kind: Kind
    ids: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.kind not in ("image", "text"):
            raise RankingError(f"axis kind {self.kind!r}: must be image or text")
        if len(set(self.ids)) != len(self.ids):
            seen: set[str] = set()
            twice = next(i for i in self.ids if i in seen or seen.add(i))  # type: ignore[func-returns-value]
            raise RankingError(f"{self.kind} axis: id {twice!r} stands there more than once")


@dataclass(frozen=True)
class Relevance:
    """Which items are relevant to each query, as CSR: those of query q are indices[indptr[q]:indptr[q + 1]], sorted."""

    indptr: np.ndarray
    indices: np.ndarray

    @classmethod
    def from_pairs(cls, pairs: np.ndarray, queries: int) -> Relevance:
        """From (P, 2) int pairs (query index, item index)."""
        pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
        indptr = np.zeros(queries + 1, np.int64)
        np.cumsum(np.bincount(pairs[:, 0], minlength=queries), out=indptr[1:])
        return cls(indptr, pairs[:, 1].astype(np.int64))

    def pairs(self) -> np.ndarray:
        """(P, 2): query index, item index."""
        queries = np.repeat(np.arange(len(self.indptr) - 1), np.diff(self.indptr))
        return np.stack([queries, self.indices], axis=1)

    def of(self, query: int) -> np.ndarray:
        return self.indices[self.indptr[query] : self.indptr[query + 1]]

    def transposed(self, items: int) -> Relevance:
        return Relevance.from_pairs(self.pairs()[:, ::-1], items)


@dataclass(frozen=True)
class Provenance:
    """Where the numbers come from; stored as attributes of the file."""

    model: str
    checkpoint: str
    corpus: str
    split: str
    digest: str
    """corpora.corpus.Split.digest of the split that was ranked; empty if unknown (an imported file)."""
    score_meaning: str
    config: str = "{}"
    """The job's config, as JSON."""
    revision: str = ""
    """git revision of the code."""


@dataclass(frozen=True)
class Ranking:
    """A score matrix with named axes. `scores` may be an array or an open HDF5 dataset; read it by `rows`."""

    queries: Axis
    items: Axis
    relevant: Relevance
    scores: np.ndarray | h5py.Dataset
    provenance: Provenance
    transposed: bool = False
    """Whether `scores` is stored as (items, queries)."""

    def __post_init__(self) -> None:
        shape = self.scores.shape[::-1] if self.transposed else self.scores.shape
        if shape != (len(self.queries.ids), len(self.items.ids)):
            raise RankingError(f"scores {shape} do not fit {len(self.queries.ids)} queries and {len(self.items.ids)} items")
        indptr, indices = self.relevant.indptr, self.relevant.indices
        if len(indptr) != shape[0] + 1 or indptr[0] != 0 or indptr[-1] != len(indices) or (np.diff(indptr) < 0).any():
            raise RankingError(f"relevance does not fit {shape[0]} queries")
        if len(indices) and not 0 <= indices.min() <= indices.max() < shape[1]:
            raise RankingError(f"relevance names item {indices.max()}, there are {shape[1]}")

    @property
    def T(self) -> Ranking:
        """The other direction: items become queries. Nothing is copied."""
        return replace(
            self,
            queries=self.items,
            items=self.queries,
            relevant=self.relevant.transposed(len(self.items.ids)),
            transposed=not self.transposed,
        )

    def by(self, kind: Kind) -> Ranking:
        """This ranking with queries of the given kind."""
        if kind not in (self.queries.kind, self.items.kind):
            raise RankingError(f"no {kind} axis: this ranking has {self.queries.kind} queries and {self.items.kind} items")
        return self if self.queries.kind == kind else self.T

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Scores of queries start..stop-1, (stop - start, items) float32. Non-finite values raise, naming query and item."""
        block = np.asarray(self.scores[:, start:stop].T if self.transposed else self.scores[start:stop], np.float32)
        check_finite(block, self.queries.ids[start:stop], self.items.ids)
        return block

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """(first query, rows) over all queries."""
        for start in range(0, len(self.queries.ids), ROWS_AT_ONCE):
            yield start, self.rows(start, min(start + ROWS_AT_ONCE, len(self.queries.ids)))

    def select(self, query_ids: Iterable[str], item_ids: Iterable[str]) -> Ranking:
        """The sub-matrix of these queries and items, in this ranking's order; unknown ids raise."""
        rows, columns = _positions(self.queries, query_ids), _positions(self.items, item_ids)
        scores = np.empty((len(rows), len(columns)), np.float32)
        for start in range(0, len(rows), ROWS_AT_ONCE):
            some = rows[start : start + ROWS_AT_ONCE]
            block = self.rows(some[0], some[-1] + 1)
            scores[start : start + len(some)] = block[some - some[0]][:, columns]
        pairs = self.relevant.pairs()
        pairs = pairs[np.isin(pairs[:, 0], rows) & np.isin(pairs[:, 1], columns)]
        local = np.stack([np.searchsorted(rows, pairs[:, 0]), np.searchsorted(columns, pairs[:, 1])], axis=1)
        return Ranking(
            Axis(self.queries.kind, tuple(self.queries.ids[i] for i in rows)),
            Axis(self.items.kind, tuple(self.items.ids[i] for i in columns)),
            Relevance.from_pairs(local, len(rows)),
            scores,
            self.provenance,
        )


def _positions(axis: Axis, ids: Iterable[str]) -> np.ndarray:
    where = {key: i for i, key in enumerate(axis.ids)}
    try:
        return np.array(sorted(where[key] for key in ids), np.int64)
    except KeyError as error:
        raise RankingError(f"no {axis.kind} {error} in this ranking of {len(axis.ids)}") from None


def check_finite(block: np.ndarray, query_ids: Sequence[str], item_ids: Sequence[str]) -> None:
    """Raise RankingError naming the first NaN or infinite score. A NaN compares false with everything, so other suites count it as a hit."""
    if np.isfinite(block).all():
        return
    bad = np.argwhere(~np.isfinite(block))
    query, item = bad[0]
    raise RankingError(
        f"{len(bad)} of {block.size} scores are not finite, the first {block[query, item]} for query {query_ids[query]!r} and item "
        f"{item_ids[item]!r}; the model or its precision is at fault (try --precision no), nothing was ranked"
    )


def write_ranking(path: Path, ranking: Ranking) -> None:
    """Store a ranking, written aside, flushed and renamed. The bytes depend on the content alone."""
    part = path.with_name(path.name + ".writing")
    shape = len(ranking.queries.ids), len(ranking.items.ids)
    with h5py.File(part, "w", libver="v110") as file:
        file.attrs["schema"] = SCHEMA
        for key, value in asdict(ranking.provenance).items():
            file.attrs[key] = value
        for name, axis in (("queries", ranking.queries), ("items", ranking.items)):
            group = file.create_group(name)
            group.attrs["kind"] = axis.kind
            group.create_dataset("id", data=list(axis.ids), dtype=h5py.string_dtype())
        file["relevant/indptr"], file["relevant/indices"] = ranking.relevant.indptr, ranking.relevant.indices
        scores = file.create_dataset("scores", shape, np.float32, chunks=(min(shape[0], 128), min(shape[1], 1024)))
        for start, block in ranking.blocks():
            scores[start : start + len(block)] = block
    with part.open("rb") as written:
        os.fsync(written.fileno())
    part.replace(path)


def read_ranking(path: Path | str) -> Ranking:
    """Open a ranking file; its scores stay on disk until they are read. A missing, half-done or damaged file is one clear error."""
    path = Path(path)
    if not path.exists():
        blocks = path.with_name(path.name + ".part")
        if blocks.is_dir():
            raise RankingError(
                f"{path}: only half done ({len(list(blocks.glob('*.npy')))} blocks stand in {blocks.name}); run its job again to finish it"
            )
        raise RankingError(f"{path}: no such ranking file")
    try:
        file = h5py.File(path, "r")
        if file.attrs.get("schema") != SCHEMA:
            raise RankingError(f"{path}: schema {file.attrs.get('schema')}, this version reads {SCHEMA}")
        queries, items = (Axis(file[name].attrs["kind"], tuple(file[name]["id"].asstr()[:])) for name in ("queries", "items"))
        relevant = Relevance(file["relevant/indptr"][:], file["relevant/indices"][:])
        provenance = Provenance(**{key: str(file.attrs[key]) for key in Provenance.__dataclass_fields__})
        return Ranking(queries, items, relevant, file["scores"], provenance)
    except RankingError as error:
        raise RankingError(f"{path}: {error}".replace(f"{path}: {path}", f"{path}")) from None
    except (OSError, KeyError) as error:
        raise RankingError(f"{path}: not a whole ranking file ({error}); rank again") from None


def config_json(config: object) -> str:
    """A dataclass as the JSON text that `Provenance.config` holds."""
    return json.dumps(asdict(config), default=str, sort_keys=True)  # type: ignore[call-overload]
