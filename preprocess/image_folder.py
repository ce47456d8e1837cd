"""Any folder of images, with a caption file or without -> a corpus folder."""

from __future__ import annotations

import csv
import hashlib
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from corpora.corpus import CorpusError
from preprocess.build import build
from preprocess.coco_names import coco_source
from preprocess.entries import Entry
from preprocess.packing import Packing
from preprocess.source_files import (
    check_entries,
    checked_id,
    checked_text,
    numbered,
    parse_json_line,
    read_lines,
    sha256_of,
)

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
EXPECTED = 'a table with the columns "file" and "caption" (.csv, .tsv), or a line {"file": ..., "caption": ...} each (.jsonl)'


def prepare(
    images: Path,
    folder: Path,
    *,
    split: str = "",
    classes: bool = False,
    captions: Path | None = None,
    collection: str = "",
    packing: Packing = Packing(),  # noqa: B008
) -> bool:
    """Build the corpus; False if it was not made now (preprocess.build).

    An image's id is its path in the folder without the suffix. All images go to `split`; without one the folder's first level
    names the splits. `classes`: the folders below that, joined by "/", are an image's class. `captions` names files by their paths
    in the folder, as often as a file has captions. `collection` is where the pictures come from ("open-images"): with it pictures
    are known again, by their file names, in other corpora.
    """
    files = find_images(images)
    made_by = {
        "layout": "folder",
        "images": str(images.resolve()),
        "split": split,
        "classes": classes,
        "collection": collection,
    }
    sources = {"names and sizes of the images": _digest(images, files)}
    if captions:
        sources[captions.name] = sha256_of(captions)
    entries = read_entries(images, files, split, classes, captions, collection)
    return build(entries, folder, made_by=made_by, sources=sources, packing=packing)


def find_images(images: Path) -> list[str]:
    """Paths below the folder, sorted, of all files with an image's suffix; hidden files are passed over, links are followed."""
    if not images.is_dir():
        raise CorpusError(f"{images}: no such folder of images; see --images")
    try:
        found = sorted(_walk(images, set()))
    except OSError as error:
        raise CorpusError(f"{error.filename}: cannot be listed ({error.strerror}); check the folder") from None
    if not found:
        raise CorpusError(f"{images}: holds no images; known by their suffix are {', '.join(sorted(SUFFIXES))}")
    return [str(PurePosixPath(path.relative_to(images))) for path in found]


def _walk(folder: Path, above: set[tuple[int, int]]) -> Iterator[Path]:
    """Image files below a folder; a link to a folder that it lies in is not followed for ever."""
    known = folder.stat()
    place = (known.st_dev, known.st_ino)
    if place in above:
        return
    with os.scandir(folder) as files:
        for file in files:
            if file.name.startswith("."):
                continue
            if file.is_dir():
                yield from _walk(Path(file.path), {*above, place})
            elif Path(file.name).suffix.lower() in SUFFIXES:
                yield Path(file.path)


def read_entries(
    images: Path, files: list[str], split: str, classes: bool, captions: Path | None, collection: str
) -> Iterator[Entry]:
    """One entry a file, with its captions."""
    texts = read_caption_table(captions) if captions else {}
    unknown = sorted(texts.keys() - set(files))
    if unknown:
        raise CorpusError(f"{captions}: names {len(unknown)} files that are not in {images}, the first: {unknown[0]}")
    entries = [_entry(images, file, split, classes, texts.get(file, []), collection) for file in files]
    _check_names(entries, images)
    check_entries(entries, str(captions or images))
    yield from entries


def _entry(images: Path, file: str, split: str, classes: bool, texts: list[str], collection: str) -> Entry:
    path = PurePosixPath(file)
    image = checked_id(str(path.with_suffix("")), str(images))
    folders = path.parts[:-1]
    if not split:
        if not folders:
            raise CorpusError(f"{images}: {file} is in no folder that could name its split; give --split, such as --split test")
        split, folders = folders[0], folders[1:]
    source = f"{collection}/{path.stem}" if collection else coco_source(path.stem)
    return Entry(image, split, images / file, numbered(image, texts), "/".join(folders) if classes else "", source)


def _check_names(entries: list[Entry], images: Path) -> None:
    first: dict[str, Entry] = {}
    for entry in entries:
        other = first.setdefault(entry.id, entry)
        if other is not entry:
            raise CorpusError(
                f"{images}: {other.path.name} and {entry.path.name} would both be image {entry.id!r}; rename or remove one"
            )


def read_caption_table(path: Path) -> dict[str, list[str]]:
    """File -> captions, from a table or JSONL file."""
    rows = {".csv": _csv, ".tsv": _tsv, ".jsonl": _jsonl}.get(path.suffix.lower())
    if rows is None:
        raise CorpusError(f"{path}: the suffix is {path.suffix!r}; expected {EXPECTED}")
    found: dict[str, list[str]] = defaultdict(list)
    for where, row in rows(path):
        missing = [name for name in ("file", "caption") if not isinstance(row.get(name), str)]
        if missing:
            raise CorpusError(f"{where}: no {' and no '.join(missing)}; expected {EXPECTED}")
        found[str(row["file"])].append(checked_text(row["caption"], where))
    if not found:
        raise CorpusError(f"{path}: holds no captions; expected {EXPECTED}")
    return found


def _jsonl(path: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    for number, line in read_lines(path):
        where = f"{path}, line {number}"
        yield where, parse_json_line(line, where, EXPECTED)


def _tsv(path: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Without quoting: a tab or a new line cannot be part of a caption."""
    return _table(path, ((number, line.split("\t")) for number, line in read_lines(path)))


def _csv(path: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    reader = csv.reader((f"{line}\n" for _, line in read_lines(path)), strict=True)
    try:
        yield from _table(path, ((reader.line_num, row) for row in reader))
    except csv.Error as error:
        raise CorpusError(f"{path}, line {reader.line_num}: no CSV ({error}); expected {EXPECTED}") from None


def _table(path: Path, rows: Iterator[tuple[int, list[str]]]) -> Iterator[tuple[str, Mapping[str, object]]]:
    header = next(rows, (1, []))[1]
    if sorted({"file", "caption"} & set(header)) != ["caption", "file"] or len(set(header)) < len(header):
        raise CorpusError(f"{path}, line 1: the columns are {', '.join(header)[:80]!r}; expected {EXPECTED}")
    for number, row in rows:
        if len(row) != len(header):
            raise CorpusError(f"{path}, line {number}: {len(row)} columns where line 1 has {len(header)}; expected {EXPECTED}")
        yield f"{path}, line {number}", dict(zip(header, row, strict=True))


def _digest(images: Path, files: list[str]) -> str:
    """sha256 over the names and sizes of the files: reading all of them would take hours."""
    listing = "".join(f"{file}\t{_size(images / file)}\n" for file in files)
    return hashlib.sha256(listing.encode(errors="surrogateescape")).hexdigest()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1  # a link to nothing, which packing will tell of
