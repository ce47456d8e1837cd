"""Images and captions of a split that are all but the same, and those that stand in another split too."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from corpora.corpus import Corpus, Split
from corpora.images import ImageStore
from corpora.leakage import trained_on
from error_analysis.analysis import Analysis, Model
from error_analysis.likeness import (
    BITS,
    COLUMNS,
    DIFFERENCE,
    FUZZY,
    SIDE,
    Looks,
    Pairs,
    alike_columns,
    alike_texts,
    look_alikes,
    looks,
    normal,
)
from error_analysis.mining import Direction
from error_analysis.section import Column, Section, Table

MOST_LOOKS = 10_000
"""Images of other splits that are decoded to look for look-alikes; beyond that only identical files are found."""


@dataclass(frozen=True)
class Leak:
    """An image or caption of the split that stands in another split too."""

    kind: Literal["image", "caption"]
    id: str
    split: str
    """The other split, and the id there."""
    other: str
    how: str


@dataclass(frozen=True)
class Duplicates:
    """Near-duplicates of a split."""

    images: Pairs
    """Without images there are none."""
    texts: Pairs
    """Of captions that describe no image in common."""
    sizes: np.ndarray
    """(images, 2) width, height; (0, 2) without images."""
    leaks: tuple[Leak, ...]
    unseen: int
    """Images of other splits that were not decoded for look-alikes: they were too many."""

    @classmethod
    def of(cls, split: Split, corpus: Corpus) -> Duplicates:
        """Look through a split, and for what stands in the corpus's other splits too."""
        others = [other for name in corpus.info["splits"] if name != split.name for other in [corpus.split(name)]]
        alike = alike_texts(split.texts)
        apart = np.array([not shared for shared in _sharing_images(split, alike.pairs)], bool)
        texts = Pairs(alike.pairs[apart], alike.values[apart])
        leaks = [leak for other in others for leak in _shared_captions(split, other)]
        if not (corpus.folder / "images.h5").exists():
            return cls(Pairs(np.empty((0, 2), np.int64), np.empty(0)), texts, np.empty((0, 2), np.int64), tuple(leaks), 0)
        store = corpus.images
        seen = looks(store, split.image_ids)
        many = sum(len(other.image_ids) for other in others)
        leaks = [leak for other in others for leak in _shared_images(split, seen, other, store, many <= MOST_LOOKS)] + leaks
        return cls(look_alikes(seen), texts, seen.sizes, tuple(leaks), many if many > MOST_LOOKS else 0)


def _sharing_images(split: Split, pairs: np.ndarray) -> Iterator[bool]:
    images: dict[int, set[int]] = defaultdict(set)
    for image, text in split.pairs.tolist():
        images[text].add(image)
    return (bool(images[a] & images[b]) for a, b in pairs.tolist())


def _shared_captions(split: Split, other: Split) -> Iterator[Leak]:
    there = {normal(text): key for key, text in zip(reversed(other.text_ids), reversed(other.texts), strict=True)}
    for key, text in zip(split.text_ids, split.texts, strict=True):
        if (plain := normal(text)) and plain in there:
            yield Leak("caption", key, other.name, there[plain], "same words")


def _shared_images(split: Split, seen: Looks, other: Split, store: ImageStore, decode: bool) -> Iterator[Leak]:
    """Identical files, and where `decode` says so look-alikes too."""
    digest = dict(zip(store.ids, store.digests(), strict=True))
    there = {digest[key]: key for key in reversed(other.image_ids)}
    for key in split.image_ids:
        if digest[key] in there:
            yield Leak("image", key, other.name, there[digest[key]], "same file")
    if not decode:
        return
    for i, j, value in look_alikes(seen, looks(store, other.image_ids)).rows():
        here, elsewhere = split.image_ids[i], other.image_ids[j]
        if digest[here] != digest[elsewhere]:
            yield Leak("image", here, other.name, elsewhere, f"looks alike, pixels differ by up to {value:.0f} of 255")


def section(analysis: Analysis, duplicates: Duplicates) -> Section:
    """Near-duplicates within the split, to a model, and across splits."""
    split = analysis.split
    columns = {model.name: alike_columns(model.retrievals["t2i"].ranking) for model in analysis.models}
    tables = [
        _pair_table(
            "image-look-alikes", "Images that look alike", "t2i", split.image_ids, duplicates.images, "Largest difference"
        ),
        _pair_table("caption-near-duplicates", "Captions that are alike", "i2t", split.text_ids, duplicates.texts, "Likeness"),
        *(
            _pair_table(
                f"one-to-model-{i}", f"Images that {name} hardly tells apart", "t2i", split.image_ids, pairs, "Correlation"
            )
            for i, (name, pairs) in enumerate(columns.items(), 1)
        ),
        _leak_table("image", duplicates.leaks),
        _leak_table("caption", duplicates.leaks),
    ]
    sentences = (*_within(split, duplicates), *_to_models(columns, duplicates.images), *_across(analysis, duplicates))
    return Section("near-duplicates", "Near-duplicates and leakage", sentences, tuple(table for table in tables if table.rows))


def _pair_table(name: str, title: str, direction: Direction, ids: Sequence[str], found: Pairs, value: str) -> Table:
    rows = tuple((ids[a], ids[b], round(number, 4)) for a, b, number in found.rows())
    note = {
        "t2i": f"Perceptual hashes at most {BITS} of 64 bits apart, thumbnails of {SIDE} x {SIDE} pixels nowhere more than {DIFFERENCE} of 255.",
        "i2t": f"Captions of different images with the same words (100) or nearly the same letters (rapidfuzz's ratio from {FUZZY:.0f} on).",
    }[direction]
    if value == "Correlation":
        note = f"Scores over all captions, less each caption's mean, that correlate by {COLUMNS} or more (estimated)."
    return Table(name, title, (Column("One", "item"), Column("Other", "item"), Column(value, "figure")), rows, note, direction)


def _leak_table(kind: Literal["image", "caption"], leaks: Sequence[Leak]) -> Table:
    direction: Direction = "i2t" if kind == "image" else "t2i"
    rows = tuple((leak.id, leak.split, leak.other, leak.how) for leak in leaks if leak.kind == kind)
    columns = Column(kind.capitalize(), "query"), Column("Other split"), Column("Id there"), Column("How")
    return Table(f"leaked-{kind}s", f"{kind.capitalize()}s that stand in another split too", columns, rows, direction=direction)


def _within(split: Split, duplicates: Duplicates) -> Iterator[str]:
    images, texts = len(duplicates.images.of), len(duplicates.texts.of)
    if not len(duplicates.sizes):
        yield "The corpus folder holds no images, so look-alikes were not searched."
    elif images:
        yield (
            f"{images:,} of {len(split.image_ids):,} images look like another one of the split: which of the two is put first is "
            "nearly chance."
        )
    else:
        yield f"None of the {len(split.image_ids):,} images looks like another one of the split."
    if split.texts:
        same = len({int(text) for pair in duplicates.texts.pairs[duplicates.texts.values == 100] for text in pair})
        yield (
            f"{texts:,} of {len(split.texts):,} captions are all but the same as a caption of another image"
            + (f", {same:,} of them word for word." if texts else ".")
        )


def _to_models(columns: dict[str, Pairs], images: Pairs) -> Iterator[str]:
    alike = set(map(tuple, images.pairs.tolist()))
    for name, found in columns.items():
        if len(found.pairs):
            known = sum(tuple(pair) in alike for pair in found.pairs.tolist())
            count = len(found.pairs)
            yield f"{name} hardly tells {count:,} pair{'s' if count > 1 else ''} of images apart; {known:,} of them do look alike."


def _across(analysis: Analysis, duplicates: Duplicates) -> Iterator[str]:
    for name in dict.fromkeys(leak.split for leak in duplicates.leaks):
        counts = [
            len({leak.id for leak in duplicates.leaks if (leak.kind, leak.split) == (kind, name)})
            for kind in ("image", "caption")
        ]
        yield f"{counts[0]:,} images and {counts[1]:,} captions stand in split {name} too."
    if duplicates.unseen:
        yield f"The other splits have {duplicates.unseen:,} images: of those only identical files were looked for, not look-alikes."
    for model in analysis.models:
        yield from _seen(model, analysis.split)


def _seen(model: Model, split: Split) -> Iterator[str]:
    """R@1 on images that the checkpoint was trained on, and on the others."""
    known = trained_on(model.provenance.checkpoint)
    seen = np.array([source in known for source in split.sources], bool)
    if not seen.any():
        return
    hits = model.retrievals["i2t"].ranks <= 0
    others = f" and {hits[~seen].mean():.1%} of the others" if not seen.all() else ""
    yield f"{model.name} was trained on {seen.sum():,} of the {len(seen):,} images: a truth stands first for {hits[seen].mean():.1%} of these{others}."
