"""Arrays in .npy and .npz files of strangers: nothing is unpickled, and no more memory is asked for than the file has bytes."""

from __future__ import annotations

import io
import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from corpora.corpus import CorpusError
from corpora.store import StoreError

DAMAGED = (
    *(
        OSError,
        ValueError,
        EOFError,
        LookupError,
        TypeError,
        AttributeError,
        OverflowError,
        RuntimeError,
        MemoryError,
        SyntaxError,
    ),
    *(zipfile.BadZipFile, zlib.error, tokenize.TokenError),
)
"""What numpy, zipfile and h5py raise for files whose bytes have changed."""


@contextmanager
def refusing_damage(where: object, expected: str) -> Iterator[None]:
    """Turns whatever a damaged file raises in the block into one CorpusError that tells where and what is expected."""
    try:
        yield
    except (CorpusError, StoreError):
        raise
    except DAMAGED as error:
        raise CorpusError(f"{where}: cannot be read ({type(error).__name__}: {error}); expected {expected}") from None


@dataclass(frozen=True)
class StoredArray:
    """A .npy file that stands at its first number."""

    file: IO[bytes]
    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool

    def rows(self) -> Iterator[np.ndarray]:
        """What lies along the first axis, one by one: memory does not grow with their number."""
        if self.fortran and len(self.shape) > 1:
            raise ValueError("an array is in Fortran order and cannot be read row by row; save it in C order")
        for _ in range(self.shape[0]):
            yield self._read(self.shape[1:], "C")

    def whole(self) -> np.ndarray:
        return self._read(self.shape, "F" if self.fortran else "C")

    def _read(self, shape: tuple[int, ...], order: str) -> np.ndarray:
        size = math.prod(shape) * self.dtype.itemsize
        data = self.file.read(size)
        if len(data) != size:
            raise EOFError("an array ends too early")
        return np.frombuffer(data, self.dtype).reshape(shape, order=order)  # type: ignore[call-overload]


def open_array(file: IO[bytes], size: int) -> StoredArray:
    """The array in a .npy file of `size` bytes; ValueError where the header does not fit them."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):  # (3, 0) is for field names beyond Latin-1
        raise ValueError(f"a .npy file of version {version}")
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = header(file)
    if dtype.kind not in "fiuUS":
        raise ValueError(f"an array of {dtype}; expected numbers or text")
    if any(length < 0 for length in shape) or file.tell() + math.prod(shape) * dtype.itemsize != size:
        raise ValueError(f"an array of {shape} {dtype} in a file of {size:,} bytes")
    return StoredArray(file, shape, dtype, fortran)


class Npz:
    """An opened .npz file."""

    def __init__(self, path: Path) -> None:
        self._archive = zipfile.ZipFile(path)
        self.keys = frozenset(name.removesuffix(".npy") for name in self._archive.namelist())

    def open(self, key: str) -> StoredArray:
        """An array to be read row by row. Several may be open at once."""
        info = self._archive.getinfo(f"{key}.npy")
        return open_array(self._archive.open(info), info.file_size)

    def read(self, key: str) -> np.ndarray:
        """A whole array; its check sum is proved."""
        stored = self.open(key)
        array = stored.whole()
        stored.file.read(1)  # the sum is compared at the end of the file
        return array

    def __enter__(self) -> Npz:
        return self

    def __exit__(self, *error: object) -> None:
        self._archive.close()


def read_array(path: Path) -> np.ndarray:
    """The array of a .npy file."""
    data = path.read_bytes()
    return open_array(io.BytesIO(data), len(data)).whole()
