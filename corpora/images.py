"""The encoded image files of a corpus in one HDF5 file: flat bytes and offsets, never decoded floats.

Layout of images.h5: `bytes` (total,) uint8, `offsets` (N + 1,) int64, `ids` (N,) str.
Pixels leave this module as uint8. A float array of 0..255 would be rescaled once more by an image
processor, and a model would then see photographic negatives.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

import h5py
import numpy as np
from PIL import Image, ImageOps

from corpora.store import Store, StoreError, check_unique


def decode(data: bytes) -> Image.Image:
    """The picture in an encoded file: upright (EXIF), RGB, uint8; transparency is dropped. Raises OSError or ValueError if it cannot be decoded."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            upright = ImageOps.exif_transpose(image)
    except (OSError, ValueError):
        raise
    except Exception as error:  # Pillow lets SyntaxError, struct.error, DecompressionBombError and others out of damaged files
        raise ValueError(f"{type(error).__name__}: {error}") from error
    if upright.mode.startswith("I;16"):  # convert() would clip 16-bit grey at 255: a white picture
        upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
    return upright.convert("RGB")


class ImageStore(Store):
    """Reads images.h5 by image id."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, required=("bytes", "offsets", "ids"))
        offsets, size = self.file["offsets"], self.file["bytes"].shape[0]
        if len(offsets) != len(self.ids) + 1 or int(offsets[-1]) != size:
            raise StoreError(f"{path}: offsets and bytes disagree; the file is damaged, prepare the corpus again")
        self._offsets: np.ndarray = offsets[:]

    def read(self, image_id: str) -> bytes:
        """The encoded file, byte for byte as it was stored."""
        row = self.row(image_id)
        return self.file["bytes"][self._offsets[row] : self._offsets[row + 1]].tobytes()

    def picture(self, image_id: str) -> Image.Image:
        """The decoded image, RGB uint8; StoreError names the image if it cannot be decoded any more."""
        data = self.read(image_id)
        try:
            return decode(data)
        except (OSError, ValueError) as error:
            raise StoreError(f"{self.path}: image {image_id!r} cannot be decoded ({error}); prepare the corpus again") from None


class ImageWriter:
    """Appends encoded files to a new images.h5; the offsets are written when the block ends without an error."""

    def __init__(self, path: Path) -> None:
        self._file = h5py.File(path, "w", track_order=False)
        self._bytes = self._file.create_dataset("bytes", (0,), np.uint8, maxshape=(None,), chunks=(1 << 20,))
        self._buffer: list[bytes] = []
        self._buffered = 0
        self._ids: list[str] = []
        self._ends = [0]

    def add(self, image_id: str, data: bytes) -> None:
        self._ids.append(image_id)
        self._ends.append(self._ends[-1] + len(data))
        self._buffer.append(data)
        self._buffered += len(data)
        if self._buffered > 1 << 26:
            self._flush()

    def _flush(self) -> None:
        start, self._buffered = self._bytes.shape[0], 0
        self._bytes.resize((self._ends[-1],))
        self._bytes[start:] = np.frombuffer(b"".join(self._buffer), np.uint8)
        self._buffer.clear()

    def __enter__(self) -> ImageWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                check_unique(self._ids, "image", "images.h5")
                self._flush()
                self._file["offsets"] = np.array(self._ends, np.int64)
                self._file.create_dataset("ids", data=self._ids, dtype=h5py.string_dtype())
        finally:
            self._file.close()


def write_images(path: Path, images: Iterable[tuple[str, bytes]]) -> None:
    """Store (id, encoded file) pairs as a new images.h5."""
    with ImageWriter(path) as writer:
        for image_id, data in images:
            writer.add(image_id, data)
