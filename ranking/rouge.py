"""ROUGE-L (Lin 2004) of every caption against the captions of every image: graded relevance for NDCG.

As the image-captioning evaluation of COCO defines it: words split at blanks, lower case; the best precision and the best
recall over an image's captions, whichever captions they come from; F with beta 1.2. All longest common subsequences of one
caption with all others are computed side by side, a bit a word (Hyyro 2004).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

BETA = 1.2
WORD_BITS = 64


class RougeL:
    """ROUGE-L of any caption against images, each with its captions: `pairs` (P, 2) of image and caption indices."""

    def __init__(self, captions: Sequence[str], pairs: np.ndarray, images: int) -> None:
        pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
        if not np.array_equal(np.unique(pairs[:, 0]), np.arange(images)):
            raise ValueError("ROUGE-L: every image needs a caption")
        self._caption, self._start = pairs[:, 1], np.searchsorted(pairs[:, 0], np.arange(images))
        tokens = [words(caption) for caption in captions]
        self._number = {word: number for number, word in enumerate(dict.fromkeys(word for row in tokens for word in row))}
        rows = [np.array([self._number[word] for word in row]) for row in tokens]
        self._lengths = np.array([len(row) for row in rows])
        self._order = np.argsort(-self._lengths, kind="stable")
        # Column j holds word j of all captions that are so long: the first ones, as the longest come first.
        longest = [rows[row] for row in self._order]
        counts = np.searchsorted(-self._lengths[self._order], -np.arange(self._lengths.max()), side="left")
        self._columns = [np.array([row[j] for row in longest[:count]]) for j, count in enumerate(counts)]

    def against_images(self, caption: str) -> np.ndarray:
        """(images,) float32 in [0, 1]."""
        query = words(caption)
        common = self.common(query)[self._caption]
        precision = np.maximum.reduceat(common, self._start) / len(query)
        recall = np.maximum.reduceat(common / self._lengths[self._caption], self._start)
        with np.errstate(invalid="ignore"):  # 0 / 0 where nothing is common
            score = (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)
        return np.where(precision > 0, score, 0.0).astype(np.float32)

    def common(self, query: Sequence[str]) -> np.ndarray:
        """(captions,) int: length of the longest common subsequence of words with each caption."""
        if len(query) > WORD_BITS:
            return self._common_with_long(query)
        places = np.zeros(len(self._number), np.uint64)
        for place, word in enumerate(query):
            if word in self._number:
                places[self._number[word]] |= np.uint64(1 << place)
        state = np.full(len(self._lengths), (1 << len(query)) - 1, np.uint64)
        for column in self._columns:
            part, matches = state[: len(column)], places[column]
            matches &= part
            kept = part ^ matches
            part += matches  # may run over the end: bits beyond the query are never counted
            part |= kept
        state = ~state & np.uint64((1 << len(query)) - 1)
        common = np.empty(len(state), np.int64)
        common[self._order] = np.bitwise_count(state)
        return common

    def _common_with_long(self, query: Sequence[str]) -> np.ndarray:
        """The same in Python's own integers, which have any number of bits."""
        places: dict[int, int] = {}
        for place, word in enumerate(query):
            if word in self._number:
                places[self._number[word]] = places.get(self._number[word], 0) | 1 << place
        full = (1 << len(query)) - 1
        states = [full] * len(self._lengths)
        for column in self._columns:
            for row, word in enumerate(column.tolist()):
                matches = states[row] & places.get(word, 0)
                states[row] = (states[row] + matches) | (states[row] ^ matches)
        common = np.empty(len(states), np.int64)
        common[self._order] = [(~state & full).bit_count() for state in states]
        return common


def words(caption: str) -> list[str]:
    """As the original splits: at every blank, so that two blanks have an empty word between them."""
    return caption.lower().split(" ")
