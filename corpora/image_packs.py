"""Packs of encoded images, and how packs become one images.h5.

A pack is a plain file: the images' bytes one after another, then an index (JSON, a list of PackedImage), then the index' length in 16
digits and its sha256. HDF5 would end the process on a full disk; a plain file raises OSError.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple

import h5py
import numpy as np

from corpora.store import StoreError, check_unique

BLOCK = 1 << 24
FOOTER = 16 + 64


class PackedImage(NamedTuple):
    """An image in a pack's index, or the fault for which it was left out (then it has no bytes)."""

    id: str
    size: int = 0
    """Bytes in the pack."""
    sha256: str = ""
    width: int = 0
    height: int = 0
    fault: str = ""
    file_size: int = 0
    file_time: int = 0
    """Size in bytes and time of change in ns of the file it was read from: a pack whose files have changed since is packed again."""


class PackWriter:
    """Appends images to a new pack; the index is written when the block ends without an error.

    It is not forced to the disk, which takes long: what a machine that went down has lost of it, its digests tell.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=1 << 20)
        self._rows: list[PackedImage] = []

    def add(
        self,
        image_id: str,
        data: bytes,
        width: int = 0,
        height: int = 0,
        fault: str = "",
        file_size: int = 0,
        file_time: int = 0,
    ) -> None:
        digest = "" if fault else hashlib.sha256(data).hexdigest()
        self._rows.append(PackedImage(image_id, len(data), digest, width, height, fault, file_size, file_time))
        self._file.write(data)

    def __enter__(self) -> PackWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._file:
            if kind is None:
                index = json.dumps(self._rows).encode()
                self._file.write(index + f"{len(index):016}{hashlib.sha256(index).hexdigest()}".encode())


def read_index(pack: Path) -> list[PackedImage]:
    """What a pack holds; StoreError if it is not whole."""
    try:
        with pack.open("rb") as file:
            file.seek(-FOOTER, os.SEEK_END)
            footer = file.read()
            size = int(footer[:16])
            start = file.seek(-FOOTER - size, os.SEEK_END)
            index = file.read(size)
        if hashlib.sha256(index).hexdigest().encode() != footer[16:]:
            raise ValueError("its index is damaged")
        rows = [PackedImage(*row) for row in json.loads(index)]
    except (OSError, ValueError, TypeError) as error:
        raise _damaged(pack, str(error)) from None
    if sum(row.size for row in rows) != start:
        raise _damaged(pack, f"{start} bytes for images of {sum(row.size for row in rows)}")
    return rows


def join_packs(path: Path, packs: Sequence[Path]) -> None:
    """Write a new images.h5 of all images of the packs, in order; those with a fault are passed over.

    Duplicate ids and bytes that are not the packed ones (sha256) raise StoreError, a full disk OSError.
    """
    ids: list[str] = []
    sizes, digests = [np.zeros(0, np.int64)], [np.zeros((0, 32), np.uint8)]
    for pack in packs:
        rows = [row for row in read_index(pack) if not row.fault]
        ids += [row.id for row in rows]
        sizes.append(np.array([row.size for row in rows], np.int64))
        digests.append(np.frombuffer(bytes.fromhex("".join(row.sha256 for row in rows)), np.uint8).reshape(-1, 32))
    check_unique(ids, "image", str(path))
    offsets = np.concatenate([[0], *sizes]).cumsum()
    start = _outline(path, ids, offsets, np.concatenate(digests))
    with path.open("r+b", buffering=0) as file:
        reserve(file, start, int(offsets[-1]))
        file.seek(start)
        for pack, of_images, of_digests in zip(packs, sizes[1:], digests[1:], strict=True):
            for block in _blocks(pack, of_images, of_digests):
                _write_all(file, block)
        os.fsync(file.fileno())


def _outline(path: Path, ids: Sequence[str], offsets: np.ndarray, sha256: np.ndarray) -> int:
    """Write images.h5 but for the images' bytes; returns where in the file they belong."""
    with path.open("wb") as room:
        reserve(room, 0, 65536 + 200 * len(ids) + sum(map(len, ids)))
    with h5py.File(path, "w") as file:
        encoded = [image_id.encode() for image_id in ids]
        file["ids"] = np.array(encoded, h5py.string_dtype("utf-8", max(map(len, encoded), default=1)))
        file["offsets"], file["sha256"] = offsets, sha256
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_layout(h5py.h5d.CONTIGUOUS)
        plan.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        plan.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        plan.set_obj_track_times(False)
        space = h5py.h5s.create_simple((int(offsets[-1]),))
        data = h5py.h5d.create(file.id, b"bytes", h5py.h5t.STD_U8LE, space, plan)
        return data.get_offset() or 0  # no offset where there are no bytes


def reserve(file: BinaryIO, start: int, size: int) -> None:
    """Take room for what is to be written, so that a full disk or quota is met here, as an OSError."""
    if size and hasattr(os, "posix_fallocate"):  # macOS lacks it
        os.posix_fallocate(file.fileno(), start, size)


def _blocks(pack: Path, sizes: np.ndarray, digests: np.ndarray) -> Iterator[memoryview]:
    """The bytes of a pack's images, about BLOCK at once, each image proved to be what was packed."""
    with pack.open("rb") as file:
        first = 0
        while first < len(sizes):
            ends = sizes[first:].cumsum()
            count = max(1, int(np.searchsorted(ends, BLOCK)))
            block = memoryview(file.read(int(ends[count - 1])))
            start = 0
            for number in range(first, min(first + count, len(sizes))):
                end = start + int(sizes[number])
                if hashlib.sha256(block[start:end]).digest() != digests[number].tobytes():
                    raise _damaged(pack, f"image {number} of it is not what was packed")
                start = end
            yield block[:start]
            first += count


def _write_all(file: BinaryIO, data: memoryview) -> None:
    while len(data):
        data = data[file.write(data) :]


def _damaged(pack: Path, why: str) -> StoreError:
    return StoreError(f"{pack}: not a whole pack of images ({why}); remove it and run again")
