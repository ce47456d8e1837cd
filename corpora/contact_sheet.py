"""A sheet of pictures with texts under them, to be looked at: some of a corpus, say, with their first captions."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from corpora.corpus import Corpus, Split

SIDE, GAP, LINES = 200, 8, 3
FONT_SIZE = 12
LETTERS = SIDE * 2 // FONT_SIZE
"""That fit into a line under a picture."""
COLUMNS = 8


def contact_sheet(corpus: Corpus, count: int, seed: int) -> Image.Image:
    """About `count` pictures, the same of every split, drawn by the seed and in the corpus' order; each over its first caption or its class."""
    splits = [split for split in map(corpus.split, corpus.info["splits"]) if split.image_ids]
    rng = np.random.default_rng(seed)
    cells = []
    for split in splits:
        share = min(len(split.image_ids), max(1, count // len(splits)))
        chosen = np.sort(rng.choice(len(split.image_ids), share, replace=False))
        cells += [_cell_of(corpus, split, int(image)) for image in chosen]
    return sheet(cells)


def sheet(cells: Sequence[Image.Image]) -> Image.Image:
    """Cells, at least one, in rows."""
    width, height = SIDE + GAP, SIDE + (LINES + 1) * (FONT_SIZE + 3) + GAP
    rows = -(-len(cells) // COLUMNS)
    whole = Image.new("RGB", (min(COLUMNS, len(cells)) * width + GAP, rows * height + GAP), "white")
    for number, one in enumerate(cells):
        whole.paste(one, (GAP + number % COLUMNS * width, GAP + number // COLUMNS * height))
    return whole


def cell(picture: Image.Image | None, heading: str, text: str) -> Image.Image:
    """A picture, if there is one, over a line and a text that is cut to its place."""
    framed = Image.new("RGB", (SIDE, SIDE + (LINES + 1) * (FONT_SIZE + 3)), "white")
    if picture is not None:
        small = picture.copy()
        small.thumbnail((SIDE, SIDE))
        framed.paste(small, ((SIDE - small.width) // 2, (SIDE - small.height) // 2))
    lines = [heading[:LETTERS], *textwrap.wrap(text, LETTERS, max_lines=LINES, placeholder=" ...")]
    font = ImageFont.load_default(FONT_SIZE)
    ImageDraw.Draw(framed).multiline_text((0, SIDE + 2), "\n".join(lines), "black", font, spacing=2)
    return framed


def _cell_of(corpus: Corpus, split: Split, image: int) -> Image.Image:
    first = np.searchsorted(split.pairs[:, 0], image)
    text = split.texts[split.pairs[first, 1]] if len(split.pairs) else split.classes[image]
    return cell(corpus.images.picture(split.image_ids[image]), f"{split.name}: {split.image_ids[image]}", text)
