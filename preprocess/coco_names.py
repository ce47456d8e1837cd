"""COCO's file names: COCO_train2014_000000000009.jpg is picture 9 of train2014."""

from __future__ import annotations

import re
from pathlib import Path

FOLDERS = ("train2014", "val2014")
NAME = re.compile(r"COCO_(?:train|val|test)20\d\d_0*([1-9]\d*)", re.ASCII)


def coco_source(name: str) -> str:
    """ "coco/9" for the stem of a COCO file name, "" for any other."""
    number = NAME.fullmatch(name)
    return f"coco/{number[1]}" if number else ""


def find_coco_image(images: Path, number: int) -> Path:
    """The file of a COCO picture: in train2014 or val2014 or beside them, under COCO's name or as <number>.jpg; the first place if it is in none."""
    names = [(folder, f"COCO_{folder}_{number:012}.jpg") for folder in FOLDERS]
    places = (
        [images / folder / name for folder, name in names] + [images / name for _, name in names] + [images / f"{number}.jpg"]
    )
    return next((place for place in places if place.exists()), places[0])
