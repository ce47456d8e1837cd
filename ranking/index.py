"""The index folder: vectors that faiss can search, their ids, and where they come from.

`index.json` is the table of contents; `trained.faiss` is the index before anything was added; each folder in `shards/` holds
`index.faiss`, `ids.arrow` and, where items were taken out, `removed-<n>.npy` (their places). Files are never changed: what changes an
index writes new ones and then replaces `index.json`, so a reader sees the index before or after, never between. All is mapped, not read.

The type is a faiss factory string: Flat (exact), SQfp16 (exact over halves), SQ8, HNSW32, "IVF1024,Flat", "IVF4096,PQ32",
"OPQ32_128,IVF65536_HNSW32,PQ32". How much of an approximate index a search visits is set in faiss's words too: nprobe=32, efSearch=128.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa

from ranking.matrix import RankingError, written_aside
from ranking.vectors import Ids, Measure, Origin, Vectors, read_ids

SCHEMA = 1
ROWS_AT_ONCE = 1 << 14
"""Rows decoded, added or compared at once."""
METRICS: dict[Measure, int] = {"ip": faiss.METRIC_INNER_PRODUCT, "l2": faiss.METRIC_L2}
MOST_ON_GPU = 2048
"""Neighbours that faiss finds on a GPU; of more the CPU must."""
GPU_MEMORY = 512 << 20
"""Bytes that faiss may take on a GPU for its own; it would take 1.5 GB."""


class SearchIndexError(RankingError):
    """An index that is missing, damaged or cannot do what was asked; the message names the folder and what to do."""


@dataclass(frozen=True)
class ShardInfo:
    """One shard in the table of contents."""

    name: str
    count: int
    removed: str = ""
    """File of the places that were taken out; empty if none."""


@dataclass(frozen=True)
class IndexInfo:
    """The table of contents."""

    type: str
    """faiss factory string."""
    dimension: int
    made_by: Origin
    vectors: str
    """Digest of the vectors it was built from (Vectors.digest)."""
    shards: tuple[ShardInfo, ...] = ()
    changes: int = 0
    """How often it was changed since: names of new files are made of it."""


def write_info(folder: Path, info: IndexInfo) -> None:
    with written_aside(folder / "index.json") as aside:
        aside.write_text(json.dumps({"schema": SCHEMA, **asdict(info)}, indent=1) + "\n")


def read_info(folder: Path) -> IndexInfo:
    """SearchIndexError if there is no whole index."""
    if not folder.exists():
        unfinished = folder.with_name(f".{folder.name}.pieces").is_dir()
        raise SearchIndexError(f"{folder}: no index here" + ("; it is not finished, run its job again" if unfinished else ""))
    try:
        info = json.loads((folder / "index.json").read_text())
        if info.pop("schema") != SCHEMA:
            raise SearchIndexError(f"{folder}: made by another version, this one reads schema {SCHEMA}; build it again")
        shards = tuple(ShardInfo(**shard) for shard in info.pop("shards"))
        return IndexInfo(**info | {"made_by": Origin(**info["made_by"]), "shards": shards})
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, SearchIndexError):
            raise
        raise SearchIndexError(f"{folder}: not a whole index folder ({type(error).__name__}: {error}); build it again") from None


def read_faiss(path: Path, flags: int = 0) -> Any:
    """A faiss index; SearchIndexError if the file is missing or damaged."""
    try:
        return faiss.read_index(str(path), flags)
    except (RuntimeError, MemoryError) as error:
        raise SearchIndexError(f"{path}: cannot be read ({str(error).splitlines()[0][-200:]}); build the index again") from None


class Shard:
    """One opened shard: a mapped faiss index and what was taken out of it."""

    def __init__(self, folder: Path, info: ShardInfo, dimension: int, parameters: str, device: int | None) -> None:
        self.index = read_faiss(folder / "index.faiss", faiss.IO_FLAG_MMAP_IFC)
        self.ids = read_ids(folder / "ids.arrow")
        self.removed = np.load(folder / info.removed, allow_pickle=False) if info.removed else np.zeros(0, np.int64)
        found = self.index.ntotal, len(self.ids), self.index.d
        if found != (info.count, info.count, dimension):
            raise SearchIndexError(
                f"{folder}: {found} vectors, ids and dimensions, expected {info.count} and {dimension}; build it again"
            )
        _set(self.index, parameters or _default(self.index), folder)  # before it is copied to a GPU, with what is set
        self.on_gpu = None if device is None or len(self.removed) else _on_gpu(self.index, device)

    def search(self, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """faiss's own values and places, (Q, k) each."""
        if self.on_gpu is not None and k <= MOST_ON_GPU:
            found: tuple[np.ndarray, np.ndarray] = self.on_gpu.search(rows, k)
        else:
            # pytorch-metric-learning puts a search that takes no parameters in the place of faiss's, which then has this name
            search = getattr(self.index, "search_numpy", self.index.search)
            found = search(rows, k, params=self._parameters if len(self.removed) else None)
        return found

    @cached_property
    def _parameters(self) -> Any:
        """What leaves out the removed places. faiss then takes no setting from the index: those are repeated."""
        bits = np.full(-(-self.index.ntotal // 8) * 8, True)
        bits[self.removed] = False
        self._selector = faiss.IDSelectorBitmap(np.packbits(bits, bitorder="little"))
        inner, ivf = _inner(self.index), faiss.try_extract_index_ivf(self.index)
        if ivf is not None:
            parameters = faiss.SearchParametersIVF(sel=self._selector, nprobe=ivf.nprobe, max_codes=ivf.max_codes)
        elif isinstance(inner, faiss.IndexHNSW):
            parameters = faiss.SearchParametersHNSW(sel=self._selector, efSearch=inner.hnsw.efSearch)
        else:
            parameters = faiss.SearchParameters(sel=self._selector)
        return parameters if inner is self.index else faiss.SearchParametersPreTransform(index_params=parameters)


def _inner(index: Any) -> Any:
    """The index behind OPQ or PCA."""
    return faiss.downcast_index(index.index) if isinstance(index, faiss.IndexPreTransform) else index


def _on_gpu(index: Any, device: int) -> Any:
    """The index on a GPU; None for a type that faiss has for the CPU alone."""
    resources = faiss.StandardGpuResources()
    resources.setTempMemory(GPU_MEMORY)
    try:
        return faiss.index_cpu_to_gpu(resources, device, index)
    except RuntimeError as error:
        print(f"searching on the CPU: faiss has no such index on a GPU ({str(error).splitlines()[0][-120:]})", flush=True)
        return None


@dataclass(frozen=True)
class Index:
    """An opened index. Places count over all shards, those of removed items too."""

    folder: Path
    info: IndexInfo
    shards: tuple[Shard, ...]
    ids: Ids
    """Id of every place."""

    def __len__(self) -> int:
        """Items that can be found."""
        return sum(shard.index.ntotal - len(shard.removed) for shard in self.shards)

    def search(self, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k nearest items of each row: (Q, k) float32 scores, best first, and (Q, k) int64 places.

        A score is the inner product, or minus the squared Euclidean distance. Of equal ones any may come first. Where fewer than k
        are found, the rest have place -1 and score -inf.
        """
        rows = np.ascontiguousarray(rows, np.float32)
        if rows.ndim != 2 or rows.shape[1] != self.info.dimension or k < 1:
            raise SearchIndexError(
                f"{self.folder}: holds vectors of {self.info.dimension}; asked for {k} neighbours of {rows.shape}"
            )
        if not np.isfinite(rows).all():
            raise SearchIndexError(f"query {int(np.argmin(np.isfinite(rows).all(1)))} of {len(rows)} is not finite")
        found, start = [], 0
        for shard in self.shards:
            values, places = shard.search(rows, k)
            found.append((values, np.where(places < 0, -1, places + start)))
            start += shard.index.ntotal
        values, places = merged(found, self.info.made_by.measure)
        return scores_of(values, places, self.info.made_by.measure), places


def merged(found: list[tuple[np.ndarray, np.ndarray]], measure: Measure) -> tuple[np.ndarray, np.ndarray]:
    """faiss's values and places of several shards, (Q, k) each -> the k best of all."""
    if len(found) == 1:
        return found[0]
    values, places = (np.stack(part) for part in zip(*found, strict=True))
    best: tuple[np.ndarray, np.ndarray] = faiss.merge_knn_results(values, places, keep_max=measure == "ip")
    return best


def scores_of(values: np.ndarray, places: np.ndarray, measure: Measure) -> np.ndarray:
    """faiss's values as scores, higher is better, -inf where nothing was found."""
    return np.where(places < 0, np.float32(-np.inf), values if measure == "ip" else -values)


def read_index(folder: Path | str, parameters: str = "", device: int | None = None, shards: slice = slice(None)) -> Index:
    """Open an index, or some of its shards: nothing is read into memory before it is searched.

    `parameters` such as "nprobe=32" or "efSearch=128"; by default a sixteenth of the lists, or efSearch=128. `device` is a GPU's number;
    None is the CPU.
    """
    folder = Path(folder)
    info = read_info(folder)
    try:
        opened = tuple(
            Shard(folder / "shards" / one.name, one, info.dimension, parameters, device) for one in info.shards[shards]
        )
    except OSError as error:
        raise SearchIndexError(f"{folder}: not a whole index folder ({error}); build it again") from None
    chunks = [chunk for shard in opened for chunk in shard.ids.chunks]
    return Index(folder, info, opened, Ids(pa.chunked_array(chunks, pa.large_string())))


def _default(index: Any) -> str:
    """faiss's own defaults (nprobe=1, efSearch=16) miss most."""
    ivf = faiss.try_extract_index_ivf(index)
    if ivf is not None:
        return f"nprobe={max(1, ivf.nlist // 16)}"
    return "efSearch=128" if isinstance(_inner(index), faiss.IndexHNSW) else ""


def _set(index: Any, parameters: str, folder: Path) -> None:
    try:
        faiss.ParameterSpace().set_index_parameters(index, parameters)
    except (RuntimeError, ValueError):
        raise SearchIndexError(
            f"{folder}: this type of index has no such parameters: {parameters!r}; nprobe=32 is for IVF, efSearch=128 for HNSW"
        ) from None


def exact_search(vectors: Vectors, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """As Index.search, over the vectors themselves, block by block: no index, and no memory but for a block."""
    rows, measure = np.ascontiguousarray(rows, np.float32), vectors.made_by.measure
    best: tuple[np.ndarray, np.ndarray] | None = None
    for start, block in vectors.blocks(max(ROWS_AT_ONCE, k)):
        values, places = faiss.knn(rows, block, min(k, len(block)), metric=METRICS[measure])
        wider = ((0, 0), (0, k - values.shape[1]))
        found = (
            np.pad(values, wider, constant_values=-np.inf if measure == "ip" else np.inf),
            np.pad(places + start, wider, constant_values=-1),
        )
        best = found if best is None else merged([best, found], measure)
    assert best is not None  # vectors hold at least one row
    return scores_of(*best, measure), best[1]


def recall(found: np.ndarray, exact: np.ndarray) -> float:
    """Share of the exact neighbours that were found: (Q, k) places each; -1 is none."""
    hits = [len(np.intersect1d(mine[mine >= 0], true[true >= 0])) for mine, true in zip(found, exact, strict=True)]
    return sum(hits) / max(int((exact >= 0).sum()), 1)
