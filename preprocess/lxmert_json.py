"""LXMERT's sentence files (mscoco_train, mscoco_nominival, mscoco_minival, vgnococo .json) and their images -> a corpus folder.

The layout: [{"img_id": "COCO_train2014_000000000009" or a Visual Genome number, "sentf": {"mscoco": [sentences], "vqa": ...}}, ...]
(Tan and Bansal 2019, "LXMERT: Learning Cross-Modality Encoder Representations from Transformers").
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from corpora.corpus import Caption, CorpusError
from preprocess.build import build
from preprocess.coco_names import FOLDERS, coco_source
from preprocess.entries import Entry
from preprocess.packing import Packing
from preprocess.source_files import check_ids, checked_id, checked_text, read_json, sha256_of

EXPECTED = 'LXMERT\'s layout: [{"img_id": ..., "sentf": {"mscoco": [sentences], ...}}, ...]'
IMAGE_FOLDERS = (*FOLDERS, "VG_100K", "VG_100K_2", "")


def prepare(
    splits: Mapping[str, Sequence[Path]],
    images: Path,
    folder: Path,
    categories: Sequence[str] = ("mscoco",),
    packing: Packing = Packing(),  # noqa: B008
) -> bool:
    """Build the corpus; False if it was not made now (preprocess.build).

    `splits` names the files of each split. Of an image the sentences of `categories` (keys of sentf) are kept; images that have
    none of them are passed over and counted. Image ids are img_id, caption ids "<image>:<category>:<number from 0>".
    """
    files = [path for paths in splits.values() for path in paths]
    if not files or not categories:
        raise CorpusError("no files or no categories are named; give --train or --val, and --categories")
    made_by = {
        "layout": "lxmert",
        "images": str(images.resolve()),
        "categories": sorted(categories),
        "splits": {split: [path.name for path in paths] for split, paths in splits.items() if paths},
    }
    sources = {path.name: sha256_of(path) for path in files}
    if len(sources) < len(files):
        raise CorpusError(f"a file is named twice among {', '.join(map(str, files))}; every image can be in one split only")
    entries = read_entries(splits, images, frozenset(categories))
    return build(entries, folder, made_by=made_by, sources=sources, packing=packing)


def read_entries(splits: Mapping[str, Sequence[Path]], images: Path, categories: Collection[str]) -> Iterator[Entry]:
    """The images of all files that have sentences of the categories; an image in two files is an error."""
    entries: list[Entry] = []
    found: Counter[str] = Counter()
    for split, paths in splits.items():
        for path in paths:
            for number, row in enumerate(_rows(path)):
                entries.append(_entry(row, f"{path}: image {number}", split, images, categories))
                found.update(row["sentf"].keys())
    where = ", ".join(str(path) for paths in splits.values() for path in paths)
    absent = sorted(set(categories) - set(found))
    if absent:
        raise CorpusError(
            f"{where}: no image has sentences of {', '.join(absent)}; --categories may name {', '.join(sorted(found))}"
        )
    check_ids([entry.id for entry in entries], "image", where)
    kept = [entry for entry in entries if entry.captions]
    if len(kept) < len(entries):
        print(
            f"{len(entries) - len(kept)} of {len(entries)} images have no sentences of {', '.join(sorted(categories))}",
            file=sys.stderr,
        )
    yield from kept


def _rows(path: Path) -> list[Any]:
    rows = read_json(path, EXPECTED)
    if not isinstance(rows, list) or not rows:
        raise CorpusError(f"{path}: holds no list of images; expected {EXPECTED}")
    return rows


def _entry(row: Any, where: str, split: str, images: Path, categories: Collection[str]) -> Entry:
    sentences = row.get("sentf") if isinstance(row, dict) else None
    if not isinstance(sentences, dict) or not all(isinstance(texts, list) for texts in sentences.values()):
        raise CorpusError(f"{where} is damaged: {str(row)[:80]}; expected {EXPECTED}")
    image = checked_id(row.get("img_id"), where)
    captions = tuple(
        Caption(f"{image}:{category}:{number}", checked_text(text, f"{where} ({image}), {category} {number}"), (image,))
        for category, texts in sentences.items()
        if category in categories
        for number, text in enumerate(texts)
    )
    return Entry(image, split, _path(images, image), captions, source=_source(image, where))


def _source(image: str, where: str) -> str:
    source = coco_source(image) or (f"visual-genome/{image}" if image.isdecimal() else "")
    if not source:
        raise CorpusError(f"{where}: img_id {image!r} is neither a COCO file name without .jpg nor a Visual Genome number")
    return source


def _path(images: Path, image: str) -> Path:
    places = [images / folder / f"{image}.jpg" for folder in IMAGE_FOLDERS]
    return next((place for place in places if place.exists()), places[0])
