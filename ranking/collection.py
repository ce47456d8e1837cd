"""What is searched at the scale of a corpus: vectors, exactly, or an index of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ranking.index import Index, exact_search, read_index, recall
from ranking.neighbours import SAMPLE
from ranking.vectors import Ids, Origin, Vectors, VectorsError, read_vectors

Search = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]
"""(Q, D) rows, k -> (Q, k) scores, best first, and (Q, k) places; place -1 where fewer are found."""


@dataclass(frozen=True)
class Collection:
    """Items that can be searched by vectors."""

    search: Search
    ids: Ids
    """Id of every place, of those too where an item was taken out."""
    size: int
    """Items that can be found."""
    dimension: int
    made_by: Origin
    identity: dict[str, Any]
    """What decides the result of a search."""
    removed: np.ndarray
    """Places of items that were taken out."""

    def recall(self, queries: Vectors, vectors: Vectors, k: int) -> float:
        """Share of the k nearest that a search finds, of a sample of the queries. `vectors` are those the index was built from."""
        if (self.identity["vectors"], self.identity.get("changes", 0)) != (vectors.digest, 0):
            raise VectorsError("the index was not built from these vectors, or was changed since; recall would be wrong")
        size = min(SAMPLE, len(queries))
        rows = queries.rows[np.sort(np.random.default_rng(0).choice(len(queries), size, replace=False))]
        return recall(self.search(rows, k)[1], exact_search(vectors, rows, k)[1])

    def held(self, ids: Iterable[str]) -> set[str]:
        """Which of these ids can be found. Goes through all ids of the collection."""
        wanted, gone = set(ids), set(self.removed.tolist())
        return {item for place, item in enumerate(self.ids) if item in wanted and place not in gone}


def open_collection(folder: Path, parameters: str = "", device: int | None = None) -> Collection:
    """A vectors folder or an index folder; `parameters` and `device` are those of `read_index`."""
    if not folder.exists():
        unfinished = folder.with_name(f".{folder.name}.pieces").is_dir()
        raise VectorsError(
            f"{folder}: no vectors or index here" + ("; it is not finished, run its job again" if unfinished else "")
        )
    if (folder / "vectors.json").exists():
        if parameters:
            raise VectorsError(f"--parameters {parameters}: {folder} is searched exactly, vector by vector; give an index folder")
        return _of_vectors(read_vectors(folder))
    return _of_index(read_index(folder, parameters, device), parameters)


def _of_vectors(vectors: Vectors) -> Collection:
    ids = vectors.ids
    assert isinstance(ids, Ids)  # those of a folder
    nothing = np.zeros(0, np.int64)
    search = partial(exact_search, vectors)
    return Collection(search, ids, len(vectors), vectors.dimension, vectors.made_by, {"vectors": vectors.digest}, nothing)


def _of_index(index: Index, parameters: str) -> Collection:
    info = index.info
    shards = [asdict(shard) for shard in info.shards]
    identity = {"vectors": info.vectors, "index": info.type, "shards": shards, "changes": info.changes, "parameters": parameters}
    removed = np.fromiter(_removed(index), np.int64)
    return Collection(index.search, index.ids, len(index), info.dimension, info.made_by, identity, removed)


def _removed(index: Index) -> Iterator[int]:
    start = 0
    for shard in index.shards:
        yield from (shard.removed + start).tolist()
        start += shard.index.ntotal
