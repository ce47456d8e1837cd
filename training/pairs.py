"""Which image-text pairs go together, and how to draw one that does not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class PairSet:
    """The known pairs of a split: `pairs` (P, 2) int, image index and text index."""

    pairs: np.ndarray
    images: int
    texts: int

    @cached_property
    def _codes(self) -> np.ndarray:
        return np.sort(self.pairs[:, 0] * self.texts + self.pairs[:, 1])

    def related(self, image: np.ndarray, text: np.ndarray) -> np.ndarray:
        """Whether each text is known to describe each image; broadcasts."""
        code = np.asarray(image) * self.texts + np.asarray(text)
        place = np.searchsorted(self._codes, code).clip(max=len(self._codes) - 1)
        result: np.ndarray = self._codes[place] == code
        return result

    @cached_property
    def _texts_of_image(self) -> np.ndarray:
        """(images, K) text indices of every image, filled up with -1."""
        pairs = self.pairs[np.argsort(self.pairs[:, 0], kind="stable")]
        counts = np.bincount(pairs[:, 0], minlength=self.images)
        place = np.arange(len(pairs)) - np.repeat(counts.cumsum() - counts, counts)
        table = np.full((self.images, counts.max()), -1)
        table[pairs[:, 0], place] = pairs[:, 1]
        return table

    def known(self, samples: np.ndarray) -> dict[str, np.ndarray]:
        """`own_text` (B,) of sampled pairs and `texts_of_image` (B, K), all texts of their images, filled up with -1.

        From these `losses.related` tells which texts fit which images, whichever process they are on.
        """
        images, texts = self.pairs[samples].T
        return {"own_text": texts, "texts_of_image": self._texts_of_image[images]}

    @cached_property
    def _pairs_of_image(self) -> tuple[np.ndarray, np.ndarray]:
        """Pair indices by image, and where those of each image begin; its end is where the next begins."""
        order = np.argsort(self.pairs[:, 0], kind="stable")
        return order, np.searchsorted(self.pairs[order, 0], np.arange(self.images + 1))

    def one_each(self, images: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """(B,) pair indices: one pair of each image."""
        order, start = self._pairs_of_image
        drawn = zip(images.tolist(), sample_generators(images, generator), strict=True)
        return np.array([order[draw.integers(start[image], start[image + 1])] for image, draw in drawn])

    def unaligned(self, image: int, text: int, generator: np.random.Generator) -> tuple[int, int]:
        """A pair that does not belong together: half the time another text for the image, else another image for the text."""
        for _ in range(1000):
            drawn = (
                (image, int(generator.integers(self.texts)))
                if generator.random() < 0.5
                else (int(generator.integers(self.images)), text)
            )
            if not self.related(*map(np.asarray, drawn)):
                return drawn
        raise ValueError(f"no unrelated pair found for image {image} and text {text}: does every text describe every image?")

    def paired_samples(self, samples: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Oscar's sampling (Li et al. 2020): each sampled pair with label 1 and an unaligned one with label 0: (2 B, 2), (2 B,)."""
        own = self.pairs[samples]
        drawn = zip(own.tolist(), sample_generators(samples, generator), strict=True)
        other = [self.unaligned(image, text, draw) for (image, text), draw in drawn]
        return np.concatenate([own, np.array(other)]), np.repeat([1.0, 0.0], len(own))

    @staticmethod
    def check_share(prob_unaligned: float) -> None:
        """Refuse a share of unaligned pairs that leaves one kind of label only."""
        if not 0 < prob_unaligned < 1:
            raise ValueError(
                f"--prob-unaligned {prob_unaligned}: must lie between 0 and 1. At 0 every label is 1 and the model only learns to say yes"
            )

    def mixed_samples(
        self, samples: np.ndarray, generator: np.random.Generator, prob_unaligned: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """lxmert_clip_tiir's sampling: each pair is made unaligned with this probability: pairs (B, 2), labels (B,)."""
        pairs, labels = [], []
        for (image, text), draw in zip(self.pairs[samples].tolist(), sample_generators(samples, generator), strict=True):
            labels.append(float(draw.random() >= prob_unaligned))
            pairs.append((image, text) if labels[-1] else self.unaligned(image, text, draw))
        return np.array(pairs), np.array(labels)


def sample_generators(samples: np.ndarray, generator: np.random.Generator) -> Iterator[np.random.Generator]:
    """One for each sample, whoever else is in its part of the batch: any number of processes draws the same."""
    seed = int(generator.integers(2**63))
    return (np.random.default_rng([seed, sample]) for sample in samples.tolist())
