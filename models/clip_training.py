"""Training CLIP: symmetric InfoNCE over a batch of image-text pairs (Radford et al. 2021, figure 3)."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from corpora.corpus import Split
from models.clip import Clip, ClipInputs
from training.losses import softmax_loss
from training.pairs import PairSet

LARGEST_SCALE = math.log(100)
"""The paper clips the logit scale so that no logit is scaled by more than 100."""


class ClipPairs:
    """Makes batches from a split's pairs; runs in loader workers."""

    def __init__(self, split: Split, inputs: ClipInputs) -> None:
        self._split, self._inputs = split, inputs
        self._pairs = PairSet(split.pairs, len(split.image_ids), len(split.texts))

    def batch(self, samples: np.ndarray, generator: np.random.Generator) -> dict[str, Tensor]:
        """Pixels and tokens of B pairs, and `ignored` (B images, B texts): pairs off the diagonal that are relevant too."""
        images, texts = self._split.pairs[samples].T
        ignored = self._pairs.related(images[:, None], texts[None])
        np.fill_diagonal(ignored, False)
        pixels = self._inputs.images([self._split.image_ids[i] for i in images])
        return {**pixels, **self._inputs.texts([self._split.texts[i] for i in texts]), "ignored": torch.from_numpy(ignored)}

    def describe(self, samples: np.ndarray) -> list[str]:
        """Caption ids of samples."""
        return [self._split.text_ids[text] for text in self._split.pairs[samples, 1]]


class ClipTrainee(nn.Module):
    """CLIP with its loss: what the training loop runs."""

    def __init__(self, model: Clip) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """The mean of both directions' losses."""
        with torch.no_grad():
            self.model.logit_scale.clamp_(max=LARGEST_SCALE)
        scores = self.model.score(self.model.encode_images(batch), self.model.encode_texts(batch))
        own, ignored = torch.arange(len(scores), device=scores.device), batch["ignored"]
        return (softmax_loss(scores, own, ignored) + softmax_loss(scores.T, own, ignored.T)) / 2
