"""Region features of other programs, as .npz files -> regions-<extractor>.h5 of a corpus folder.

Each .npz holds `files` (N,) image file names, `features` (N, R, D) and `boxes` (N, R, 4) x1 y1 x2 y2 in [0, 1].
"""

from __future__ import annotations

import re
import sys
import zipfile
import zlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from corpora.corpus import Corpus, CorpusError, file_sha256
from corpora.progress import progress
from corpora.regions import RegionStore, write_regions
from corpora.store import check_unique


def import_regions(folder: Path, sources: Sequence[Path], extractor: str) -> bool:
    """Add region features to a corpus; False if they stand there already, from the same files.

    Rows are matched to images by id: the `files` entry itself, its stem, or COCO's number at its end. Every image of the corpus
    must have exactly one row; rows of other images are passed over and counted. Rows are streamed: memory does not grow with N.
    """
    corpus = Corpus(folder)
    if not re.fullmatch(r"[\w.-]+", extractor):
        raise CorpusError(f"extractor {extractor!r}: use letters, digits, '.', '_' and '-', it becomes part of a file name")
    path = folder / f"regions-{extractor}.h5"
    wanted = set(corpus.images.ids)
    row_ids = [_row_ids(source, wanted) for source in sources]
    check_unique([image for ids in row_ids for image in ids if image], "image", ", ".join(map(str, sources)))
    missing = wanted.difference(*row_ids)
    if missing:
        raise CorpusError(
            f"{folder}: {len(missing)} of {len(wanted)} images have no regions in {', '.join(map(str, sources))}, the first: "
            f"{', '.join(sorted(missing)[:3])}; rows are matched by the stem of the image's file name or by its id"
        )
    digests = {source.name: file_sha256(source) for source in sources}
    if path.exists():
        if RegionStore(path).sources == digests:
            return False
        raise CorpusError(f"{path}: exists already, made from other files; remove it or choose another extractor name")
    extra = sum(image == "" for ids in row_ids for image in ids)
    if extra:
        print(f"{extra} rows belong to no image of {folder} and are passed over", file=sys.stderr)
    rows = (row for source, ids in zip(sources, row_ids, strict=True) for row in _rows(source, ids))
    write_regions(path, progress(rows, "regions", len(wanted)), len(wanted), digests)
    return True


def _row_ids(source: Path, wanted: Collection[str]) -> list[str]:
    """The image id of every row of a file, empty where the corpus has no such image."""
    try:
        with np.load(source, allow_pickle=False) as arrays:
            files = arrays["files"].astype(str).ravel().tolist()
    except (OSError, ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise _damaged(source, error) from None
    return [next((name for name in _names(file) if name in wanted), "") for file in files]


def _names(file: str) -> Iterator[str]:
    """What an image may be called in the corpus."""
    yield file
    yield Path(file).stem
    if number := re.fullmatch(r"COCO_\w+_0*(\d+)", Path(file).stem):
        yield number[1]


def _rows(source: Path, ids: Sequence[str]) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(id, features (R, D), boxes (R, 4)) of every row whose id is not empty."""
    try:
        with zipfile.ZipFile(source) as archive, archive.open("features.npy") as features, archive.open("boxes.npy") as boxes:
            rows = zip(ids, _stream(features, len(ids)), _stream(boxes, len(ids)), strict=True)
            yield from (row for row in rows if row[0])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _damaged(source, error) from None


def _stream(file: IO[bytes], count: int) -> Iterator[np.ndarray]:
    """The rows of a .npy file one by one; np.load would hold all of them in memory."""
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read_header(file)
    if len(shape) != 3 or shape[0] != count or fortran or dtype.kind != "f":
        order = "Fortran" if fortran else "C"
        raise ValueError(f"an array is {shape} {dtype} in {order} order; expected ({count}, regions, numbers), floats, C order")
    size = shape[1] * shape[2] * dtype.itemsize
    for _ in range(count):
        data = file.read(size)
        if len(data) != size:
            raise EOFError("an array ends too early")
        yield np.frombuffer(data, dtype).reshape(shape[1:])


def _damaged(source: Path, error: Exception) -> CorpusError:
    return CorpusError(
        f"{source}: cannot be read as region features ({type(error).__name__}: {error}); expected an .npz with files (N,), features (N, R, D) "
        "and boxes (N, R, 4)"
    )
