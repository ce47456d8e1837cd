"""The vectors folder: one vector an item, its ids, and where they come from.

`vectors.npy` (N, D) float32 or float16; `ids.arrow`, an Arrow file with the column `id`; `vectors.json`: schema, count, dimension,
type, digest (sha256 over rows and ids) and the origin. All of it is memory-mapped: opening costs nothing, and rows are read when they
are looked at. `ranking.encoding.vectors_of` makes such a folder with a model; faiss and torch are not needed to read it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args, overload

import numpy as np
import pyarrow as pa

from corpora.pieces import Part, Pieces
from corpora.store import check_unique
from ranking.matrix import RankingError

SCHEMA = 1
PIECE = 1024
"""Rows that are encoded and written at once: what a killed run loses."""
AT_ONCE = 1 << 16
"""Ids turned into Python strings at once."""

Measure = Literal["ip", "l2"]
"""How two vectors are compared: inner product, higher is nearer, or Euclidean distance, lower is nearer."""
VectorType = Literal["float32", "float16"]
Kind = Literal["images", "texts"]
Encode = Callable[[Sequence[range]], Iterable[np.ndarray]]
"""Given ranges of rows, gives the vectors of each, in that order, (len(range), D); asked only for what is not there yet."""


class VectorsError(RankingError):
    """Vectors that are missing, damaged or not those that were asked for; the message names the folder and what to do."""


@dataclass(frozen=True)
class Origin:
    """Where vectors come from."""

    model: str
    checkpoint: str
    corpus: str
    split: str
    kind: Kind = "images"
    measure: Measure = "ip"
    digest: str = ""
    """corpora.corpus.Split.digest of the split that was encoded."""
    weights: str = ""
    """First digits of the sha256 over the model's weights."""
    precision: str = "no"
    revision: str = ""
    """git revision of the code."""

    def __post_init__(self) -> None:
        for name, kinds in (("measure", Measure), ("kind", Kind)):
            if getattr(self, name) not in get_args(kinds):
                raise VectorsError(f"{name} {getattr(self, name)!r}: must be one of {', '.join(get_args(kinds))}")


class Ids(Sequence[str]):
    """Ids in a memory-mapped Arrow column: millions cost no memory until they are asked for."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._column = column

    def __len__(self) -> int:
        return len(self._column)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            start, stop, step = place.indices(len(self))
            return self.take(np.arange(start, stop, step))
        return self._column[place].as_py()

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), AT_ONCE):
            yield from self._column.slice(start, AT_ONCE).to_pylist()

    @property
    def chunks(self) -> list[pa.Array]:
        """The Arrow arrays that the column is made of."""
        return self._column.chunks

    def take(self, places: np.ndarray) -> list[str]:
        """Ids of some places, (P,) ints: much faster than one by one."""
        return self.taken(places).to_pylist()

    def taken(self, places: np.ndarray) -> pa.Array:
        """As `take`, as an Arrow array: a tenth of the memory of Python's strings."""
        return self._column.take(pa.array(places.reshape(-1))).combine_chunks()


@dataclass(frozen=True)
class Vectors:
    """One vector an item. Of a folder `rows` are memory-mapped: read some at a time, and copy none."""

    ids: Sequence[str]
    rows: np.ndarray
    """(N, D) float32 or float16."""
    made_by: Origin
    digest: str = ""
    """sha256 over rows and ids; an index keeps it. Empty for vectors in memory."""

    def __post_init__(self) -> None:
        if self.rows.ndim != 2 or str(self.rows.dtype) not in get_args(VectorType) or not self.rows.size:
            raise VectorsError(f"vectors {self.rows.dtype} {self.rows.shape}: must be rows of float32 or float16, at least one")
        if len(self.ids) != len(self.rows):
            raise VectorsError(f"{len(self.ids)} ids for {len(self.rows)} vectors")
        if not isinstance(self.ids, Ids):  # those were checked when they were written
            check_unique(self.ids, "vector", "vectors")

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def dimension(self) -> int:
        return self.rows.shape[1]

    def blocks(self, size: int = PIECE) -> Iterator[tuple[int, np.ndarray]]:
        """(first row, (size, D) float32) over all rows."""
        for start in range(0, len(self), size):
            yield start, np.asarray(self.rows[start : start + size], np.float32)


def check_one_model(queries: Vectors, dimension: int, made_by: Origin) -> None:
    """VectorsError unless the queries and items of this dimension and origin are vectors of one model: a score would mean nothing."""
    here = queries.made_by
    pairs = {name: (getattr(here, name), getattr(made_by, name)) for name in ("model", "weights", "measure")}
    for name, (own, others) in {"dimension": (queries.dimension, dimension), **pairs}.items():
        if own != others:
            raise VectorsError(
                f"queries have {name} {own} and items {others}: their vectors cannot be compared; encode both with one checkpoint"
            )


def in_memory(rows: np.ndarray) -> Encode:
    """For vectors that are there already, made up or read elsewhere."""
    return lambda ranges: (rows[some.start : some.stop] for some in ranges)


def write_vectors(
    folder: Path,
    encode: Encode,
    ids: Sequence[str],
    made_by: Origin,
    dtype: VectorType = "float32",
    part: Part = Part(),  # noqa: B008
) -> Vectors | None:
    """Encode what is not there yet and write the folder; None if other parts are still to come.

    The work is cut into pieces of PIECE rows, each written whole beside the folder, in `.<folder>.pieces`: a killed run goes on where
    it was, and processes and jobs share the work, each its `part`. What ends last joins the pieces. If the same vectors stand there
    already they are returned; others are a VectorsError, as is a value that is not finite.
    """
    folder = Path(folder)
    if folder.exists():
        return _standing(folder, ids, made_by, dtype)
    if not len(ids):
        raise VectorsError(f"{folder}: nothing to encode")
    check_unique(ids, "vector", str(folder))
    identity = {**asdict(made_by), "revision": "", "dtype": dtype, "ids": _digest_of_ids(ids)}
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        pieces = Pieces(folder.with_name(f".{folder.name}.pieces"), -(-len(ids) // PIECE), identity)
        _encode_missing(pieces, encode, ids, np.dtype(dtype), part)
        if not pieces.whole:
            return None
        _join(folder, pieces, ids, made_by)
    except OSError as error:
        if not folder.exists():  # otherwise another part has joined the pieces meanwhile, and removed them
            raise VectorsError(f"{folder}: cannot be written ({error}); what was encoded is kept beside it, run again") from error
    return _standing(folder, ids, made_by, dtype)


def _encode_missing(pieces: Pieces, encode: Encode, ids: Sequence[str], dtype: np.dtype, part: Part) -> None:
    missing = pieces.missing(part)
    ranges = [range(number * PIECE, min((number + 1) * PIECE, len(ids))) for number in missing]
    for number, some, rows in zip(missing, ranges, encode(ranges), strict=True):
        if rows.ndim != 2 or len(rows) != len(some):
            raise VectorsError(f"{pieces.folder}: {rows.shape} came for {len(some)} vectors")
        with np.errstate(over="ignore"):  # what float16 cannot hold becomes infinite and is refused
            rows = np.ascontiguousarray(rows, dtype)
        bad = np.flatnonzero(~np.isfinite(rows).all(1))
        if len(bad):
            raise VectorsError(
                f"the vector of {ids[some[int(bad[0])]]!r} is not finite in {dtype}; the model or its precision is at fault"
            )
        with pieces.writing(number) as aside, aside.open("wb") as file:
            np.save(file, rows, allow_pickle=False)


def _join(folder: Path, pieces: Pieces, ids: Sequence[str], made_by: Origin) -> None:
    aside = folder.with_name(f".{folder.name}.{os.uname().nodename}.{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        info = _write_rows(aside / "vectors.npy", pieces, len(ids), hashlib.sha256(_digest_of_ids(ids).encode()))
        write_ids(aside / "ids.arrow", ids)
        (aside / "vectors.json").write_text(json.dumps({"schema": SCHEMA, **info, "made_by": asdict(made_by)}, indent=1) + "\n")
        aside.rename(folder)  # an OSError if another part was faster
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    pieces.remove()


def _write_rows(path: Path, pieces: Pieces, count: int, digest: Any) -> dict[str, Any]:
    """Join the pieces to one array; a plain file, as a full disk would kill the writer of a mapped one."""
    with path.open("wb") as file:
        header: dict[str, Any] = {}
        for number in range(pieces.count):
            rows = _piece(pieces.path(number))
            if not header:
                header = {"descr": rows.dtype.str, "fortran_order": False, "shape": (count, rows.shape[1])}
                np.lib.format.write_array_header_1_0(file, header)
            if (rows.dtype.str, rows.shape[1]) != (header["descr"], header["shape"][1]):
                raise VectorsError(f"{pieces.path(number)}: {rows.dtype} {rows.shape} beside {header}; remove {pieces.folder}")
            file.write(rows.data)
            digest.update(rows.data)
        file.flush()
        os.fsync(file.fileno())
    return {"count": count, "dimension": rows.shape[1], "type": str(rows.dtype), "digest": digest.hexdigest()}


def _piece(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError):
        path.unlink(missing_ok=True)
        raise VectorsError(f"{path}: was damaged after it was written and is removed; run again") from None


def write_ids(path: Path, ids: Sequence[str]) -> None:
    """A new Arrow file with the column `id`."""
    table = pa.table({"id": pa.array(ids, pa.large_string())})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def read_ids(path: Path) -> Ids:
    """Of `write_ids`, memory-mapped; VectorsError if the file is missing or damaged."""
    try:
        return Ids(pa.ipc.open_file(pa.memory_map(str(path))).read_all()["id"])
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        raise VectorsError(f"{path}: cannot be read ({error}); make it again") from None


def read_vectors(folder: Path | str) -> Vectors:
    """Open a vectors folder; a missing, unfinished or damaged one is one clear VectorsError."""
    folder = Path(folder)
    if not folder.exists():
        pieces = folder.with_name(f".{folder.name}.pieces")
        stand = "; it is not finished, run its job again" if pieces.is_dir() else ""
        raise VectorsError(f"{folder}: no vectors here{stand}")
    try:
        info = json.loads((folder / "vectors.json").read_text())
        if info.pop("schema") != SCHEMA:
            raise VectorsError(f"{folder}: made by another version, this one reads schema {SCHEMA}; encode again")
        rows = np.load(folder / "vectors.npy", mmap_mode="r", allow_pickle=False)
        vectors = Vectors(read_ids(folder / "ids.arrow"), rows, Origin(**info["made_by"]), info["digest"])
        found = {"count": len(vectors), "dimension": vectors.dimension, "type": str(rows.dtype)}
        if found != {key: info[key] for key in found}:
            raise VectorsError(f"{folder}: vectors.npy holds {found}, vectors.json says otherwise; encode again")
    except VectorsError:
        raise
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise VectorsError(f"{folder}: not a whole vectors folder ({type(error).__name__}: {error}); encode again") from None
    return vectors


def _standing(folder: Path, ids: Sequence[str], made_by: Origin, dtype: VectorType) -> Vectors:
    """The vectors of the folder, if they are those; VectorsError if they are not."""
    vectors = read_vectors(folder)
    there, here = asdict(vectors.made_by) | {"type": str(vectors.rows.dtype)}, asdict(made_by) | {"type": dtype}
    differ = [key for key in here if here[key] != there[key] and key != "revision"]
    if not differ and _digest_of_ids(vectors.ids) != _digest_of_ids(ids):
        differ = ["ids"]
    if differ:
        raise VectorsError(f"{folder}: holds vectors of another {', '.join(differ)}; remove it or choose another folder")
    return vectors


def _digest_of_ids(ids: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(list(ids)).encode()).hexdigest()
