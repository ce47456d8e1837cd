"""The nearest items of many queries, as a Parquet file: `query`, `items` and `scores`, best first.

The work is a grid: each block of queries in each shard of the index. Any number of processes and jobs share it, and a killed one loses the
piece it was at. With as many jobs as shards each opens one shard alone, so no machine has to hold the whole index. What ends last joins.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from corpora.pieces import Part, Pieces
from corpora.progress import progress
from ranking.index import Index, SearchIndexError, exact_search, merged, read_index, read_info, recall
from ranking.vectors import Vectors, check_one_model
from training.supervision import Nobody, Supervisor

BLOCK = 4096
"""Queries searched at once, as many as faiss takes for one matrix product."""
SAMPLE = 256
"""Queries that are also searched exactly, to measure recall."""
SCHEMA = pa.schema([("query", pa.string()), ("items", pa.list_(pa.string())), ("scores", pa.list_(pa.float32()))])


@dataclass(frozen=True)
class NeighbourSearch:
    """A search of all queries in an index folder."""

    path: Path
    """The Parquet file to make."""
    queries: Vectors
    index: Path
    k: int
    """Neighbours of each query, fewer where the index holds or finds fewer."""
    parameters: str = ""
    """As of ranking.index.read_index."""
    device: int | None = None
    supervisor: Supervisor = field(default_factory=Nobody)

    def __post_init__(self) -> None:
        info = read_info(self.index)
        check_one_model(self.queries, info.dimension, info.made_by)

    def run(self, part: Part = Part()) -> bool:  # noqa: B008
        """Search this part of the grid; whether the file stands. A file of another search is a SearchIndexError."""
        if not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._search(self._pieces.missing(part))
                if not self._pieces.whole:
                    return False
                self._join()
            except OSError as error:
                if not self.path.exists():  # otherwise another part has joined the pieces meanwhile, and removed them
                    raise SearchIndexError(
                        f"{self.path}: cannot be written ({error}); what was found is kept, run again"
                    ) from error
        if json.loads(pq.read_schema(self.path).metadata[b"misrank"]) != self._identity:
            raise SearchIndexError(f"{self.path}: holds the neighbours of another search; remove it or choose another file")
        return True

    def recall(self, vectors: Vectors) -> float:
        """Recall of the k nearest against exact search, of a sample of the queries. `vectors` are those of the index."""
        info = read_info(self.index)
        if info.changes or info.vectors != vectors.digest:
            raise SearchIndexError(f"{self.index}: was not built from these vectors, or was changed since; recall would be wrong")
        size = min(SAMPLE, len(self.queries))
        rows = self.queries.rows[np.sort(np.random.default_rng(0).choice(len(self.queries), size, replace=False))]
        _, found = read_index(self.index, self.parameters, self.device).search(rows, self.k)
        return recall(found, exact_search(vectors, rows, self.k)[1])

    @cached_property
    def _identity(self) -> dict[str, Any]:
        info = asdict(read_info(self.index))
        identity = {"queries": self.queries.digest, "index": info, "k": self.k, "parameters": self.parameters}
        plain: dict[str, Any] = json.loads(json.dumps(identity))
        return plain

    @cached_property
    def _counts(self) -> list[int]:
        return [shard.count for shard in read_info(self.index).shards]

    @cached_property
    def _pieces(self) -> Pieces:
        count = -(-len(self.queries) // BLOCK) * len(self._counts)
        return Pieces(self.path.with_name(f".{self.path.name}.pieces"), count, self._identity)

    def _search(self, missing: list[int]) -> None:
        """Piece b * S + s is block b of the queries in shard s of S; shard after shard, so that each is opened once."""
        shards = len(self._counts)
        ordered = sorted(missing, key=lambda piece: (piece % shards, piece))
        steps = progress(ordered, "searching blocks of queries", len(missing))
        for shard, numbers in groupby(steps, lambda piece: piece % shards):
            index = read_index(self.index, self.parameters, self.device, slice(shard, shard + 1))
            for number in numbers:
                self._search_piece(index, number, number // shards * BLOCK)

    def _search_piece(self, index: Index, number: int, start: int) -> None:
        self.supervisor.beat()
        found = index.search(self.queries.rows[start : start + BLOCK], self.k)
        self.supervisor.check()
        with self._pieces.writing(number) as aside, aside.open("wb") as file:
            for part in found:
                np.save(file, part, allow_pickle=False)
        self.supervisor.saved(self._pieces.count - len(self._pieces.missing()))

    def _join(self) -> None:
        aside = self._pieces.folder / f"joined.{os.uname().nodename}.{os.getpid()}"
        ids, schema = read_index(self.index).ids, SCHEMA.with_metadata({"misrank": json.dumps(self._identity)})
        with pq.ParquetWriter(aside, schema) as writer:
            for start, scores, places in self._blocks():
                there = places >= 0
                offsets = pa.array(np.concatenate([[0], there.sum(1).cumsum()]), pa.int32())
                items = pa.ListArray.from_arrays(offsets, ids.taken(places[there]).cast(pa.string()))
                best = pa.ListArray.from_arrays(offsets, pa.array(scores[there], pa.float32()))
                queries = pa.array(self.queries.ids[start : start + len(places)], pa.string())
                writer.write_table(pa.table([queries, items, best], schema))
        with aside.open("rb") as written:
            os.fsync(written.fileno())
        aside.replace(self.path)
        self._pieces.remove()

    def _blocks(self) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """(first query, scores, places in the whole index) of each block, the best of all shards."""
        starts = np.cumsum([0, *self._counts])
        for first in range(0, self._pieces.count, len(self._counts)):
            found = []
            for shard, start in enumerate(starts[:-1]):
                scores, places = _read_piece(self._pieces.path(first + shard))
                found.append((scores, np.where(places < 0, -1, places + start)))
            yield first // len(self._counts) * BLOCK, *merged(found, "ip")  # scores, higher is better, by either measure


def _read_piece(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        with path.open("rb") as file:
            return np.load(file, allow_pickle=False), np.load(file, allow_pickle=False)
    except (ValueError, EOFError):
        path.unlink()
        raise SearchIndexError(f"{path}: was damaged after it was written and is removed; run again") from None
