"""The original suite's uniform JSON, in and out: {train,val,test}_image_captions.json beside a corpus folder's images.

The layout: {"<image id>": {"image_path": path, "captions": [text, ...]}, ...}, one file a split. Captions have no ids of their own, and one
that describes several images stands under each of them.
"""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from corpora.corpus import Corpus, CorpusError, Split
from corpora.progress import progress
from preprocess.build import build
from preprocess.coco_names import coco_source
from preprocess.entries import Entry
from preprocess.packing import Packing
from preprocess.source_files import check_entries, checked_id, checked_text, numbered, read_json, sha256_of

EXPECTED = '{"<image id>": {"image_path": path, "captions": [text, ...]}, ...}'
ENDING = "_image_captions.json"


def prepare(
    captions: Path,
    images: Path,
    folder: Path,
    *,
    collection: str = "",
    split_in_ids: bool = False,
    packing: Packing = Packing(),  # noqa: B008
) -> bool:
    """Build the corpus from all <split>_image_captions.json of a folder; False if it was not made now (preprocess.build).

    An image_path is looked for below `images`, then its file name alone. `split_in_ids` makes an image's id "<split>/<id>", for
    files that number the images of each split anew. `collection` is where the pictures come from ("flickr30k"): with it they are
    known again, by their ids, in other corpora; of COCO's file names it is known anyway.
    """
    files = {path.name.removesuffix(ENDING): path for path in sorted(captions.glob(f"*{ENDING}")) if path.name != ENDING}
    if not files:
        raise CorpusError(f"{captions}: holds no <split>{ENDING}; see --captions")
    made_by = {
        "layout": "uniform json",
        "images": str(images.resolve()),
        "collection": collection,
        "split_in_ids": split_in_ids,
    }
    sources = {path.name: sha256_of(path) for path in files.values()}
    entries = read_entries(files, images, collection, split_in_ids)
    return build(entries, folder, made_by=made_by, sources=sources, packing=packing)


def read_entries(files: Mapping[str, Path], images: Path, collection: str, split_in_ids: bool) -> Iterator[Entry]:
    """The images of all splits; an id in two of them is an error unless the split is made part of it."""
    entries: dict[str, Entry] = {}
    for split, path in files.items():
        for key, row in _rows(path).items():
            image = checked_id(f"{split}/{key}" if split_in_ids else key, str(path))
            if image in entries:
                raise CorpusError(
                    f"{path}: image {key!r} is in split {entries[image].split} too; if every split numbers its images anew, give --split-in-ids"
                )
            entries[image] = _entry(image, row, f"{path}: image {key[:60]!r}", split, images, collection)
    check_entries(list(entries.values()), ", ".join(map(str, files.values())))
    _refuse_shared_files(entries.values())
    yield from entries.values()


def _rows(path: Path) -> dict[str, Any]:
    rows = read_json(path, EXPECTED)
    if not isinstance(rows, dict) or not rows:
        raise CorpusError(f"{path}: holds no images; expected {EXPECTED}")
    return rows


def _entry(image: str, row: Any, where: str, split: str, images: Path, collection: str) -> Entry:
    place = row.get("image_path") if isinstance(row, dict) else None
    texts = row.get("captions") if isinstance(row, dict) else None
    if not isinstance(place, str) or not place.isprintable() or not Path(place).name or not isinstance(texts, list):
        raise CorpusError(f"{where} is damaged: {str(row)[:80]}; expected {EXPECTED}")
    places = [images / place, images / Path(place).name]
    path = next((place for place in places if place.exists()), places[0])
    captions = numbered(image, [checked_text(text, where) for text in texts])
    return Entry(image, split, path, captions, source=coco_source(path.stem) or (f"{collection}/{image}" if collection else ""))


def _refuse_shared_files(entries: Iterable[Entry]) -> None:
    """The same file in two splits would be trained on and tested with."""
    first: dict[Path, Entry] = {}
    for entry in entries:
        other = first.setdefault(entry.path, entry)
        if other.split != entry.split:
            raise CorpusError(
                f"{entry.path} is image {other.id} of split {other.split} and image {entry.id} of split {entry.split}; leave one out"
            )


def export(corpus: Corpus, folder: Path) -> bool:
    """Write every split of a corpus as <split>_image_captions.json and its images as images/<split>/<number>.<suffix>.

    image_path is relative to the folder. False if the same corpus was exported there before; a folder of anything else is an error.
    """
    splits = {name: corpus.split(name) for name in corpus.info["splits"]}
    unfit = [name for name in splits if not re.fullmatch(r"\w[\w.-]*", name) or not splits[name].image_ids]
    if unfit:
        raise CorpusError(f"{corpus.folder}: split {unfit[0]!r} has no images, or a name that cannot be part of a file name")
    origin = {"corpus": corpus.name, "splits": {name: split.digest for name, split in splits.items()}}
    if folder.exists():
        if _origin(folder) == origin:
            return False
        raise CorpusError(f"{folder}: exists already and holds something else; remove it or choose another folder")
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # left by a job that died
    try:
        for split in splits.values():
            _write_split(corpus, split, part)
        (part / "origin.json").write_text(json.dumps(origin, indent=1), encoding="utf-8")
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return True


def _origin(folder: Path) -> Any:
    try:
        return json.loads((folder / "origin.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _write_split(corpus: Corpus, split: Split, folder: Path) -> None:
    texts: list[list[str]] = [[] for _ in split.image_ids]
    for image, text in split.pairs:
        texts[image].append(split.texts[text])
    (folder / "images" / split.name).mkdir(parents=True)
    images, rows = corpus.images, {}
    for number, image in enumerate(progress(split.image_ids, f"images of {split.name}")):
        data = images.read(image)
        with Image.open(io.BytesIO(data)) as picture:
            suffix = {"JPEG": "jpg"}.get(str(picture.format), str(picture.format).lower())
        path = f"images/{split.name}/{number:07}.{suffix}"
        (folder / path).write_bytes(data)
        rows[image] = {"image_path": path, "captions": texts[number]}
    text = json.dumps(rows, ensure_ascii=False, indent=1)
    (folder / f"{split.name}{ENDING}").write_text(text, encoding="utf-8")
