"""Small made-up collections for the tests of indexes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ranking.index import Index, read_index
from ranking.index_build import build_index
from ranking.vectors import Measure, Origin, Vectors

COUNT, WIDTH, TOP = 600, 16, 7
RANDOM = np.random.default_rng(0)
ROWS = RANDOM.standard_normal((COUNT, WIDTH), np.float32)
QUERIES = RANDOM.standard_normal((40, WIDTH), np.float32)
TYPES = ("Flat", "SQfp16", "SQ8", "HNSW16", "IVF8,Flat", "PCA12,IVF8,Flat", "IVF8,PQ8x4")
MERGED = tuple(kind for kind in TYPES if kind != "HNSW16")


def all_of(kind: str) -> str:
    """Parameters by which a type searches the whole index."""
    return "nprobe=8" if "IVF" in kind else "efSearch=600" if "HNSW" in kind else ""


def origin(measure: Measure = "ip") -> Origin:
    return Origin("tiny", "none", "made-up", "test", measure=measure, weights="w")


def collection(measure: Measure = "ip", first: int = 0, count: int = COUNT, seed: int | None = None) -> Vectors:
    """Items `item-<n>`; other vectors for them by another seed."""
    rows = (
        ROWS[first : first + count] if seed is None else np.random.default_rng(seed).standard_normal((count, WIDTH), np.float32)
    )
    return Vectors([f"item-{first + n}" for n in range(count)], rows, origin(measure), f"digest-{measure}-{first}-{count}-{seed}")


def built(folder: Path, kind: str = "Flat", measure: Measure = "ip", shards: int = 1) -> Index:
    build_index(folder, collection(measure), kind, shards)
    return read_index(folder, all_of(kind))


def scores(rows: np.ndarray, measure: Measure) -> np.ndarray:
    """(queries, rows) float64: inner products, or minus squared distances."""
    queries, rows = QUERIES.astype(float), rows.astype(float)
    return queries @ rows.T if measure == "ip" else -((queries[:, None] - rows[None]) ** 2).sum(-1)


def best(matrix: np.ndarray, k: int = TOP) -> np.ndarray:
    return np.argsort(-matrix, axis=1, kind="stable")[:, :k]


def names(index: Index, k: int = TOP) -> list[list[str]]:
    """Ids that the index finds for each query."""
    _, places = index.search(QUERIES, k)
    return [index.ids.take(row[row >= 0]) for row in places]
