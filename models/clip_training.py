"""Training CLIP: symmetric InfoNCE over a batch of image-text pairs (Radford et al. 2021, figure 3).

Several processes exchange their vectors, so every pair is compared with the whole batch, however many share it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from corpora.corpus import Split
from models.clip import Clip, ClipInputs
from training.losses import softmax_loss
from training.processes import rank, size

LARGEST_SCALE = math.log(100)
"""The paper clips the logit scale so that no logit is scaled by more than 100."""


class ClipPairs:
    """Makes batches from a split's pairs; runs in loader workers."""

    def __init__(self, split: Split, inputs: ClipInputs) -> None:
        self._split, self._inputs = split, inputs
        self._texts_of = _texts_by_image(split.pairs, len(split.image_ids))

    def batch(self, samples: np.ndarray, generator: np.random.Generator) -> dict[str, Tensor]:
        """Pixels and tokens of B pairs; `text` (B,) their texts, `texts_of_image` (B, K) all texts of their images, filled up with -1."""
        images, texts = self._split.pairs[samples].T
        known = {"text": torch.from_numpy(texts), "texts_of_image": torch.from_numpy(self._texts_of[images])}
        pixels = self._inputs.images([self._split.image_ids[i] for i in images])
        return {**pixels, **self._inputs.texts([self._split.texts[i] for i in texts]), **known}

    def describe(self, samples: np.ndarray) -> list[str]:
        """Caption ids of samples."""
        return [self._split.text_ids[text] for text in self._split.pairs[samples, 1]]


class ClipTrainee(nn.Module):
    """CLIP with its loss: what the training loop runs."""

    def __init__(self, model: Clip) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """The mean of both directions' losses over this process's pairs. Pairs that are relevant too are no negatives."""
        with torch.no_grad():
            self.model.logit_scale.clamp_(max=LARGEST_SCALE)
        (images,), (texts,) = self.model.encode_images(batch), self.model.encode_texts(batch)
        text, texts_of_image = batch["text"], batch["texts_of_image"]
        own = rank() * len(text) + torch.arange(len(text), device=text.device)
        by_image = self.model.score((images,), (_gathered(texts),))
        by_text = self.model.score((_gathered(images),), (texts,)).T
        i2t = softmax_loss(by_image, own, _related(texts_of_image, _gathered(text)).scatter(1, own[:, None], False))
        t2i = softmax_loss(by_text, own, _related(_gathered(texts_of_image), text).T.scatter(1, own[:, None], False))
        return (i2t + t2i) / 2


def _texts_by_image(pairs: np.ndarray, images: int) -> np.ndarray:
    """(images, K) text indices of every image, filled up with -1; `pairs` (P, 2) are sorted."""
    counts = np.bincount(pairs[:, 0], minlength=images)
    place = np.arange(len(pairs)) - np.repeat(counts.cumsum() - counts, counts)
    table = np.full((images, counts.max()), -1)
    table[pairs[:, 0], place] = pairs[:, 1]
    return table


def _related(texts_of_image: Tensor, text: Tensor) -> Tensor:
    """(I, T): whether each text is among those of each image (I, K)."""
    return (texts_of_image[:, None] == text[:, None]).any(-1)


def _gathered(rows: Tensor) -> Tensor:
    """The rows of all processes, by rank; gradients go back to the process a row came from."""
    gathered: Tensor = _Gather.apply(rows) if size() > 1 else rows
    return gathered


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous()
        dist.all_reduce(total)  # what every process's loss makes of these rows
        return total.chunk(size())[rank()]
