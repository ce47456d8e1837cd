"""Captions of Oscar and VinVL (coco_ir: {train,minival,val,test}_captions.pt) and COCO's images -> a corpus folder.

A .pt file is a dictionary that torch saved: COCO's image number (an int, or a string in later copies) -> a list of captions, or
that list as a JSON string. minival, a small set to watch a training by, may repeat images of another split.
"""

from __future__ import annotations

import json
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from corpora.corpus import Corpus, CorpusError
from preprocess.build import build
from preprocess.coco_names import find_coco_image
from preprocess.entries import Entry
from preprocess.image_lists import check_image_list, read_image_list, write_image_lists
from preprocess.packing import Packing
from preprocess.source_files import check_ids, checked_text, numbered, sha256_of, shown

SPLITS = ("train", "val", "test")
LISTS = ("test_img_keys.tsv", "test_img_keys_1k.tsv", "minival_captions.pt")
EXPECTED = "a dictionary of COCO image numbers to lists of captions, saved by torch"


def prepare(captions: Path, images: Path, folder: Path, packing: Packing = Packing()) -> bool:  # noqa: B008
    """Build the corpus from the files of a folder; False if it was not made now (preprocess.build).

    Of train, val and test the files that are there become splits. test_img_keys.tsv, test_img_keys_1k.tsv and the images of
    minival become lists of ids, <name>.txt in the corpus folder; a minival of images that are in no other split becomes a split.
    Image ids are COCO's numbers, caption ids "<image>#<number from 0>".
    """
    splits = {split: path for split in SPLITS if (path := captions / f"{split}_captions.pt").exists()}
    if not splits:
        raise CorpusError(f"{captions}: holds none of {', '.join(f'{split}_captions.pt' for split in SPLITS)}; see --captions")
    lists = [path for name in LISTS if (path := captions / name).exists()]
    made_by = {"layout": "coco_ir", "images": str(images.resolve())}
    sources = {path.name: sha256_of(path) for path in (*splits.values(), *lists)}
    made = build(read_entries(splits, lists, images), folder, made_by=made_by, sources=sources, packing=packing)
    if (folder / "corpus.json").exists():
        there = Corpus(folder).info["splits"]
        write_image_lists(folder, {name: _read_list(path) for path in lists if (name := _name(path)) not in there})
    return made


def read_entries(splits: Mapping[str, Path], lists: Sequence[Path], images: Path) -> Iterator[Entry]:
    """The images of all splits, after they and the lists were checked against each other; an image in two splits is an error."""
    entries: dict[str, Entry] = {}
    for split, path in splits.items():
        _add(entries, path, split, images)
    split_of = {image: entry.split for image, entry in entries.items()}
    for path in lists:
        ids = _read_list(path)
        if path.suffix == ".pt" and split_of.keys().isdisjoint(ids):
            _add(entries, path, _name(path), images)
        else:
            check_image_list(path, ids, split_of)
    yield from entries.values()


def _add(entries: dict[str, Entry], path: Path, split: str, images: Path) -> None:
    rows = read_captions(path)
    twice = [image for image in rows if image in entries]
    if twice:
        raise CorpusError(
            f"{path}: {len(twice)} of its images are in split {entries[twice[0]].split} too, the first: {twice[0]}; remove one of the files"
        )
    for image, texts in rows.items():
        entries[image] = Entry(image, split, find_coco_image(images, int(image)), numbered(image, texts), source=f"coco/{image}")


def read_captions(path: Path) -> dict[str, list[str]]:
    """Image number -> captions of one .pt file. No code of the file is run: it is loaded with weights_only."""
    import torch

    try:
        _check_sums(path)
        rows = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # with torch's advice to load the file unsafely
        raise CorpusError(
            f"{path}: is damaged, or holds more than texts, numbers and lists, which is never loaded; expected {EXPECTED}"
        ) from None
    except Exception as error:  # torch lets KeyError, struct.error, UnpicklingError and others out of damaged files
        words = str(error).splitlines()[0] if str(error) else ""
        raise CorpusError(f"{path}: cannot be read ({type(error).__name__}: {words[:200]}); expected {EXPECTED}") from None
    if not isinstance(rows, dict) or not rows:
        raise CorpusError(f"{path}: holds {'nothing' if rows == {} else f'a {type(rows).__name__}'}; expected {EXPECTED}")
    numbers = [_number(key, path) for key in rows]
    check_ids(numbers, "image", str(path))
    return {number: _captions(texts, f"{path}: image {number}") for number, texts in zip(numbers, rows.values(), strict=True)}


def _check_sums(path: Path) -> None:
    """torch passes over the checksums of its zip files (those of versions before 1.6 have none)."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():
                raise ValueError(f"{damaged} does not have its checksum: download the file again")


def _number(key: object, path: Path) -> str:
    if isinstance(key, int) and not isinstance(key, bool) and 0 < key < 10**12:
        return str(key)
    if isinstance(key, str) and re.fullmatch(r"[1-9]\d{0,11}", key, re.ASCII):
        return key
    raise CorpusError(f"{path}: the image {shown(key)} is no COCO image number; expected {EXPECTED}")


def _captions(value: Any, where: str) -> list[str]:
    try:
        texts = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{where}: the captions are neither a list nor JSON ({error}); expected {EXPECTED}") from None
    if not isinstance(texts, list) or not texts:
        raise CorpusError(f"{where}: the captions are {shown(texts)}; expected {EXPECTED}")
    return [checked_text(text, where) for text in texts]


def _name(path: Path) -> str:
    return path.stem.removesuffix("_captions")


def _read_list(path: Path) -> list[str]:
    return list(read_captions(path)) if path.suffix == ".pt" else read_image_list(path)
