"""Training CLIP: symmetric InfoNCE over a batch of image-text pairs (Radford et al. 2021, figure 3).

Several processes exchange their vectors, so every pair is compared with the whole batch, however many share it.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from corpora.corpus import Split
from models.clip import Clip, ClipInputs
from training.chunking import in_chunks
from training.in_batch import in_batch
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
        """Pixels and tokens of B pairs, and what fits what (`PairSet.known`)."""
        images, texts = self._split.pairs[samples].T
        pixels = self._inputs.images([self._split.image_ids[i] for i in images])
        tokens = self._inputs.texts([self._split.texts[i] for i in texts])
        return {**pixels, **tokens} | {key: torch.from_numpy(value) for key, value in self._pairs.known(samples).items()}

    def describe(self, samples: np.ndarray) -> list[str]:
        """Caption ids of samples."""
        return [self._split.text_ids[text] for text in self._split.pairs[samples, 1]]


class ClipTrainee(nn.Module):
    """CLIP with its loss: what the training loop runs. `chunk`: pairs encoded at once (`training.chunking`)."""

    def __init__(self, model: Clip, chunk: int = 0) -> None:
        super().__init__()
        self.model, self._chunk = model, chunk

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """The mean of both directions' losses over this process's pairs. Pairs that are relevant too are no negatives."""
        with torch.no_grad():
            self.model.logit_scale.clamp_(max=LARGEST_SCALE)
        tokens = {key: batch[key] for key in ("input_ids", "attention_mask")}
        (images,) = in_chunks(self.model.encode_images, {"pixel_values": batch["pixel_values"]}, self._chunk)
        (texts,) = in_chunks(self.model.encode_texts, tokens, self._chunk)
        i2t, t2i = in_batch(lambda images, texts: self.model.score((images,), (texts,)), images, texts, batch)
        return (softmax_loss(*i2t) + softmax_loss(*t2i)) / 2
