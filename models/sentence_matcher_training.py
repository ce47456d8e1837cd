"""Training the sentence matcher: the published hinge against one partner, or against all other items of the batch."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from models.sentence_matcher import SentenceMatcher
from training.chunking import in_chunks
from training.in_batch import Contrast, in_batch
from training.losses import hinge_loss, softmax_loss

Loss = Literal["softmax", "hinge", "partner"]
"""softmax: InfoNCE over the batch; hinge: against the batch; partner: as published, each text against one other image."""


IMAGE_KEYS, TEXT_KEYS = ("pixel_values", "image_vectors"), ("input_ids", "attention_mask", "text_vectors")


class SentenceMatcherTrainee(nn.Module):
    """The matcher with its loss: what the training loop runs.

    `temperature` is that of softmax; `margin` and `top_k` those of the hinges, of which only the k worst violations count
    (0 = all). `chunk`: pairs encoded at once (`training.chunking`).
    """

    def __init__(
        self,
        model: SentenceMatcher,
        loss: Loss = "softmax",
        temperature: float = 0.07,
        margin: float = 0.5,
        top_k: int = 0,
        chunk: int = 0,
    ) -> None:
        super().__init__()
        self.model, self._loss, self._chunk = model, loss, chunk
        self._temperature, self._margin, self._top_k = temperature, margin, top_k

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """The mean loss of this process's pairs against the whole batch. Relevant pairs are no negatives."""
        pictures = {key: batch[key] for key in IMAGE_KEYS if key in batch}
        captions = {key: batch[key] for key in TEXT_KEYS if key in batch}
        (images,) = in_chunks(self.model.encode_images, pictures, self._chunk)
        (texts,) = in_chunks(self.model.encode_texts, captions, self._chunk)
        i2t, t2i = in_batch(lambda images, texts: self.model.score((images,), (texts,)), images, texts, batch)
        if self._loss == "partner":
            return hinge_loss(*against_partner(t2i), self._margin)
        return (self._contrast(i2t) + self._contrast(t2i)) / 2

    def _contrast(self, one: Contrast) -> Tensor:
        if self._loss == "hinge":
            return hinge_loss(*one, self._margin, self._top_k)
        return softmax_loss(one.scores / self._temperature, one.target, one.ignored)


def against_partner(one: Contrast) -> Contrast:
    """Of all candidates only the own one and the partner's, half a batch away, count.

    The original also took a partner of the same image for a negative, and met the same partners every epoch.
    """
    candidates = one.scores.shape[1]
    partner = (one.target + candidates // 2) % candidates
    alone = torch.ones_like(one.ignored).scatter(1, torch.stack([one.target, partner], 1), False)
    return one._replace(ignored=one.ignored | alone)
