"""What is all but the same: images by their looks, texts by their letters, items by the scores that a model gives them."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from corpora.images import ImageStore, decode_from
from corpora.store import StoreError
from error_analysis.language import words_of
from ranking.matrix import ROWS_AT_ONCE, Ranking

BITS, DIFFERENCE = 20, 50
"""Images look alike if their perceptual hashes differ in at most so many of 64 bits, and their thumbnails nowhere by more than this, of 255."""
SIDE = 10
"""Of the thumbnails, which tell apart what the hash does not: it is blind to colour."""
FUZZY = 95.0
"""Captions are alike from this rapidfuzz.fuzz.ratio on."""
SHARED_WORDS = 0.7
"""Only captions that share so many of the words of the one that has more are compared letter by letter."""
COLUMNS, SKETCH = 0.98, 256
"""Items are one to a model if their scores over all queries correlate so; estimated from so many random sums of them."""


@dataclass(frozen=True)
class Looks:
    """How N images look."""

    hashes: np.ndarray
    """(N,) uint64: imagehash's phash, of the brightness."""
    thumbnails: np.ndarray
    """(N, SIDE * SIDE * 3) int16, RGB."""
    sizes: np.ndarray
    """(N, 2) int64: width, height in pixels."""


@dataclass(frozen=True)
class Pairs:
    """Pairs of near-duplicates and how alike they are, best first."""

    pairs: np.ndarray
    """(P, 2) int64, the smaller index first."""
    values: np.ndarray
    """(P,)."""

    @property
    def of(self) -> dict[int, set[int]]:
        """The others of each that has one."""
        others: dict[int, set[int]] = defaultdict(set)
        for a, b in self.pairs.tolist():
            others[a].add(b)
            others[b].add(a)
        return dict(others)

    def rows(self) -> Iterator[tuple[int, int, float]]:
        return zip(*self.pairs.T.tolist(), self.values.tolist(), strict=True)


def looks(store: ImageStore, ids: Sequence[str]) -> Looks:
    """Decode images at low resolution and hash them, by as many threads as there are cores. StoreError names an image that cannot be decoded."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        found = list(pool.map(lambda key: _look(key, store.read(key), store.path), ids))
    return Looks(
        np.array([one[0] for one in found], np.uint64),
        np.array([one[1] for one in found], np.int16).reshape(len(ids), SIDE * SIDE * 3),
        np.array([one[2] for one in found], np.int64).reshape(len(ids), 2),
    )


def _look(key: str, data: bytes, path: Path) -> tuple[int, np.ndarray, tuple[int, int]]:
    from imagehash import phash

    try:
        picture = decode_from(data, 64)
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: image {key!r} cannot be decoded ({error}); prepare the corpus again") from None
    bits = np.packbits(phash(picture.pixels).hash)
    thumbnail = np.asarray(picture.pixels.resize((SIDE, SIDE), reducing_gap=2.0), np.int16)
    return int.from_bytes(bits.tobytes()), thumbnail.ravel(), (picture.width, picture.height)


def look_alikes(a: Looks, b: Looks | None = None) -> Pairs:
    """Pairs within `a`, or of `a` and `b`, that look alike; the value is the largest difference of their thumbnails, 0 for the same."""
    other = a if b is None else b
    near = [
        (start + rows, columns)
        for start in range(0, len(a.hashes), ROWS_AT_ONCE)
        for rows, columns in [
            np.nonzero(np.bitwise_count(a.hashes[start : start + ROWS_AT_ONCE, None] ^ other.hashes[None]) <= BITS)
        ]
    ]
    pairs = np.concatenate([np.stack(pair, axis=1) for pair in near]) if near else np.empty((0, 2), np.int64)
    pairs = pairs[pairs[:, 0] < pairs[:, 1]] if b is None else pairs
    difference = np.array([np.abs(a.thumbnails[i] - other.thumbnails[j]).max() for i, j in pairs], np.int64)
    return _sorted(pairs[difference <= DIFFERENCE], difference[difference <= DIFFERENCE])


def _sorted(pairs: np.ndarray, values: np.ndarray) -> Pairs:
    order = np.lexsort((*pairs.T[::-1], values)) if len(pairs) else np.empty(0, np.int64)
    return Pairs(pairs[order], values[order])


def normal(text: str) -> str:
    """A text by its words alone, for captions that are the same but for case and punctuation."""
    return " ".join(words_of(text))


def alike_texts(texts: Sequence[str]) -> Pairs:
    """Pairs of texts with the same words (value 100) or nearly the same letters (from FUZZY on), the most alike first.

    Texts without a word are left out.
    """
    from rapidfuzz import fuzz, process

    plain = [normal(text) for text in texts]
    distinct = sorted(set(plain) - {""})
    near = np.array(list(_sharing_words(distinct)), np.int64).reshape(-1, 2)
    ratios = process.cpdist([distinct[i] for i in near[:, 0]], [distinct[j] for j in near[:, 1]], scorer=fuzz.ratio)
    holders: dict[str, list[int]] = defaultdict(list)
    for index, text in enumerate(plain):
        holders[text].append(index)
    found = {(a, b): 100.0 for text in distinct for k, b in enumerate(holders[text]) for a in holders[text][:k]}
    for (i, j), ratio in zip(near.tolist(), ratios.tolist(), strict=True):
        if ratio >= FUZZY:
            found |= {(min(a, b), max(a, b)): ratio for a in holders[distinct[i]] for b in holders[distinct[j]]}
    pairs = _sorted(np.array(list(found), np.int64).reshape(-1, 2), -np.array(list(found.values())))
    return Pairs(pairs.pairs, -pairs.values)


def _sharing_words(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Pairs that share SHARED_WORDS of their words. Two such texts share one of their rarest words: only those are looked up.

    The prefix filter of Chaudhuri et al. (2006), "A primitive operator for similarity joins".
    """
    words = [set(text.split()) for text in texts]
    counts: dict[str, int] = defaultdict(int)
    for own in words:
        for word in own:
            counts[word] += 1
    having: dict[str, list[int]] = defaultdict(list)
    for i, own in enumerate(words):
        rarest = sorted(own, key=lambda word: (counts[word], word))[: len(own) - int(np.ceil(SHARED_WORDS * len(own))) + 1]
        for j in {j for word in rarest for j in having[word]}:
            if len(own & words[j]) >= SHARED_WORDS * max(len(own), len(words[j])):
                yield j, i
        for word in rarest:
            having[word].append(i)


def alike_columns(ranking: Ranking, seed: int = 0) -> Pairs:
    """Pairs of items that get nearly the same scores from all queries, the most alike first; the value is their correlation.

    The mean over the items is taken off each query's scores. Correlations are estimated from SKETCH random sums of each column
    (Johnson & Lindenstrauss), with a standard error of (1 - correlation ** 2) / sqrt(SKETCH). Of a re-ranked ranking the first scores are read.
    """
    rng = np.random.default_rng(seed)
    sketch = np.zeros((SKETCH, len(ranking.items.ids)), np.float32)
    total = np.zeros(len(ranking.items.ids))
    signs = np.zeros(SKETCH)
    size = np.float32(0)  # of scores, so that sums of huge ones are finite; a correlation does not depend on it
    for _, block in ranking.first.blocks():
        size = size or np.abs(block).max() or np.float32(0)
        scores = block / (size or 1)
        centred = scores - scores.mean(axis=1, keepdims=True)
        sign = rng.choice(np.array([-1, 1], np.float32), (SKETCH, len(block)))
        sketch += sign @ centred
        total += centred.sum(axis=0)
        signs += sign.sum(axis=1)
    sketch -= np.outer(signs, total / len(ranking.queries.ids)).astype(np.float32)
    return _correlated(sketch.T)


def _correlated(rows: np.ndarray) -> Pairs:
    """Pairs of rows whose cosine is at least COLUMNS; rows of zeros have none."""
    length = np.linalg.norm(rows, axis=1)
    unit = rows / np.where(length > 0, length, 1)[:, None]
    found = []
    for start in range(0, len(unit), ROWS_AT_ONCE):
        cosine = unit[start : start + ROWS_AT_ONCE] @ unit[start:].T
        i, j = np.nonzero(cosine >= COLUMNS)
        later = i < j
        found.append((start + i[later], start + j[later], cosine[i[later], j[later]]))
    first, second, value = (np.concatenate(part) for part in zip(*found, strict=True))
    pairs = _sorted(np.stack([first, second], axis=1).astype(np.int64), -value)
    return Pairs(pairs.pairs, -pairs.values)
