"""Stanford Online Products (Ebay_train.txt, Ebay_test.txt and the images) -> a corpus of images with classes and no texts.

The lists: a line "image_id class_id super_class_id path", then one image a line (Song et al. 2016, "Deep Metric Learning via Lifted
Structured Feature Embedding"). The whole set has 59,551 images of 11,318 classes in train and 60,502 of 11,316 in test.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from corpora.corpus import CorpusError
from preprocess.build import build
from preprocess.entries import Entry
from preprocess.image_lists import check_image_list, write_image_lists
from preprocess.packing import Packing
from preprocess.source_files import check_ids, checked_id, read_lines, sha256_of

COLUMNS = ["image_id", "class_id", "super_class_id", "path"]
EXPECTED = f'a line "{" ".join(COLUMNS)}", then one image a line, such as "1 1 1 bicycle_final/111085122871_0.JPG"'
SPLITS = ("train", "test")
LISTS = ("query", "gallery")
FILES = ("Ebay_train.txt", "Ebay_test.txt", "Ebay_info.txt", "query.txt", "gallery.txt")
SEED = 0


@dataclass(frozen=True)
class Product:
    """One line of a list."""

    path: str
    class_id: int
    super_class_id: int

    @property
    def id(self) -> str:
        """The path without its suffix; image_id is not used, some copies of the layout begin anew in every list."""
        return str(PurePosixPath(self.path).with_suffix(""))


def prepare(
    lists: Path,
    images: Path,
    folder: Path,
    *,
    validation_classes: int = 2318,
    collection: str = "stanford-online-products",
    packing: Packing = Packing(),  # noqa: B008
) -> bool:
    """Build the corpus; False if it was not made now (preprocess.build).

    So many classes of train become split val (`split_classes`); 0 leaves train whole. query.txt and gallery.txt, lists of the same
    layout, become lists of image ids in the corpus folder. An image's class is "<super-class>/<class_id>".
    """
    present = [path for name in FILES if (path := lists / name).exists()]
    made_by = {
        "layout": "stanford online products",
        "images": str(images.resolve()),
        "validation_classes": validation_classes,
        "collection": collection,
    }
    sources = {path.name: sha256_of(path) for path in present}
    entries = read_entries(lists, images, validation_classes, collection)
    made = build(entries, folder, made_by=made_by, sources=sources, packing=packing)
    if (folder / "corpus.json").exists():
        keys = {name: lists / f"{name}.txt" for name in LISTS}
        write_image_lists(
            folder, {name: [row.id for row in read_products(path)] for name, path in keys.items() if path in present}
        )
    return made


def read_entries(lists: Path, images: Path, validation_classes: int, collection: str) -> Iterator[Entry]:
    """The images of Ebay_train.txt and Ebay_test.txt, checked against each other and against the other lists that are there."""
    rows = {split: read_products(lists / f"Ebay_{split}.txt") for split in SPLITS}
    everything = [row for split in SPLITS for row in rows[split]]
    check_ids([row.id for row in everything], "image", str(lists))
    names = _super_class_names(everything, lists)
    _check_classes(rows, lists)
    if (info := lists / "Ebay_info.txt").exists():
        _check_complete(everything, info)
    validation: set[int] = set()
    if validation_classes:
        validation = set(split_classes({row.class_id for row in rows["train"]}, validation_classes)[1])
    entries = [
        Entry(
            row.id,
            "val" if split == "train" and row.class_id in validation else split,
            images / row.path,
            class_name=f"{names[row.super_class_id]}/{row.class_id}",
            source=f"{collection}/{row.id}",
        )
        for split in SPLITS
        for row in rows[split]
    ]
    split_of = {entry.id: entry.split for entry in entries}
    for path in (lists / f"{name}.txt" for name in LISTS):
        if path.exists():
            check_image_list(path, [row.id for row in read_products(path)], split_of)
    yield from entries


def split_classes(classes: Iterable[int], validation: int) -> tuple[list[int], list[int]]:
    """(training, validation) classes: sorted, shuffled with seed 0, the last `validation` of them held out.

    For the 11,318 training classes and 2,318 it is the usual split of 9,000 and 2,318.
    """
    order = sorted(classes)
    if not 0 <= validation < len(order):
        raise CorpusError(f"--validation-classes {validation}: train has {len(order)} classes; expected 0 to {len(order) - 1}")
    random.Random(SEED).shuffle(order)
    return order[: len(order) - validation], order[len(order) - validation :]


def read_products(path: Path) -> list[Product]:
    """The images of one list."""
    rows: list[Product] = []
    for number, line in read_lines(path):
        columns = line.split()
        if number == 1 and columns != COLUMNS:
            raise CorpusError(f"{path}, line 1: {line[:80]!r}; expected {EXPECTED}")
        if number > 1:
            rows.append(_product(columns, f"{path}, line {number}: {line[:80]!r}"))
    if not rows:
        raise CorpusError(f"{path}: holds no images; expected {EXPECTED}")
    check_ids([row.id for row in rows], "image", str(path))
    return rows


def _product(columns: Sequence[str], where: str) -> Product:
    numbers, path = columns[:3], PurePosixPath(columns[-1] if columns else "")
    if len(columns) != 4 or not all(re.fullmatch(r"[1-9]\d{0,8}", number, re.ASCII) for number in numbers):
        raise CorpusError(f"{where}; expected {EXPECTED}")
    if path.is_absolute() or ".." in path.parts or not path.suffix:
        raise CorpusError(f"{where}: the path must be that of an image file inside the images' folder")
    checked_id(columns[3], where)
    return Product(columns[3], int(columns[1]), int(columns[2]))


def _super_class_names(rows: Iterable[Product], lists: Path) -> dict[int, str]:
    """Super-class number -> "bicycle" where its images lie in bicycle_final, else the number."""
    names: dict[int, str] = {}
    for row in rows:
        first = PurePosixPath(row.path).parts[0]
        name = first.removesuffix("_final") if first.endswith("_final") else str(row.super_class_id)
        if names.setdefault(row.super_class_id, name) != name:
            raise CorpusError(
                f"{lists}: {row.path} is of super-class {row.super_class_id}, whose other images are in {names[row.super_class_id]}_final"
            )
    if len(set(names.values())) < len(names):
        raise CorpusError(f"{lists}: two super-classes have one folder; the lists are damaged, unpack them again")
    return names


def _check_classes(rows: Mapping[str, Sequence[Product]], lists: Path) -> None:
    """A class is in one split, so that test asks for products never seen, and of one super-class."""
    shared = {row.class_id for row in rows["train"]} & {row.class_id for row in rows["test"]}
    if shared:
        raise CorpusError(f"{lists}: {len(shared)} classes are in train and in test, the first: {min(shared)}; expected none")
    super_class: dict[int, int] = {}
    for row in (row for split in rows.values() for row in split):
        if super_class.setdefault(row.class_id, row.super_class_id) != row.super_class_id:
            raise CorpusError(
                f"{lists}: class {row.class_id} is of super-class {super_class[row.class_id]} and, in the line of {row.path}, of {row.super_class_id}"
            )


def _check_complete(rows: Iterable[Product], info: Path) -> None:
    """Ebay_info.txt lists train and test together: by it a list that was cut at the end of a line is noticed."""
    listed, found = set(read_products(info)), set(rows)
    if listed != found:
        raise CorpusError(
            f"{info}: {len(listed - found)} of its {len(listed)} images are in neither Ebay_train.txt nor Ebay_test.txt, and "
            f"{len(found - listed)} of theirs are not in it; unpack the lists again"
        )
