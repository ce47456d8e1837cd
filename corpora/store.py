"""HDF5 files keyed by image id, opened lazily so that data-loader workers can each have their own handle."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py


class StoreError(ValueError):
    """A corpus file that is missing, damaged, or does not hold what was asked for."""


class Store:
    """An HDF5 file with an `ids` dataset. Picklable: the handle is opened on first use in each process."""

    def __init__(self, path: Path, required: Iterable[str]) -> None:
        self.path = path
        self._handle: h5py.File | None = None
        self._owner = 0
        with whole(path):
            missing = [name for name in required if name not in self.file]
            if missing:
                raise StoreError(f"{path}: lacks {', '.join(missing)}; it was not written whole, prepare the corpus again")
            self.ids: list[str] = list(self.file["ids"].asstr()[:])
        self._row = {image_id: row for row, image_id in enumerate(self.ids)}

    @property
    def file(self) -> h5py.File:
        if self._handle is None or self._owner != os.getpid():  # a forked handle shares its file position: never use it
            self._handle, self._owner = open_hdf5(self.path), os.getpid()
        return self._handle

    def row(self, image_id: str) -> int:
        """The row of an image; StoreError names the id if the file lacks it."""
        try:
            return self._row[image_id]
        except KeyError:
            raise StoreError(f"{self.path}: holds no image {image_id!r} (it has {len(self.ids)} others)") from None

    def __contains__(self, image_id: str) -> bool:
        return image_id in self._row

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None}


def open_hdf5(path: Path) -> h5py.File:
    """Open for reading; a missing or truncated file is one clear StoreError."""
    try:
        return h5py.File(path, "r")
    except FileNotFoundError:
        raise StoreError(f"{path}: no such file") from None
    except OSError as error:
        raise StoreError(f"{path}: not a whole HDF5 file ({error}); write it again") from None


@contextmanager
def whole(path: Path) -> Iterator[None]:
    """Whatever h5py raises while it reads a damaged file becomes one clear StoreError."""
    try:
        yield
    except StoreError:
        raise
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError, MemoryError) as error:
        raise StoreError(f"{path}: the file is damaged ({type(error).__name__}: {error}); write it again") from None


def check_unique(ids: Sequence[str], kind: str, where: str) -> None:
    """Raise StoreError naming the first duplicate ids."""
    if len(set(ids)) != len(ids):
        twice = [key for key, count in Counter(ids).items() if count > 1]
        raise StoreError(f"{where}: {len(twice)} {kind} ids stand there more than once, the first: {', '.join(twice[:3])}")


def file_sha256(path: Path) -> str:
    """sha256 of a file, read in 1 MiB pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
