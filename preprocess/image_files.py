"""Image files on disk, read, proved whole and packed."""

from __future__ import annotations

import io
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from corpora.image_checks import verified
from corpora.image_packs import PackedImage, PackWriter
from corpora.images import Picture

QUALITY = 95
"""Of pictures that are encoded again."""


class ImageFile(NamedTuple):
    """An image file as it was found: its bytes and size in pixels (upright), or the reason why it cannot be used."""

    data: bytes = b""
    width: int = 0
    height: int = 0
    fault: str = ""
    file_size: int = -1
    file_time: int = 0
    """As in corpora.image_packs.PackedImage."""


def read_image_file(path: Path, short_side: int = 0) -> ImageFile:
    """The file as it is, once it has been decoded wholly; a missing or damaged one comes with its fault instead of an exception.

    A picture whose shorter side is above `short_side` (where that is not 0) is shrunk to it and encoded as JPEG: upright, RGB,
    without its colour profile, which nothing here reads.
    """
    found = state(path)
    if isinstance(found, str):
        return ImageFile(fault=found)
    try:
        data = path.read_bytes()
        picture = verified(data, least=2 * short_side or 1)
        width, height = picture.width, picture.height
        if 0 < short_side < min(width, height):
            data, (width, height) = _shrunk(picture, short_side)
    except OSError as error:
        return ImageFile(b"", 0, 0, f"cannot be read ({error.strerror or error})", *found)
    except ValueError as error:
        return ImageFile(b"", 0, 0, str(error), *found)
    return ImageFile(data, width, height, "", *found)


def state(path: Path) -> tuple[int, int] | str:
    """A file's size in bytes and its time of change in ns, by which one that was replaced is told; a str says why there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return "no such file"
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        return f"cannot be read ({getattr(error, 'strerror', None) or error})"
    return (found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else "not a file"  # a pipe would be read for ever


def _shrunk(picture: Picture, short_side: int) -> tuple[bytes, tuple[int, int]]:
    """The encoded smaller picture, and its width and height."""
    scale = short_side / min(picture.width, picture.height)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    smaller = picture.pixels.resize(size, Image.Resampling.BICUBIC)
    smaller.info = {}  # the colour profile and comments would be written
    file = io.BytesIO()
    smaller.save(file, "JPEG", quality=QUALITY, subsampling=0)  # otherwise the colours would be halved a second time
    return file.getvalue(), size


def pack_files(files: Iterable[tuple[str, Path]], pack: Path, short_side: int = 0) -> None:
    """Write a pack of (id, path): every file read and verified, or listed with its fault. OSError if the disk is full."""
    with PackWriter(pack) as writer:
        for image_id, path in files:
            writer.add(image_id, *read_image_file(path, short_side))


def unchanged(files: Sequence[tuple[str, Path]], rows: Sequence[PackedImage]) -> bool:
    """Whether a pack was made of the files as they are now."""
    now = (state(path) for _, path in files)
    return [(row.file_size, row.file_time) for row in rows] == [(-1, 0) if isinstance(found, str) else found for found in now]
