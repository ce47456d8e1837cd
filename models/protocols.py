"""The contract every retrieval model keeps: dual encoder, cross-encoder or re-ranker.

A model module offers `load(...) -> (model, inputs)`. Images and texts are encoded once each; `score` then compares
encoded blocks, so one engine (ranking.engine) fills every score matrix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor

Batch = Mapping[str, Tensor]
"""Tensors of one batch by name, as a processor or tokenizer makes them."""

States = tuple[Tensor, ...]
"""What a model remembers of a batch of images or texts: tensors that can be sliced along axis 0."""


class RetrievalModel(Protocol):
    """A torch module that scores images against texts."""

    score_meaning: str
    """What a score is, in words, for the ranking file: "cosine x logit scale", "match logit"."""

    def encode_images(self, batch: Batch) -> States: ...

    def encode_texts(self, batch: Batch) -> States: ...

    def score(self, images: States, texts: States) -> Tensor:
        """(images, texts) float32 scores, higher is better."""
        ...


class Inputs(Protocol):
    """Turns record ids and texts into batches. Runs in loader workers: it pickles and holds no model."""

    def images(self, image_ids: Sequence[str]) -> Batch: ...

    def texts(self, texts: Sequence[str]) -> Batch: ...
