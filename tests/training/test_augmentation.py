"""Pictures that are changed: only as asked, and always the same way for the same numbers."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageOps

from training.augmentation import augmented, crop_box

PICTURE = Image.fromarray(np.random.default_rng(0).integers(60, 200, (40, 60, 3)).astype(np.uint8))


def changed(how: str, count: int) -> list[Image.Image]:
    return [augmented(PICTURE, how, np.random.default_rng(seed)) for seed in range(count)]


def test_none_and_flip():
    assert all(one.tobytes() == PICTURE.tobytes() for one in changed("none", 5))
    mirrored = ImageOps.mirror(PICTURE).tobytes()
    seen = [one.tobytes() for one in changed("flip", 200)]
    assert set(seen) == {PICTURE.tobytes(), mirrored} and 70 < seen.count(mirrored) < 130


def test_crops_keep_to_the_published_shares_and_ratios():
    boxes = np.array([crop_box(300, 200, np.random.default_rng(seed)) for seed in range(2000)])
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2] <= 300).all() and (boxes[:, 3] <= 200).all()
    share, ratio = width * height / 60000, width / height
    whole = (width == 300) & (height == 200)
    assert (
        share.min() == pytest.approx(0.2, abs=0.01)
        and share.max() > 0.8
        and ratio[~whole].min() > 0.74
        and ratio[~whole].max() < 1.35
    )
    assert boxes[:, 0].min() == 0 and boxes[:, 2].max() == 300 and boxes[:, 1].min() == 0 and boxes[:, 3].max() == 200


def test_a_picture_that_no_crop_fits_stays_whole():
    assert crop_box(1000, 1, np.random.default_rng(0)) == (0, 0, 1000, 1)


def test_a_crop_is_a_part_of_the_picture():
    for seed, crop in enumerate(changed("crop", 20)):
        box = crop_box(60, 40, np.random.default_rng(seed))
        part = PICTURE.crop(box)
        assert crop.tobytes() in (part.tobytes(), ImageOps.mirror(part).tobytes())


def test_colours_change_a_little():
    light = [np.asarray(one).mean() for one in changed("crop-colour", 200)]
    middle = np.asarray(PICTURE).mean()
    assert 0.75 * middle < min(light) < 0.87 * middle and 1.13 * middle < max(light) < 1.25 * middle


@pytest.mark.parametrize("how", ["flip", "crop", "crop-colour"])
def test_the_same_numbers_give_the_same_picture(how):
    assert [one.tobytes() for one in changed(how, 5)] == [one.tobytes() for one in changed(how, 5)]
