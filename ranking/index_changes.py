"""Changes of an index without building it again: items are put in, replaced and taken out, and shards merged.

What is put in becomes a new shard, trained as the others are; what is taken out is noted beside its shard, and searches pass over it.
Merging makes one shard of all, without what was taken out.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ranking.index import IndexInfo, SearchIndexError, ShardInfo, read_faiss, read_info, write_info
from ranking.index_build import filled, write_faiss
from ranking.vectors import Vectors, read_ids, write_ids
from training.supervision import Nobody


def put(folder: Path, vectors: Vectors) -> tuple[int, int]:
    """Put items into an index; those whose ids are in it already are replaced. How many are new, and how many replaced.

    The vectors must come from the same model; otherwise SearchIndexError.
    """
    with _alone(folder) as info:
        _require_same_model(folder, info, vectors)
        shards, replaced = _without(folder, info, vectors.ids)
        name = f"{info.changes + 1:06d}-added"
        with _new_shard(folder, name) as aside:
            index = filled(read_faiss(folder / "trained.faiss"), vectors.rows, range(len(vectors)), Nobody())
            write_faiss(index, aside / "index.faiss")
            write_ids(aside / "ids.arrow", list(vectors.ids))
        write_info(folder, replace(info, shards=(*shards, ShardInfo(name, len(vectors))), changes=info.changes + 1))
    return len(vectors) - replaced, replaced


def remove(folder: Path, ids: Sequence[str]) -> int:
    """Take items out of an index; how many. Those taken out before stay out; an id that never was in it is a SearchIndexError."""
    with _alone(folder) as info:
        unknown = set(ids).difference(*(_known(folder, shard, ids) for shard in info.shards))
        if unknown:
            raise SearchIndexError(
                f"{folder}: {len(unknown)} of the {len(ids)} ids are not in this index, the first: {min(unknown)!r}"
            )
        shards, removed = _without(folder, info, ids)
        if removed:
            write_info(folder, replace(info, shards=shards, changes=info.changes + 1))
    return removed


def merge(folder: Path) -> int:
    """Make one shard of all, by faiss's own merge, in memory; how many items it holds. SearchIndexError for a type that faiss cannot merge."""
    with _alone(folder) as info:
        if "HNSW" in info.type.split(",")[-1]:
            raise SearchIndexError(f"{folder}: faiss merges no {info.type}; build it again from its vectors")
        name = f"{info.changes + 1:06d}-merged"
        with _new_shard(folder, name) as aside:
            whole, ids = read_faiss(folder / "trained.faiss"), []
            for shard in info.shards:
                one, kept = _compacted(folder / "shards" / shard.name, shard)
                ivf = faiss.try_extract_index_ivf(whole)
                whole.merge_from(one, whole.ntotal if ivf is not None else 0)
                ids += kept
            if not ids:
                raise SearchIndexError(f"{folder}: every item was taken out; put some in first")
            write_faiss(whole, aside / "index.faiss")
            write_ids(aside / "ids.arrow", ids)
        write_info(folder, replace(info, shards=(ShardInfo(name, len(ids)),), changes=info.changes + 1))
        for shard in info.shards:  # a search that has them open keeps them until it ends
            shutil.rmtree(folder / "shards" / shard.name)
    return len(ids)


@contextmanager
def _alone(folder: Path) -> Iterator[IndexInfo]:
    """The table of contents, held against other changes until the block ends or the process dies."""
    read_info(folder)
    with (folder / "changing").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise SearchIndexError(
                f"{folder}: another process is changing this index ({error.strerror}); try again later"
            ) from None
        yield read_info(folder)


def _require_same_model(folder: Path, info: IndexInfo, vectors: Vectors) -> None:
    there, here = info.made_by, vectors.made_by
    differ = [key for key in ("model", "weights", "kind", "measure") if getattr(there, key) != getattr(here, key)]
    if not there.weights and there.checkpoint != here.checkpoint:
        differ.append("checkpoint")
    if info.dimension != vectors.dimension:
        differ.append("dimension")
    if differ:
        raise SearchIndexError(
            f"{folder}: its vectors are of another {', '.join(differ)} than these; encode the new items with the model of the index"
        )


def _without(folder: Path, info: IndexInfo, ids: Sequence[str]) -> tuple[tuple[ShardInfo, ...], int]:
    """The shards without these items, as new notes of what was removed, and how many items that were."""
    shards, removed = [], 0
    for shard in info.shards:
        places, before = _places(folder, shard, ids), _removed(folder, shard)
        new = np.setdiff1d(places, before)
        if len(new):
            name = f"removed-{info.changes + 1}.npy"
            path = folder / "shards" / shard.name / name
            np.save(path, np.union1d(before, new), allow_pickle=False)
            shard = replace(shard, removed=name)
        shards.append(shard)
        removed += len(new)
    return tuple(shards), removed


def _places(folder: Path, shard: ShardInfo, ids: Sequence[str]) -> np.ndarray:
    """Places in the shard, ascending, of those ids that it has, removed ones too."""
    wanted = pa.array(ids, pa.large_string())
    chunks = read_ids(folder / "shards" / shard.name / "ids.arrow").chunks
    found = [pc.is_in(chunk, value_set=wanted).to_numpy(zero_copy_only=False) for chunk in chunks]
    return np.flatnonzero(np.concatenate(found))


def _removed(folder: Path, shard: ShardInfo) -> np.ndarray:
    path = folder / "shards" / shard.name / shard.removed
    return np.load(path, allow_pickle=False) if shard.removed else np.zeros(0, np.int64)


def _known(folder: Path, shard: ShardInfo, ids: Sequence[str]) -> list[str]:
    """Those of the ids that the shard has or had."""
    return read_ids(folder / "shards" / shard.name / "ids.arrow").take(_places(folder, shard, ids))


@contextmanager
def _new_shard(folder: Path, name: str) -> Iterator[Path]:
    """Where to write a shard, which takes its name when the block ends without an error."""
    path = folder / "shards" / name
    aside = path.with_name(f".{name}.{os.uname().nodename}.{os.getpid()}")
    shutil.rmtree(path, ignore_errors=True)  # left by a process that died before the table of contents named it
    aside.mkdir()
    try:
        yield aside
        aside.rename(path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _compacted(shard: Path, info: ShardInfo) -> tuple[Any, list[str]]:
    """The faiss index of a shard, in memory, and its ids, without what was removed."""
    index, ids = read_faiss(shard / "index.faiss"), read_ids(shard / "ids.arrow")
    if not info.removed:
        return index, list(ids)
    removed = np.load(shard / info.removed, allow_pickle=False)
    index.remove_ids(faiss.IDSelectorBatch(removed))
    kept = np.setdiff1d(np.arange(info.count), removed)
    ivf = faiss.try_extract_index_ivf(index)
    if ivf is not None:  # its lists keep the old places, other types close the gaps
        _renumber(ivf.invlists, kept)
    return index, ids.take(kept)


def _renumber(lists: Any, kept: np.ndarray) -> None:
    """Make place kept[i] of the lists' entries place i."""
    for number in range(lists.nlist):
        size = lists.list_size(number)
        if size:
            places = faiss.rev_swig_ptr(lists.get_ids(number), size)
            places[:] = np.searchsorted(kept, places)
