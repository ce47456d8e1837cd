"""Training DE and SIAM: noise-contrastive loss over a batch of image-text pairs.

Published: for each text its own image against the batch's images of other ids, cosines as they are. They lie in [-1, 1], so at
128 pairs that loss starts at 4.85 and can never go below 2.90. A temperature divides them here; 1 is the published form.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.guided import DualEncoder
from training.chunking import in_chunks
from training.gathering import gathered
from training.in_batch import in_batch
from training.losses import softmax_loss
from training.processes import rank

OF_IMAGES = ("pixel_values", "image_vectors", "regions", "region_counts")
OF_TEXTS = ("input_ids", "attention_mask", "text_vectors")
TEXT_SIDE = ("model.tower.", "model.text.")
"""How names of the trainee's parameters begin that make text vectors."""


class GuidedTrainee(nn.Module):
    """A DE or SIAM with its loss: what the training loop runs. `chunk`: pairs encoded at once (`training.chunking`)."""

    def __init__(self, model: DualEncoder, temperature: float, symmetric: bool, chunk: int = 0) -> None:
        super().__init__()
        self.model, self._temperature, self._symmetric, self._chunk = model, temperature, symmetric, chunk

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """The mean loss over this process's texts; if symmetric, over its images too. Pairs that are relevant too are no negatives."""
        images = in_chunks(self.model.encode_images, _of(batch, OF_IMAGES), self._chunk)
        texts = in_chunks(self.model.encode_texts, _of(batch, OF_TEXTS), self._chunk)
        everyones = tuple(map(gathered, images)), tuple(map(gathered, texts))
        own = rank() * len(texts[0]) + torch.arange(len(texts[0]), device=texts[0].device)

        def score(*rows: Tensor) -> Tensor:
            sides = zip(everyones, rows, strict=True)
            chosen = [tuple(state.index_select(0, some) for state in states) for states, some in sides]
            return self.model.score(*chosen) / self._temperature

        i2t, t2i = in_batch(score, own, own, batch)
        return (softmax_loss(*i2t) + softmax_loss(*t2i)) / 2 if self._symmetric else softmax_loss(*t2i)


def _of(batch: dict[str, Tensor], names: tuple[str, ...]) -> dict[str, Tensor]:
    return {name: batch[name] for name in names if name in batch}
