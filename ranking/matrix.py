"""The ranking file: every score of one model on one split, with named axes.

HDF5: `scores` (queries, items) float32, chunked, with checksums; `queries/id`, `items/id` with attribute `kind` (image or text);
`relevant/indptr`, `relevant/indices` (CSR over queries); file attributes: schema, model, checkpoint, corpus, split,
digest (of the split), config, revision, weights, score_meaning. Rows are images as the engine writes it; `.T` reads the other
direction from the same numbers. A re-ranked file (schema 2) also holds `rescored/scores` and `rescored/marks`
(`ranking.rescored`); its `scores` are still the first model's, and `rows` gives the order of both together.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Literal, get_args

import h5py
import numpy as np

from ranking.rescored import OF_QUERY, Rescored, reordered, swapped

SCHEMA = 1
RERANKED = 2
"""Schema of a file with second scores, which a reader of the first schema must not take for a plain one."""
ROWS_AT_ONCE = 256
CHUNK = 256
"""Side of a square chunk of stored scores: reading ROWS_AT_ONCE rows or as many columns touches each byte once."""

Kind = Literal["image", "text"]


class RankingError(ValueError):
    """A ranking file or matrix that cannot be trusted; the message names the file and the first offender."""


@dataclass(frozen=True)
class Axis:
    """One side of the matrix: what its entries are and their ids, unique and in order."""

    kind: Kind
    ids: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise RankingError(f"axis kind {self.kind!r}: must be image or text")
        if not self.ids:
            raise RankingError(f"{self.kind} axis: no ids; there is nothing to rank")
        odd = next((i for i in self.ids if not isinstance(i, str) or "\0" in i), None)
        if odd is not None:
            raise RankingError(f"{self.kind} axis: id {odd!r}: must be a string without NUL characters")
        if len(set(self.ids)) != len(self.ids):
            seen: set[str] = set()
            twice = next(i for i in self.ids if i in seen or seen.add(i))  # type: ignore[func-returns-value]
            raise RankingError(f"{self.kind} axis: id {twice!r} stands there more than once")


@dataclass(frozen=True)
class Relevance:
    """Which items are relevant to each query, as CSR: those of query q are indices[indptr[q]:indptr[q + 1]], ascending."""

    indptr: np.ndarray
    indices: np.ndarray

    def __post_init__(self) -> None:
        for name, values in (("indptr", self.indptr), ("indices", self.indices)):
            if values.ndim != 1 or values.dtype.kind != "i":
                raise RankingError(f"relevance: {name} is {values.dtype} {values.shape}, must be one row of signed integers")
        ends = self.indptr[:1].tolist() + self.indptr[-1:].tolist()
        if ends != [0, len(self.indices)] or (np.diff(self.indptr) < 0).any():
            raise RankingError(f"relevance: indptr must rise from 0 to the number of pairs, {len(self.indices)}")
        queries = np.repeat(np.arange(len(self.indptr) - 1), np.diff(self.indptr))
        bad = np.flatnonzero((np.diff(queries) == 0) & (np.diff(self.indices) <= 0))
        if len(bad):
            query, item = queries[bad[0] + 1], self.indices[bad[0] + 1]
            raise RankingError(f"relevance: items of query {query} must ascend without repeats, item {item} does not")

    @classmethod
    def from_pairs(cls, pairs: np.ndarray, queries: int) -> Relevance:
        """From (P, 2) int pairs (query index, item index), in any order."""
        if len(pairs) and not 0 <= pairs[:, 0].min() <= pairs[:, 0].max() < queries:
            raise RankingError(f"relevance names queries {pairs[:, 0].min()} to {pairs[:, 0].max()}, there are {queries}")
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
    weights: str = ""
    """First digits of the sha256 over the model's weights."""
    leakage: str = ""
    """How many of the images the model was trained on, in words; empty if none, as far as is known."""


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
    rescored: Rescored | None = None
    """Second scores, stored as `scores` are."""

    def __post_init__(self) -> None:
        shape = self.scores.shape[::-1] if self.transposed else self.scores.shape
        if self.rescored is not None and {self.rescored.scores.shape, self.rescored.marks.shape} != {self.scores.shape}:
            raise RankingError(f"second scores {self.rescored.scores.shape} do not fit scores {self.scores.shape}")
        if shape != (len(self.queries.ids), len(self.items.ids)):
            raise RankingError(f"scores {shape} do not fit {len(self.queries.ids)} queries and {len(self.items.ids)} items")
        indptr, indices = self.relevant.indptr, self.relevant.indices
        if len(indptr) != shape[0] + 1:
            raise RankingError(f"relevance of {len(indptr) - 1} queries does not fit {shape[0]} queries")
        if len(indices) and not 0 <= indices.min() <= indices.max() < shape[1]:
            raise RankingError(f"relevance names items {indices.min()} to {indices.max()}, there are {shape[1]}")

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

    @property
    def first(self) -> Ranking:
        """The ranking as the first model made it, without second scores."""
        return replace(self, rescored=None)

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Scores of queries start..stop-1, (stop - start, items) float32: read, never write to them.

        Of a re-ranked matrix they are those of `rescored.reordered`: they order the items, and only those of the query's
        shortlist are a model's scores. A score that is not finite raises RankingError naming query and item, a damaged file one naming the file.
        """
        block = self._finite(self.scores, start, stop)
        if self.rescored is not None:
            second, marks = self.second(start, stop)
            block = reordered(block, second, marks & OF_QUERY > 0)
        return block

    def second(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Second scores and marks of queries start..stop-1, as this direction sees them; RankingError if there are none."""
        if self.rescored is None:
            raise RankingError("this ranking was not re-ranked: it has no second scores")
        marks = self._stored(self.rescored.marks, start, stop)
        return self._finite(self.rescored.scores, start, stop), swapped(marks) if self.transposed else marks

    def _finite(self, matrix: np.ndarray | h5py.Dataset, start: int, stop: int) -> np.ndarray:
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite and is refused below
            block = np.ascontiguousarray(self._stored(matrix, start, stop), np.float32)
        check_finite(block, self.queries.ids[start:stop], self.items.ids)
        return block

    def _stored(self, matrix: np.ndarray | h5py.Dataset, start: int, stop: int) -> np.ndarray:
        try:
            block: np.ndarray = matrix[:, start:stop].T if self.transposed else matrix[start:stop]
        except OSError as error:  # a checksum that does not hold
            raise RankingError(f"{matrix.file.filename}: scores are damaged ({error}); rank again") from None  # type: ignore[union-attr]
        return block

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """(first query, rows) over all queries."""
        for start in range(0, len(self.queries.ids), ROWS_AT_ONCE):
            yield start, self.rows(start, start + ROWS_AT_ONCE)

    def select(self, query_ids: Iterable[str], item_ids: Iterable[str]) -> Ranking:
        """The sub-matrix of these queries and items, in this ranking's order, in memory; unknown ids raise."""
        rows, columns = _indices(self.queries, query_ids), _indices(self.items, item_ids)
        parts = [np.empty((len(rows), len(columns)), kind) for kind in (np.float32, np.float32, np.uint8)]
        for start in range(0, len(self.queries.ids), ROWS_AT_ONCE):
            lo, hi = np.searchsorted(rows, (start, start + ROWS_AT_ONCE))
            if lo < hi:
                stop = start + ROWS_AT_ONCE
                blocks = (self.first.rows(start, stop), *(self.second(start, stop) if self.rescored else ()))
                for part, block in zip(parts, blocks, strict=False):
                    part[lo:hi] = block[np.ix_(rows[lo:hi] - start, columns)]
        pairs = self.relevant.pairs()
        pairs = pairs[np.isin(pairs[:, 0], rows) & np.isin(pairs[:, 1], columns)]
        local = np.stack([np.searchsorted(rows, pairs[:, 0]), np.searchsorted(columns, pairs[:, 1])], axis=1)
        return Ranking(
            Axis(self.queries.kind, tuple(self.queries.ids[i] for i in rows)),
            Axis(self.items.kind, tuple(self.items.ids[i] for i in columns)),
            Relevance.from_pairs(local, len(rows)),
            parts[0],
            self.provenance,
            rescored=Rescored(*parts[1:]) if self.rescored else None,
        )


def _indices(axis: Axis, ids: Iterable[str]) -> np.ndarray:
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


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Where to write a file that shall take its name only when it is whole: flushed and renamed after the block, removed after an error."""
    part = path.with_name(path.name + ".writing")
    try:
        yield part
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_ranking(path: Path, ranking: Ranking) -> None:
    """Store a ranking, whole or not at all. The bytes depend on the content alone. A full disk raises RankingError."""
    shape = len(ranking.queries.ids), len(ranking.items.ids)
    with written_aside(path) as part:
        bytes_a_pair = 9.6 if ranking.rescored else 4.3
        _reserve(part, int(bytes_a_pair * math.prod(size + CHUNK for size in shape)) + 200 * sum(shape))
        with h5py.File(part, "w", libver="v110") as file:
            _fill(file, ranking)


def _reserve(path: Path, size: int) -> None:
    """Meet a full disk or quota here: HDF5 would end the process with a segmentation fault."""
    if not hasattr(os, "posix_fallocate"):  # macOS
        return
    try:
        with path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        raise RankingError(f"{path}: no room for {size / 1e6:.0f} MB ({error.strerror}); free some and run again") from None


def _fill(file: h5py.File, ranking: Ranking) -> None:
    file.attrs["schema"] = RERANKED if ranking.rescored else SCHEMA
    for key, value in asdict(ranking.provenance).items():
        file.attrs[key] = value
    for name, axis in (("queries", ranking.queries), ("items", ranking.items)):
        group = file.create_group(name)
        group.attrs["kind"] = axis.kind
        group.create_dataset("id", data=list(axis.ids), dtype=h5py.string_dtype())
    for name, values in asdict(ranking.relevant).items():
        file.create_dataset(f"relevant/{name}", data=values, chunks=(1024,), maxshape=(None,), fletcher32=True)
    shape = len(ranking.queries.ids), len(ranking.items.ids)
    chunks = min(shape[0], CHUNK), min(shape[1], CHUNK)
    scores = file.create_dataset("scores", shape, np.float32, chunks=chunks, fletcher32=True)
    for start, block in ranking.first.blocks():
        scores[start : start + len(block)] = block
    if ranking.rescored is None:
        return
    second = file.create_dataset("rescored/scores", shape, np.float32, chunks=chunks, fletcher32=True)
    marks = file.create_dataset("rescored/marks", shape, np.uint8, chunks=chunks, fletcher32=True)
    for start in range(0, shape[0], ROWS_AT_ONCE):
        stop = min(start + ROWS_AT_ONCE, shape[0])
        second[start:stop], marks[start:stop] = ranking.second(start, stop)


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
        return _opened(h5py.File(path, "r"))
    except RankingError as error:
        raise RankingError(f"{path}: {error}") from None
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise RankingError(f"{path}: not a whole ranking file ({error}); rank again") from None


def _opened(file: h5py.File) -> Ranking:
    schema = file.attrs.get("schema")
    if schema not in (SCHEMA, RERANKED):
        raise RankingError(f"schema {schema}, this version reads {SCHEMA} and {RERANKED}; rank again")
    queries, items = (Axis(file[name].attrs["kind"], tuple(file[name]["id"].asstr()[:])) for name in ("queries", "items"))
    relevant = Relevance(file["relevant/indptr"][:], file["relevant/indices"][:])
    provenance = Provenance(**{key: str(file.attrs.get(key, "")) for key in Provenance.__dataclass_fields__})
    rescored = Rescored(file["rescored/scores"], file["rescored/marks"]) if schema == RERANKED else None
    return Ranking(queries, items, relevant, file["scores"], provenance, rescored=rescored)


def config_json(config: object) -> str:
    """A dataclass as the JSON text that `Provenance.config` holds, but for fields with metadata identity=False: they change no score."""
    values = asdict(config)  # type: ignore[call-overload]
    kept = {field.name: values[field.name] for field in fields(config) if field.metadata.get("identity", True)}  # type: ignore[arg-type]
    return json.dumps(kept, default=str, sort_keys=True)
