"""What the captions of a split say, of each caption and of each image, read once for all modules that ask why a query fails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from corpora.corpus import Corpus, Split
from error_analysis.language import Meaning, Reading, caption_counts, known, read, stem, with_kinds

RARE, SELDOM = 3, 300
"""A word is rare if fewer captions of the whole corpus have it, and no more than one in so many."""
LONG_ENOUGH = 5
"""Letters from which on an unknown word may be a misspelling of another."""
MUCH_MORE_OFTEN = 20
"""So many times as often must the word stand in the corpus that another is a misspelling of."""


@dataclass(frozen=True)
class Contents:
    """T captions and I images of a split."""

    split: Split
    readings: tuple[Reading, ...]
    """Of each caption."""
    said: tuple[Meaning, ...]
    """Of each image: all that its captions say together, and what kind of thing that is (a boy is a child and a person)."""
    counts: Counter[str]
    """In how many captions of the corpus, of all splits, each word stands."""
    counted: int
    """Captions of the corpus."""

    @classmethod
    def of(cls, split: Split, corpus: Corpus | None = None) -> Contents:
        """Read a split. Without its corpus, words are counted in the split alone."""
        texts = [split.texts] if corpus is None else [corpus.split(name).texts for name in corpus.info["splits"]]
        counts = sum((caption_counts(part) for part in texts), Counter())
        readings = read(split.texts)
        captions = captions_of(split)
        said = tuple(with_kinds(Meaning.together(readings[text].meaning for text in texts)) for texts in captions)
        return cls(split, readings, said, counts, sum(len(part) for part in texts))

    @cached_property
    def captions(self) -> tuple[np.ndarray, ...]:
        """Indices of the captions of each image."""
        return captions_of(self.split)

    def spoken(self, stems: Iterable[str]) -> str:
        """These stems as words that the captions use, in the order of the alphabet."""
        return ", ".join(sorted(self._words.get(one, one) for one in stems))

    @cached_property
    def _words(self) -> dict[str, str]:
        """The most frequent word of each stem."""
        tagged = Counter(pair for reading in self.readings for pair in zip(reading.words, reading.tags, strict=True))
        return {stem(word, tag): word for (word, tag), _ in reversed(tagged.most_common())}

    def rare(self, text: int) -> tuple[str, ...]:
        """The rare words of a caption, each once; a misspelling with what it seems to stand for."""
        words = dict.fromkeys(word for word in self.readings[text].words if self.counts[word] < RARE and not word.isdigit())
        said = {word: f"{word} ({meant}?)" if (meant := self._meant(word)) else word for word in words}
        return tuple(said[word] for word in words if said[word] != word or SELDOM * self.counts[word] <= self.counted)

    def misspelt(self, text: int) -> bool:
        return any(self.counts[word] < RARE and self._meant(word) for word in self.readings[text].words)

    def _meant(self, word: str) -> str:
        if word not in self._spellings:
            self._spellings[word] = meant(word, self.counts)
        return self._spellings[word]

    @cached_property
    def _spellings(self) -> dict[str, str]:
        return {}

    @cached_property
    def _having(self) -> dict[str, np.ndarray]:
        """For each word of the contents the images whose captions have it, as packed bits."""
        rows: dict[str, list[int]] = {}
        for image, meaning in enumerate(self.said):
            for word in meaning.content:
                rows.setdefault(word, []).append(image)
        return {word: _packed(images, len(self.said)) for word, images in rows.items()}

    def fitting(self, meaning: Meaning) -> int:
        """Of how many images the captions together have every word of this content. A caption that says nothing fits all."""
        if not meaning.content:
            return len(self.said)
        if not meaning.content <= self._having.keys():
            return 0
        return int(np.bitwise_count(np.bitwise_and.reduce([self._having[word] for word in meaning.content])).sum())


def meant(word: str, counts: Counter[str]) -> str:
    """The word that an unknown one seems to be a misspelling of: one letter added, left out, changed, or two exchanged; else ""."""
    from rapidfuzz.distance import OSA

    if len(word) < LONG_ENOUGH or known(word):
        return ""
    near = [
        other
        for other, count in counts.items()
        if abs(len(other) - len(word)) <= 1
        and count >= MUCH_MORE_OFTEN * counts[word]
        and OSA.distance(word, other, score_cutoff=1) == 1
        and not _inflected(word, other)
    ]
    return max(near, key=lambda other: (counts[other], other), default="")


def _inflected(word: str, other: str) -> bool:
    """Whether the words differ by a final s alone: a rare plural is no misspelling."""
    return word == f"{other}s" or other == f"{word}s"


def captions_of(split: Split) -> tuple[np.ndarray, ...]:
    """Indices of the captions of each image."""
    counts = np.bincount(split.pairs[:, 0], minlength=len(split.image_ids))
    return tuple(np.split(split.pairs[:, 1], np.cumsum(counts)[:-1]))[: len(counts)]


def _packed(members: Iterable[int], size: int) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[list(members)] = True
    return np.packbits(mask)
