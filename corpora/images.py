"""The encoded image files of a corpus in one HDF5 file: flat bytes and offsets, never decoded floats.

Layout of images.h5: `bytes` (total,) uint8, `offsets` (N + 1,) int64, `ids` (N,) str, `sha256` (N, 32) uint8 (of each file).
Pixels leave this module as uint8. A float array of 0..255 would be rescaled once more by an image
processor, and a model would then see photographic negatives.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from corpora.image_packs import PackWriter, join_packs
from corpora.store import Store, StoreError, whole

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "JPEG2000", "AVIF", "PPM")
"""What is decoded; Pillow knows more kinds, and would start Ghostscript for one of them."""
MAX_PIXELS = 89_478_485
"""Larger pictures are refused, at the size from which Pillow warns: a file of a few kB can ask for all memory."""
ORIENTATION, SIDEWAYS = 0x0112, (5, 6, 7, 8)
"""EXIF's tag, and those of its values that exchange width and height."""


class Picture(NamedTuple):
    """A decoded image: upright (EXIF), RGB, uint8; width and height are those of the file, also where it was decoded smaller."""

    pixels: Image.Image
    width: int
    height: int


def decode(data: bytes) -> Image.Image:
    """The picture in an encoded file: upright (EXIF), RGB, uint8; the first frame where there are several.

    Transparency and colour profiles are dropped, as all the models' image processors do. Raises OSError or ValueError if it cannot be decoded.
    """
    return decode_from(data, 0).pixels


def decode_from(data: bytes, least: int) -> Picture:
    """As `decode`, but a JPEG at the smallest half, quarter or eighth whose sides are not below `least` pixels (0: whole).

    All of its bytes are decoded nevertheless, only the last step, the inverse cosine transform, does less.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise Image.DecompressionBombError
            if least:
                image.draft(image.mode, (least, least))
            if image.getexif().get(ORIENTATION, 1) in SIDEWAYS:
                width, height = height, width
            ImageOps.exif_transpose(image, in_place=True)
            image.load()
            return Picture(_rgb(image), width, height)
    except (OSError, ValueError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError(f"huge: more than {MAX_PIXELS:,} pixels") from None
    except Exception as error:  # Pillow lets SyntaxError, struct.error and others out of damaged files
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16"):  # convert() would clip 16-bit grey at 255: a white picture
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):  # as it would these, and their range is not known
        raise ValueError(f"pixels of 32 bits (mode {image.mode})")
    return image.convert("RGB")


class ImageStore(Store):
    """Reads images.h5 by image id."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, required=("bytes", "offsets", "ids"))
        with whole(path):
            offsets, size = self.file["offsets"][:], self.file["bytes"].shape
            digests = self.file["sha256"].shape if "sha256" in self.file else (len(self.ids), 32)
            fit = (
                offsets.shape == (len(self.ids) + 1,)
                and offsets[0] == 0
                and (offsets[-1],) == size
                and (np.diff(offsets) >= 0).all()
            )
        if not fit or digests != (len(self.ids), 32) or self.file["bytes"].dtype != np.uint8:
            raise StoreError(f"{path}: offsets and bytes disagree; the file is damaged, prepare the corpus again")
        self._offsets: np.ndarray = offsets

    def read(self, image_id: str) -> bytes:
        """The encoded file, byte for byte as it was stored."""
        row = self.row(image_id)
        with whole(self.path):
            return self.file["bytes"][self._offsets[row] : self._offsets[row + 1]].tobytes()

    def head(self, row: int) -> bytes:
        """The first 16 bytes of a file, by which its format is known."""
        start = int(self._offsets[row])
        return self.file["bytes"][start : min(start + 16, int(self._offsets[row + 1]))].tobytes()

    @property
    def sizes(self) -> np.ndarray:
        """Bytes of each file, (N,) int64."""
        return np.diff(self._offsets)

    def digests(self) -> list[bytes]:
        """sha256 of each file: as it was packed, or of what is there now where an older version did not store them."""
        if "sha256" in self.file:
            with whole(self.path):
                return [row.tobytes() for row in self.file["sha256"][:]]
        return [hashlib.sha256(self.read(image_id)).digest() for image_id in self.ids]

    def picture(self, image_id: str) -> Image.Image:
        """The decoded image, RGB uint8; StoreError names the image if it cannot be decoded any more."""
        data = self.read(image_id)
        try:
            return decode(data)
        except (OSError, ValueError) as error:
            raise StoreError(f"{self.path}: image {image_id!r} cannot be decoded ({error}); prepare the corpus again") from None


class NoImages(ImageStore):
    """Of a corpus of texts alone: any image is missing."""

    def __init__(self, path: Path) -> None:
        self.path, self.ids, self._row = path, [], {}


def write_images(path: Path, images: Iterable[tuple[str, bytes]]) -> None:
    """Store (id, encoded file) pairs as a new images.h5."""
    pack = path.with_name(path.name + ".pack")
    try:
        with PackWriter(pack) as writer:
            for image_id, data in images:
                writer.add(image_id, data)
        join_packs(path, [pack])
    finally:
        pack.unlink(missing_ok=True)
