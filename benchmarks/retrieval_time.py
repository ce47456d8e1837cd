"""Retrieval by index type and dimension: time on the CPU and, where there is one, on a GPU, recall against exact search, and size.

    python benchmarks/retrieval_time.py --folder retrieval_time
    python benchmarks/retrieval_time.py --count 1000000 --dimensions 96 --types Flat IVF4096,PQ48

Synthetic unit vectors: points of a space of 32 dimensions, seen through a random map into more, with noise; the queries are drawn alike.
(Vectors that are noise alone have no structure that an index could use; those of a model lie between.) Every type is searched with the
parameters that ranking.index takes by itself: a sixteenth of the lists, efSearch=128.

Writes table.md, figures.json and plot.png to the folder. Seconds are processor time on the CPU and time on the clock on a GPU, and both
are of a second search; the CPU's threads are those of OMP_NUM_THREADS.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import faiss
import numpy as np
import tyro
from matplotlib.figure import Figure

from ranking.index import exact_search, read_index, recall
from ranking.index_build import build_index
from ranking.vectors import Origin, Vectors, write_vectors

LATENT = 32
NOISE = 0.3
"""Length of the noise, of a vector of length 1."""


@dataclass(frozen=True)
class Config:
    folder: Path = Path("retrieval_time")
    """Where the table and the plot go."""
    count: int = 65_536
    """Vectors."""
    queries: int = 1000
    top: int = 10
    """Neighbours of a query."""
    dimensions: tuple[int, ...] = (128, 256, 512, 1024)
    types: tuple[str, ...] = ("Flat", "SQfp16", "SQ8", "HNSW32", "IVF1024,Flat", "IVF1024,SQ8", "IVF1024,PQ32")
    """faiss's factory strings."""


@dataclass(frozen=True)
class Row:
    """One index, measured."""

    type: str
    dimension: int
    build_seconds: float
    bytes_a_vector: float
    recall: float
    cpu_ms: float
    """Of one query."""
    gpu_ms: float | None


def run(config: Config) -> list[Row]:
    """Measure, print and write."""
    rows = []
    for dimension in config.dimensions:
        with TemporaryDirectory() as name:
            vectors, queries = made_up(Path(name) / "vectors", config.count, config.queries, dimension)
            truth = exact_search(vectors, queries, config.top)[1]
            for number, kind in enumerate(config.types):
                rows.append(measured(Path(name) / str(number), vectors, queries, kind, truth))
                print(rows[-1], flush=True)
    config.folder.mkdir(parents=True, exist_ok=True)
    (config.folder / "figures.json").write_text(
        json.dumps({"config": asdict(config), "rows": [asdict(row) for row in rows]}, indent=1, default=str)
    )
    (config.folder / "table.md").write_text(as_table(rows, config))
    plot(rows, config).savefig(config.folder / "plot.png", dpi=150, facecolor="white")
    print(as_table(rows, config))
    return rows


def made_up(folder: Path, count: int, queries: int, dimension: int) -> tuple[Vectors, np.ndarray]:
    """A vectors folder and (queries, dimension) more of the kind."""
    random = np.random.default_rng(0)
    seen = random.standard_normal((LATENT, dimension), np.float32)

    def some(size: int) -> np.ndarray:
        rows = random.standard_normal((size, LATENT), np.float32) @ seen
        noise = random.standard_normal(rows.shape, np.float32)
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True) + NOISE * noise / np.sqrt(dimension)
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)

    ids = [str(number) for number in range(count)]
    vectors = write_vectors(
        folder, lambda ranges: (some(len(one)) for one in ranges), ids, Origin("synthetic", "", "synthetic", "all")
    )
    assert vectors is not None  # there are no other parts
    return vectors, some(queries)


def measured(folder: Path, vectors: Vectors, queries: np.ndarray, kind: str, truth: np.ndarray) -> Row:
    began = time.process_time()
    build_index(folder, vectors, kind)
    built = time.process_time() - began
    index = read_index(folder)
    index.search(queries, truth.shape[1])  # reads the mapped files
    began = time.process_time()
    _, places = index.search(queries, truth.shape[1])
    milliseconds = 1e3 * (time.process_time() - began) / len(queries)
    size = sum(path.stat().st_size for path in folder.rglob("index.faiss"))
    return Row(
        kind,
        vectors.dimension,
        built,
        size / len(vectors),
        recall(places, truth),
        milliseconds,
        on_gpu(folder, queries, truth.shape[1]),
    )


def on_gpu(folder: Path, queries: np.ndarray, top: int) -> float | None:
    """Milliseconds of a query; None without a GPU, or for a type that faiss has for the CPU alone."""
    if not faiss.get_num_gpus():
        return None
    index = read_index(folder, device=0)
    if not index.shards[0].on_gpu:
        return None
    index.search(queries, top)
    began = time.perf_counter()
    index.search(queries, top)
    return 1e3 * (time.perf_counter() - began) / len(queries)


def as_table(rows: Sequence[Row], config: Config) -> str:
    """As Markdown."""
    lines = [
        f"{config.count:,} synthetic vectors, {config.queries:,} queries, top {config.top}, {faiss.omp_get_max_threads()} CPU threads\n",
        f"| type | dimension | build, CPU s | bytes a vector | recall@{config.top} | CPU ms a query | GPU ms a query |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        gpu = "-" if row.gpu_ms is None else f"{row.gpu_ms:.3f}"
        lines.append(
            f"| {row.type} | {row.dimension} | {row.build_seconds:.1f} | {row.bytes_a_vector:,.0f} | {row.recall:.3f} | {row.cpu_ms:.3f} | {gpu} |"
        )
    return "\n".join(lines) + "\n"


def plot(rows: Sequence[Row], config: Config) -> Figure:
    """Time by dimension, a line a type, on the CPU and on a GPU where there is one; and recall by time."""
    places = [("cpu_ms", "CPU")] + ([("gpu_ms", "GPU")] if any(row.gpu_ms for row in rows) else [])
    figure = Figure(figsize=(5 * (len(places) + 1), 4.2), layout="constrained")
    *by_dimension, by_time = figure.subplots(1, len(places) + 1)
    for (field, place), axes in zip(places, by_dimension, strict=True):
        for kind in config.types:
            points = [(row.dimension, getattr(row, field)) for row in rows if row.type == kind and getattr(row, field)]
            axes.plot(*zip(*points, strict=True), marker="o", label=kind) if points else None
        axes.set(xscale="log", yscale="log", xlabel="dimension", ylabel=f"{place} ms a query")
        axes.set_xticks(config.dimensions, [str(dimension) for dimension in config.dimensions])
        axes.minorticks_off()
    for kind in config.types:
        of_kind = [row for row in rows if row.type == kind]
        by_time.plot([row.cpu_ms for row in of_kind], [row.recall for row in of_kind], "o", label=kind)
    by_time.set(xscale="log", xlabel="CPU ms a query", ylabel=f"recall@{config.top}", ylim=(0, 1.03))
    by_dimension[0].legend(fontsize=8)
    figure.suptitle(f"{config.count:,} synthetic vectors", fontsize=10)
    return figure


if __name__ == "__main__":
    run(tyro.cli(Config, description=__doc__))
