"""A sheet of some of a corpus' pictures with their first captions, to be looked at."""

from __future__ import annotations

import textwrap

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
        cells += [_cell(corpus, split, int(image)) for image in chosen]
    width, height = SIDE + GAP, SIDE + (LINES + 1) * (FONT_SIZE + 3) + GAP
    rows = -(-len(cells) // COLUMNS)
    sheet = Image.new("RGB", (min(COLUMNS, len(cells)) * width + GAP, rows * height + GAP), "white")
    for number, cell in enumerate(cells):
        sheet.paste(cell, (GAP + number % COLUMNS * width, GAP + number // COLUMNS * height))
    return sheet


def _cell(corpus: Corpus, split: Split, image: int) -> Image.Image:
    cell = Image.new("RGB", (SIDE, SIDE + (LINES + 1) * (FONT_SIZE + 3)), "white")
    picture = corpus.images.picture(split.image_ids[image])
    picture.thumbnail((SIDE, SIDE))
    cell.paste(picture, ((SIDE - picture.width) // 2, (SIDE - picture.height) // 2))
    first = np.searchsorted(split.pairs[:, 0], image)
    text = split.texts[split.pairs[first, 1]] if len(split.pairs) else split.classes[image]
    lines = [
        f"{split.name}: {split.image_ids[image]}"[:LETTERS],
        *textwrap.wrap(text, LETTERS, max_lines=LINES, placeholder=" ..."),
    ]
    font = ImageFont.load_default(FONT_SIZE)
    ImageDraw.Draw(cell).multiline_text((0, SIDE + 2), "\n".join(lines), "black", font, spacing=2)
    return cell
