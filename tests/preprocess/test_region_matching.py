"""Rows find their images by id, stem and COCO number, and never two images by one name."""

from __future__ import annotations

from pathlib import Path

import pytest

from corpora.corpus import CorpusError, ImageRecord
from preprocess.region_matching import match_rows
from preprocess.region_npz import StackedNpz


def matched(names: list[str], ids: list[str], sources: list[str] | None = None) -> list[str]:
    images = {
        key: ImageRecord(key, "train", 1, 1, source=source) for key, source in zip(ids, sources or [""] * len(ids), strict=True)
    }
    return match_rows([(StackedNpz(Path("a.npz")), names)], images)[0]


@pytest.mark.parametrize(
    ("name", "image_id"),
    [
        ("391895", "391895"),
        ("COCO_val2014_000000391895", "391895"),
        ("val2014/COCO_val2014_000000391895.jpg", "391895"),
        ("391895", "COCO_val2014_000000391895"),
        ("391895.jpg", "COCO_val2014_000000391895"),
        ("images/dog_1.jpg", "dog_1"),
        ("dog_1", "dog_1.jpg"),
    ],
)
def test_names_of_one_image(name, image_id):
    assert matched([name, "stranger"], [image_id]) == [image_id, ""]


def test_the_source_of_an_image_tells_its_coco_number():
    assert matched(["COCO_train2014_000000000009"], ["first"], ["coco/9"]) == ["first"]


def test_a_name_that_fits_two_images_fits_none():
    with pytest.raises(CorpusError, match=r"2 of 2 images have no regions in a\.npz, the first: dog\.jpg, dog\.png"):
        matched(["dog"], ["dog.jpg", "dog.png"])
    assert matched(["dog.png", "dog.jpg"], ["dog.jpg", "dog.png"]) == ["dog.png", "dog.jpg"]


def test_an_id_goes_before_a_number_of_another():
    assert matched(["9", "COCO_train2014_000000000009"], ["9", "COCO_train2014_000000000009"]) == [
        "9",
        "COCO_train2014_000000000009",
    ]


def test_strangers_are_counted(capsys):
    assert matched(["a", "b", "c"], ["b"]) == ["", "b", ""]
    assert "2 rows belong to no image of the corpus and are passed over" in capsys.readouterr().err
