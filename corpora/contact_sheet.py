"""A sheet of pictures with texts under them, to be looked at: some of a corpus, say, with their first captions."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from math import ceil

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from corpora.corpus import Corpus, Split

SIDE, GAP = 200, 8
LINES = 5
"""Under a picture: two of the heading at most, and the text."""
FONT_SIZE = 12
FONT = ImageFont.load_default(FONT_SIZE)
COLUMNS = 8
MORE = " ..."


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
    width, height = SIDE + GAP, SIDE + LINES * (FONT_SIZE + 3) + GAP
    rows = -(-len(cells) // COLUMNS)
    whole = Image.new("RGB", (min(COLUMNS, len(cells)) * width + GAP, rows * height + GAP), "white")
    for number, one in enumerate(cells):
        whole.paste(one, (GAP + number % COLUMNS * width, GAP + number // COLUMNS * height))
    return whole


def cell(picture: Image.Image | None, heading: Sequence[str], text: str) -> Image.Image:
    """A picture, if there is one, over the lines of a heading and a text, which are cut to their place."""
    framed = Image.new("RGB", (SIDE, SIDE + LINES * (FONT_SIZE + 3)), "white")
    if picture is not None:
        small = picture.copy()
        small.thumbnail((SIDE, SIDE))
        framed.paste(small, ((SIDE - small.width) // 2, (SIDE - small.height) // 2))
    lines = [line for one in heading for line in fitted(one, 1)]
    lines += fitted(text, LINES - len(lines))
    ImageDraw.Draw(framed).multiline_text((0, SIDE + 2), "\n".join(lines), "black", FONT, spacing=2)
    return framed


def fitted(text: str, most: int) -> list[str]:
    """The text in so many lines at most, none wider than a picture; broken at spaces where there are any."""
    lines: list[str] = []
    rest = " ".join(text.split())[: SIDE * most]
    while rest and len(lines) < most:
        count = _letters(rest)
        if count < len(rest) and len(lines) == most - 1:
            lines.append(rest[: _letters(rest, MORE)].rstrip() + MORE)
            break
        if count < len(rest) and " " in rest[1 : count + 1]:
            count = rest.rindex(" ", 1, count + 1)
        lines.append(rest[:count])
        rest = rest[count:].lstrip()
    return lines


def _letters(text: str, end: str = "") -> int:
    """How many letters of a text, and this end after them, are no wider than a picture; one at least."""
    return max(1, bisect_right(range(len(text)), SIDE, key=lambda count: ceil(FONT.getlength(text[: count + 1] + end))))


def _cell_of(corpus: Corpus, split: Split, image: int) -> Image.Image:
    first = np.searchsorted(split.pairs[:, 0], image)
    text = split.texts[split.pairs[first, 1]] if len(split.pairs) else split.classes[image]
    return cell(corpus.images.picture(split.image_ids[image]), [f"{split.name}: {split.image_ids[image]}"], text)
