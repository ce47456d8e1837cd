"""Pictures as they might have been taken otherwise. Every change is drawn from the generator that is given."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

Augmentation = Literal["none", "flip", "crop", "crop-colour"]
"""flip: as published, half the pictures mirrored; crop: also a random part of the picture; crop-colour: also its light and colours."""

SHARES, RATIOS = (0.2, 1.0), (3 / 4, 4 / 3)
"""Of the area that a crop keeps, and of its width to its height (Szegedy et al. 2015)."""
STRENGTH = 0.2
"""By which brightness, contrast and saturation go up or down."""


def augmented(picture: Image.Image, how: Augmentation, generator: np.random.Generator) -> Image.Image:
    """The picture or a changed copy; a crop has a size of its own."""
    if how in ("crop", "crop-colour"):
        picture = picture.crop(crop_box(picture.width, picture.height, generator))
    if how != "none" and generator.random() < 0.5:
        picture = ImageOps.mirror(picture)
    if how == "crop-colour":
        for change in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
            picture = change(picture).enhance(generator.uniform(1 - STRENGTH, 1 + STRENGTH))
    return picture


def crop_box(width: int, height: int, generator: np.random.Generator) -> tuple[int, int, int, int]:
    """Left, upper, right, lower of a random crop; all of the picture if ten attempts do not fit into it."""
    for _ in range(10):
        area = width * height * generator.uniform(*SHARES)
        ratio = math.exp(generator.uniform(*np.log(RATIOS)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, upper = (int(generator.integers(0, room + 1)) for room in (width - w, height - h))
            return left, upper, left + w, upper + h
    return 0, 0, width, height
