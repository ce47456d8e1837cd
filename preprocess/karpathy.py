"""Karpathy's caption files (dataset_coco.json, dataset_flickr30k.json, dataset_flickr8k.json) and their images -> a corpus folder.

The layout: {"images": [{"filename", "filepath"?, "cocoid"?, "split", "sentences": [{"raw", "sentid"}, ...]}, ...]}
(Karpathy and Fei-Fei 2015, "Deep Visual-Semantic Alignments for Generating Image Descriptions").
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from corpora.corpus import Caption, CorpusError, CorpusWriter, ImageRecord, already_made, file_sha256
from corpora.images import ImageWriter
from corpora.progress import progress
from corpora.store import check_unique
from preprocess.image_files import read_image_files, refuse_faults

EXPECTED = 'Karpathy\'s layout: {"images": [{"filename", "split", "sentences": [{"raw", "sentid"}, ...]}, ...]}'


@dataclass(frozen=True)
class Entry:
    """One image of the annotation file."""

    id: str
    split: str
    path: Path
    captions: tuple[Caption, ...]


def prepare(
    annotations: Path,
    images: Path,
    folder: Path,
    *,
    bad_images: Literal["stop", "skip"] = "stop",
    restval: Literal["train", "keep"] = "train",
) -> bool:
    """Build the corpus folder; False if the same corpus stands there already.

    An image's id is its `cocoid`, or the stem of its file name; a caption's is its `sentid`. All captions are kept, as they
    are but for outer spaces. `restval` (COCO's 30,504 further training images) goes to train. Images that are missing or
    cannot be decoded stop the work (after all were tried: one CorpusError, nothing is left behind) or are skipped with
    their captions and recorded as `left_out`.
    """
    made_by = {"layout": "karpathy", "images": str(images.resolve()), "bad_images": bad_images, "restval": restval}
    sources = {annotations.name: _sha256(annotations)}
    if already_made(folder, made_by, sources):
        return False
    if not images.is_dir():
        raise CorpusError(f"{images}: no such folder of images")
    entries = _entries(annotations, images, restval)
    with CorpusWriter(folder, made_by, sources) as corpus:
        with ImageWriter(corpus.part / "images.h5") as store:
            files = read_image_files([entry.path for entry in entries])
            for entry, file in progress(zip(entries, files, strict=True), "images", len(entries)):
                if file.fault:
                    corpus.left_out.append({"id": entry.id, "path": str(entry.path), "reason": file.fault})
                    continue
                store.add(entry.id, file.data)
                corpus.images.append(ImageRecord(entry.id, entry.split, file.width, file.height))
                corpus.captions += entry.captions
        if bad_images == "stop":
            refuse_faults(str(images), len(entries), corpus.left_out)
    return True


def _sha256(annotations: Path) -> str:
    try:
        return file_sha256(annotations)
    except OSError as error:
        raise CorpusError(f"{annotations}: cannot be read ({error.strerror})") from None


def _entries(annotations: Path, images: Path, restval: str) -> list[Entry]:
    """All images of the file, checked: ids are unique, every image has captions and every caption words."""
    try:
        rows = json.loads(annotations.read_text(encoding="utf-8"))["images"]
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CorpusError(f"{annotations}: not JSON ({error}); expected {EXPECTED}") from None
    except (KeyError, TypeError):
        raise CorpusError(f"{annotations}: no list of images; expected {EXPECTED}") from None
    if not isinstance(rows, list) or not rows:
        raise CorpusError(f"{annotations}: no list of images; expected {EXPECTED}")
    entries = [_entry(row, i, annotations, images, restval) for i, row in enumerate(rows)]
    check_unique([entry.id for entry in entries], "image", str(annotations))
    check_unique([caption.id for entry in entries for caption in entry.captions], "caption", str(annotations))
    for what, bad in (
        ("images have no caption", [e.id for e in entries if not e.captions]),
        ("captions are empty", [c.id for e in entries for c in e.captions if not c.text]),
    ):
        if bad:
            raise CorpusError(f"{annotations}: {len(bad)} {what}, the first: {', '.join(bad[:3])}; correct or remove them")
    return entries


def _entry(row: dict[str, Any], number: int, annotations: Path, images: Path, restval: str) -> Entry:
    try:
        name, split = str(row["filename"]), str(row["split"])
        image_id = str(row["cocoid"]) if "cocoid" in row else Path(name).stem
        strays = [s["sentid"] for s in row["sentences"] if "imgid" in s and s["imgid"] != row["imgid"]]
        captions = tuple(Caption(str(s["sentid"]), s["raw"].strip(), (image_id,)) for s in row["sentences"])
    except (KeyError, TypeError, AttributeError) as error:
        raise CorpusError(
            f"{annotations}: image {number} is damaged ({type(error).__name__}: {error}); expected {EXPECTED}"
        ) from None
    if strays:
        raise CorpusError(f"{annotations}: caption {strays[0]} stands under image {image_id} and names another imgid")
    places = [images / str(row.get("filepath", "")) / name, images / name]
    path = next((place for place in places if place.exists()), places[0])
    return Entry(image_id, "train" if (split, restval) == ("restval", "train") else split, path, captions)
