"""Losses on vectors of images with classes; pytorch-metric-learning's, with its miners.

Shapes: B images in a batch, R references: the batch and, behind it, the cross-batch memory.
"""

from __future__ import annotations

from typing import Any

import torch
from pytorch_metric_learning import distances, losses, miners, reducers
from pytorch_metric_learning.utils import loss_and_miner_utils as pairing
from torch import Tensor, nn

from training.class_objective import PROXY_LOSSES, ClassObjective


class ClassLoss(nn.Module):
    """The loss of some options. It learns the points of proxy losses, and keeps the cross-batch memory."""

    vectors: Tensor
    labels: Tensor
    images: Tensor

    def __init__(self, objective: ClassObjective, width: int, classes: int, normalised: bool) -> None:
        super().__init__()
        self._objective = objective
        self.margin = _margin(objective, normalised)
        self._loss = (
            _proxy_loss(objective, width, classes) if objective.loss in PROXY_LOSSES else _pair_loss(objective, self.margin)
        )
        self._miner = _miner(objective, self._loss.distance, self.margin)
        self.register_buffer("vectors", torch.zeros(objective.memory, width))
        self.register_buffer("labels", torch.full((objective.memory,), -1))
        self.register_buffer("images", torch.full((objective.memory,), -1))

    def forward(self, vectors: Tensor, labels: Tensor, images: Tensor) -> Tensor:
        """(B, width) vectors, their (B,) classes and image numbers -> the loss, ().

        Two views of one image are never positives: where a small class is repeated, their distance is 0.
        """
        if self._objective.loss in PROXY_LOSSES:
            return self._value(vectors, labels)
        held = self.labels >= 0
        references = torch.cat([vectors, self.vectors[held]])
        their_labels, their_images = torch.cat([labels, self.labels[held]]), torch.cat([images, self.images[held]])
        mined = self._mined(vectors.detach(), labels, references.detach(), their_labels)
        mined = without_same_image(mined, images, their_images)
        loss = self._value(vectors, labels, indices_tuple=mined, ref_emb=references, ref_labels=their_labels)
        if self.training:
            self._remember(vectors.detach(), labels, images)
        return loss

    def _value(self, *args: Tensor, **options: Any) -> Tensor:
        value: Tensor = self._loss(*args, **options)
        return value

    def _mined(self, vectors: Tensor, labels: Tensor, references: Tensor, their_labels: Tensor) -> tuple[Tensor, ...]:
        objective = self._objective
        if self._miner is not None:
            mined: tuple[Tensor, ...] = self._miner(vectors, labels, references, their_labels)
            return mined
        if objective.sampler == "triplets":
            return tuple(torch.arange(len(labels), device=labels.device).view(-1, 3).T)
        every = pairing.get_all_triplets_indices if objective.loss == "triplet" else pairing.get_all_pairs_indices
        everything: tuple[Tensor, ...] = every(labels, their_labels)
        return everything

    def _remember(self, vectors: Tensor, labels: Tensor, images: Tensor) -> None:
        """The newest come first, the oldest go."""
        memory = self._objective.memory
        for mine, new in ((self.vectors, vectors), (self.labels, labels), (self.images, images)):
            mine.copy_(torch.cat([new.to(mine.dtype), mine])[:memory])


def without_same_image(mined: tuple[Tensor, ...], images: Tensor, their_images: Tensor) -> tuple[Tensor, ...]:
    """Triplets (anchor, positive, negative) or pairs (anchor, positive, anchor, negative) whose positive is another image."""
    keep = images[mined[0]] != their_images[mined[1]]
    if len(mined) == 3:
        return tuple(part[keep] for part in mined)
    return mined[0][keep], mined[1][keep], mined[2], mined[3]


def _margin(objective: ClassObjective, normalised: bool) -> float:
    if objective.margin is not None:
        return objective.margin
    return 1.0 if not normalised else {"triplet": 0.2}.get(objective.loss, 0.5)


def _pair_loss(objective: ClassObjective, margin: float) -> Any:
    as_they_are = distances.LpDistance(normalize_embeddings=False)
    if objective.loss == "multi-similarity":
        return losses.MultiSimilarityLoss()
    if objective.loss == "contrastive":
        return losses.ContrastiveLoss(neg_margin=margin, distance=as_they_are)
    # As published, the mean over all; pytorch-metric-learning's own leaves out triplets of loss 0.
    drawn: dict[str, Any] = {"reducer": reducers.MeanReducer()} if objective.sampler == "triplets" else {}
    return losses.TripletMarginLoss(margin=margin, distance=as_they_are, **drawn)


def _proxy_loss(objective: ClassObjective, width: int, classes: int) -> Any:
    kind = losses.ProxyAnchorLoss if objective.loss == "proxy-anchor" else losses.SubCenterArcFaceLoss
    return kind(num_classes=classes, embedding_size=width)


def _miner(objective: ClassObjective, distance: Any, margin: float) -> Any:
    if objective.mining == "hard":
        return miners.BatchHardMiner(distance=distance)
    if objective.mining == "semi-hard":
        return miners.TripletMarginMiner(margin=margin, type_of_triplets="semihard", distance=distance)
    return miners.MultiSimilarityMiner(distance=distance) if objective.mining == "multi-similarity" else None
