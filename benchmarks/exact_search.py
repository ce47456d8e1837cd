"""Exact search of every vector in the collection itself, at the size of Stanford Online Products, against bare faiss, and its memory.

    python benchmarks/exact_search.py
    python benchmarks/exact_search.py --count 10000 --dimension 256

Synthetic unit vectors, as a vectors folder and a Flat index folder. Both searches take blocks of 4,096 queries in turn, so that what else
the machine does meets both alike; counted is processor time.

bare faiss: IndexFlatIP over an array in memory.

index folder: ranking.index, mapped; places, scores and their order are checked to be the same.

Memory is of a process of its own that searches all and writes the neighbours' ids to a file; the files are dropped from the system's cache
before, so it opens them cold. Exits with 1 if the index takes more than 1.1 times as long, if the peak is above the vectors' size and
1 GiB, or if opening copies the vectors.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import tyro

from ranking.index import read_index
from ranking.index_build import build_index
from ranking.neighbours import BLOCK, NeighbourSearch
from ranking.vectors import Origin, Vectors, in_memory, read_vectors, write_vectors

MOST_TIME = 1.1
MOST_MEMORY = 1 << 30
"""Beside the vectors' own size."""
MOST_COPIED = 0.1
"""Part of the vectors' size by which memory of its own may grow when the index is opened and a query searched."""


@dataclass(frozen=True)
class Config:
    count: int = 60_502
    """Vectors, all of them also queries; as many as the test images of Stanford Online Products."""
    dimension: int = 1024
    top: int = 1001
    """Neighbours of each."""


@dataclass(frozen=True)
class Memory:
    """Of a process that searched from cold."""

    open_seconds: float
    copied_bytes: int
    """Growth of the process's own memory by opening the index and searching one query."""
    peak_bytes: int
    seconds: float
    """To search all and write the file."""


def run(config: Config) -> bool:
    """Measure, print, and say whether the limits hold."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        vectors = made_up(folder / "vectors", config)
        build_index(folder / "index", vectors)
        size = vectors.rows.nbytes
        print(
            f"{len(vectors):,} synthetic vectors of {vectors.dimension}, {size / 1e6:,.0f} MB, top {config.top:,}; {faiss.omp_get_max_threads()} threads"
        )
        bare, ours, same = searched(folder, vectors, config.top)
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, context) as pool:
            memory = pool.submit(from_cold, folder, config.top).result()
    print(f"bare faiss                {bare:8.1f} CPU s")
    print(f"index folder              {ours:8.1f} CPU s, {ours / bare:.3f} of bare faiss; the same neighbours: {same:.6f}")
    print(
        f"opened cold in            {memory.open_seconds * 1e3:8.1f} ms; memory of its own after a query: {memory.copied_bytes / 1e6:,.0f} MB more"
    )
    print(
        f"searched and written in   {memory.seconds:8.1f} s; peak memory {memory.peak_bytes / 1e6:,.0f} MB, the vectors and {(memory.peak_bytes - size) / 2**20:,.0f} MiB"
    )
    fast, small = ours <= MOST_TIME * bare, memory.peak_bytes <= size + MOST_MEMORY
    return fast and small and memory.copied_bytes <= MOST_COPIED * size


def made_up(folder: Path, config: Config) -> Vectors:
    """Unit vectors, Gaussian before that."""
    rows = np.random.default_rng(0).standard_normal((config.count, config.dimension), np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    ids = [f"item-{number}" for number in range(config.count)]
    vectors = write_vectors(folder, in_memory(rows), ids, Origin("synthetic", "", "synthetic", "all"))
    assert vectors is not None  # there are no other parts
    return vectors


def searched(folder: Path, vectors: Vectors, top: int) -> tuple[float, float, float]:
    """CPU seconds of bare faiss and of the index folder, and the share of neighbours that are the same."""
    index, rows = read_index(folder / "index"), np.array(vectors.rows)
    bare = faiss.IndexFlatIP(vectors.dimension)
    bare.add(rows)
    seconds, same = np.zeros(2), 0
    for start in range(0, len(rows), BLOCK):
        some, found = rows[start : start + BLOCK], []
        for number, search in enumerate((bare.search, index.search)):
            began = time.process_time()
            found.append(search(some, top))
            seconds[number] += time.process_time() - began
        same += int((found[0][1] == found[1][1]).sum())
    return float(seconds[0]), float(seconds[1]), same / (len(rows) * top)


def from_cold(folder: Path, top: int) -> Memory:
    """To be run in a process of its own."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    before, began = _memory("RssAnon"), time.perf_counter()
    index = read_index(folder / "index")
    opened = time.perf_counter() - began
    queries = read_vectors(folder / "vectors")
    index.search(queries.rows[:1], top)
    copied = _memory("RssAnon") - before
    NeighbourSearch(folder / "neighbours.parquet", queries, folder / "index", top).run()
    return Memory(opened, copied, _memory("VmHWM"), time.perf_counter() - began)


def _memory(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    sys.exit(not run(tyro.cli(Config, description=__doc__)))
