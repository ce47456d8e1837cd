"""Image files on disk, read and proved to decode."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from corpora.corpus import CorpusError
from corpora.images import decode

FILES_AT_ONCE = 256


@dataclass(frozen=True)
class ImageFile:
    """An image file as it was found: its bytes and size in pixels (upright), or the reason why it cannot be used."""

    path: Path
    data: bytes = b""
    width: int = 0
    height: int = 0
    fault: str = ""


def read_image_files(paths: Sequence[Path]) -> Iterator[ImageFile]:
    """Reads and decodes every file, in order; a missing or undecodable one comes with its fault instead of an exception.

    Files are decoded by one thread a core (Pillow lets go of the interpreter lock), 256 at a time so that memory stays flat.
    """
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for start in range(0, len(paths), FILES_AT_ONCE):
            yield from pool.map(_read, paths[start : start + FILES_AT_ONCE])


def _read(path: Path) -> ImageFile:
    try:
        data = path.read_bytes()
        picture = decode(data)
    except FileNotFoundError:
        return ImageFile(path, fault="no such file")
    except (OSError, ValueError) as error:
        return ImageFile(path, fault=f"cannot be decoded ({error})")
    return ImageFile(path, data, picture.width, picture.height)


def refuse_faults(where: str, total: int, left_out: Sequence[dict[str, str]]) -> None:
    """CorpusError with the count and the first paths and reasons, if any image had to be left out."""
    if left_out:
        first = "".join(f"\n  {row['path']}: {row['reason']}" for row in left_out[:5])
        raise CorpusError(
            f"{where}: {len(left_out)} of {total} images cannot be used; put them right or leave them out with --bad-images skip. The first:{first}"
        )
