"""A vectors folder -> an index folder, in shards that any number of processes and jobs build."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from corpora.pieces import Part, Pieces
from corpora.progress import progress
from ranking.index import (
    METRICS,
    ROWS_AT_ONCE,
    IndexInfo,
    SearchIndexError,
    ShardInfo,
    read_faiss,
    read_info,
    write_info,
)
from ranking.vectors import Measure, Vectors, write_ids
from training.supervision import Nobody, Supervisor

TYPES = re.compile(r"((OPQ|PCA)[^,]+,)?(Flat|SQ|HNSW|IVF)[^,]*(,(Flat|SQ|PQ)[^,]*)?")
TRAINED_ON = 1 << 16
"""Least rows to train on: faiss asks for 256 a centroid, and a product quantiser has 256."""
ROWS_A_LIST = 64
"""Rows to train on for each list of an inverted file, at least TRAINED_ON: faiss asks for 39 to 256."""
SEED = 0


def empty_index(kind: str, dimension: int, measure: Measure) -> Any:
    """A faiss index of a factory string; SearchIndexError if it is none that can be built, searched and merged here."""
    if not TYPES.fullmatch(kind):
        raise SearchIndexError(
            f"index type {kind!r}: must be one of Flat, SQfp16, SQ8, HNSW<m>, IVF<lists>,Flat, IVF<lists>,SQ8, IVF<lists>,PQ<m>, "
            "or such a one after OPQ<m> or PCA<d>"
        )
    try:
        return faiss.index_factory(dimension, kind, METRICS[measure])
    except RuntimeError as error:
        raise _refusal(kind, dimension, error) from None


def build_index(
    folder: Path,
    vectors: Vectors,
    kind: str = "Flat",
    shards: int = 1,
    part: Part = Part(),  # noqa: B008
    supervisor: Supervisor = Nobody(),  # noqa: B008
) -> IndexInfo | None:
    """Build the shards of this part that are not there yet, and the index when all are; None if others are still to come.

    What is trained is trained once, on a sample, and serves all shards. A shard is held in memory while it is built, so more of them
    need less; a killed job goes on at the shard where it was. The same index that stands there already is left alone; another is a
    SearchIndexError.
    """
    folder = Path(folder)
    if folder.exists():
        return _standing(folder, vectors, kind)
    if not 1 <= shards <= len(vectors):
        raise SearchIndexError(f"{shards} shards of {len(vectors)} vectors: must be 1 to one a vector")
    empty_index(kind, vectors.dimension, vectors.made_by.measure)
    folder.parent.mkdir(parents=True, exist_ok=True)
    identity = {"type": kind, "vectors": vectors.digest, "count": len(vectors), "dimension": vectors.dimension}
    try:
        pieces = Pieces(folder.with_name(f".{folder.name}.pieces"), shards, identity)
        try:
            _build_missing(pieces, vectors, kind, part, supervisor)
        except SearchIndexError:
            if len(pieces.missing()) == shards:  # a refused type must not stand in the way of another
                pieces.remove()
            raise
        if not pieces.whole:
            return None
        _join(folder, pieces, vectors, kind)
    except OSError as error:
        if not folder.exists():  # otherwise another part has joined the shards meanwhile, and removed them
            raise SearchIndexError(
                f"{folder}: cannot be written ({error}); what was built is kept beside it, run again"
            ) from error
    return _standing(folder, vectors, kind)


def shard_rows(count: int, shards: int) -> list[range]:
    """Rows of each shard: as equal as can be, in order."""
    ends = [count * number // shards for number in range(shards + 1)]
    return [range(start, end) for start, end in pairwise(ends)]


def _build_missing(pieces: Pieces, vectors: Vectors, kind: str, part: Part, supervisor: Supervisor) -> None:
    missing = pieces.missing(part)
    if not missing:
        return
    trained = _trained(pieces.folder / "trained.faiss", vectors, kind)
    ranges = shard_rows(len(vectors), pieces.count)
    for number in missing:
        index = filled(read_faiss(trained), vectors.rows, ranges[number], supervisor)
        supervisor.check()
        with pieces.writing(number) as aside:
            write_faiss(index, aside)
        supervisor.saved(pieces.count - len(pieces.missing()))


def _trained(path: Path, vectors: Vectors, kind: str) -> Path:
    """The trained index without vectors. Jobs that start at once all train, on the same rows, rather than wait; the first to end counts."""
    if not path.exists():
        index = empty_index(kind, vectors.dimension, vectors.made_by.measure)
        if not index.is_trained:
            _train(index, _sample(index, vectors), kind)
        aside = path.with_name(f"{path.name}.{os.uname().nodename}.{os.getpid()}")
        write_faiss(index, aside)
        if path.exists():
            aside.unlink()
        else:
            aside.replace(path)
    return path


def _train(index: Any, rows: np.ndarray, kind: str) -> None:
    try:
        index.train(rows)
    except RuntimeError as error:
        raise _refusal(kind, rows.shape[1], error) from None


def _refusal(kind: str, dimension: int, error: RuntimeError) -> SearchIndexError:
    why = str(error).splitlines()[0].split("Error: ")[-1][-200:]
    return SearchIndexError(f"index type {kind!r}: faiss makes none for vectors of {dimension} ({why})")


def _sample(index: Any, vectors: Vectors) -> np.ndarray:
    """(S, D) float32 rows drawn without repeats, the same for the same vectors."""
    ivf = faiss.try_extract_index_ivf(index)
    lists = ivf.nlist if ivf is not None else 0
    if lists > len(vectors):
        raise SearchIndexError(
            f"{lists} lists for {len(vectors)} vectors: faiss suggests about {max(1, int(4 * len(vectors) ** 0.5))}"
        )
    size = min(len(vectors), max(TRAINED_ON, ROWS_A_LIST * lists))
    places = np.sort(np.random.default_rng(SEED).choice(len(vectors), size, replace=False))
    print(f"training on {size} of {len(vectors)} vectors", flush=True)
    return np.ascontiguousarray(vectors.rows[places], np.float32)


def filled(index: Any, rows: np.ndarray, some: Sequence[int], supervisor: Supervisor) -> Any:
    """The index with some rows added, a range of them at a time."""
    starts = range(some[0], some[-1] + 1, ROWS_AT_ONCE)
    for start in progress(starts, f"adding blocks of {ROWS_AT_ONCE} vectors", len(starts)):
        supervisor.beat()
        index.add(np.ascontiguousarray(rows[start : min(start + ROWS_AT_ONCE, some[-1] + 1)], np.float32))
    return index


def write_faiss(index: Any, path: Path) -> None:
    """A full disk is an OSError."""
    try:
        faiss.write_index(index, str(path))
    except RuntimeError as error:
        raise OSError(str(error).splitlines()[0][-200:]) from None
    with path.open("rb") as written:
        os.fsync(written.fileno())


def _join(folder: Path, pieces: Pieces, vectors: Vectors, kind: str) -> None:
    aside = folder.with_name(f".{folder.name}.{os.uname().nodename}.{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        shards = []
        for number, some in enumerate(shard_rows(len(vectors), pieces.count)):
            shard = aside / "shards" / f"{number:06d}"
            shard.mkdir(parents=True)
            os.link(pieces.path(number), shard / "index.faiss")
            write_ids(shard / "ids.arrow", vectors.ids[some.start : some.stop])
            shards.append(ShardInfo(shard.name, len(some)))
        os.link(pieces.folder / "trained.faiss", aside / "trained.faiss")
        write_info(aside, IndexInfo(kind, vectors.dimension, vectors.made_by, vectors.digest, tuple(shards)))
        aside.rename(folder)  # an OSError if another part was faster
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    pieces.remove()


def _standing(folder: Path, vectors: Vectors, kind: str) -> IndexInfo:
    info = read_info(folder)
    if (info.type, info.vectors) != (kind, vectors.digest):
        raise SearchIndexError(
            f"{folder}: holds an index of another type or of other vectors ({info.type}); remove it or choose another folder"
        )
    return info
