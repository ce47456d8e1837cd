"""Losses of a dual encoder on the vectors of a whole batch; three of them pytorch-metric-learning's.

Shapes: B images and their B texts, row b of both belongs together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pytorch_metric_learning import distances, losses, miners, reducers, regularizers
from pytorch_metric_learning.utils import loss_and_miner_utils as pairing
from torch import Tensor

from training.losses import hinge_loss, softmax_loss
from training.objective import PAIR_LOSSES, Objective

Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(images (B, E), texts (B, E), owners (B,): the number of each image, related (B, B): which texts fit which images) -> ()."""
Score = Callable[[Tensor, Tensor], Tensor]

DISTANCES = {"cosine": distances.CosineSimilarity, "dot": distances.DotProductSimilarity, "euclidean": distances.LpDistance}
MINERS = {
    "hard": miners.BatchHardMiner,
    "multi-similarity": miners.MultiSimilarityMiner,
    "triplet-margin": miners.TripletMarginMiner,
}
REDUCERS: dict[str, Callable[[], Any]] = {
    "mean": reducers.MeanReducer,
    "nonzero": reducers.AvgNonZeroReducer,
    "threshold": lambda: reducers.ThresholdReducer(low=0.1),
}
REGULARIZERS: dict[str, Callable[[], Any]] = {
    "l1": lambda: regularizers.LpRegularizer(p=1),
    "l2": lambda: regularizers.LpRegularizer(p=2),
    "mean": regularizers.ZeroMeanRegularizer,
}
REGULARIZER_WEIGHT = 0.01


def make_loss(objective: Objective, score: Score) -> Loss:
    """The loss of these options. `score` gives (B, B) scores of images and texts, for hinge and infonce."""
    if objective.loss in PAIR_LOSSES:
        return PairLoss(objective)
    return lambda images, texts, owners, related: two_ways(score(images, texts), related, objective)


def two_ways(scores: Tensor, related: Tensor, objective: Objective) -> Tensor:
    """hinge: both directions added up (Faghri et al. 2018), infonce: their mean (Radford et al. 2021). Related pairs are no negatives."""
    own = torch.arange(len(scores), device=scores.device)
    ways = [(scores, related), (scores.T, related.T)]
    ignored = [(way, other.scatter(1, own[:, None], False)) for way, other in ways]
    if objective.loss == "infonce":
        i2t, t2i = (softmax_loss(way / objective.temperature, own, other) for way, other in ignored)
        return (i2t + t2i) / 2
    margin = 0.2 if objective.margin is None else objective.margin
    i2t, t2i = (hinge_loss(way, own, other, margin, objective.top_k_violations) for way, other in ignored)
    return (i2t + t2i) * (len(scores) if objective.reduction == "sum" else 1)


class PairLoss:
    """A loss of pytorch-metric-learning over images and texts in one heap: an image and its texts attract, all others repel.

    A caption that describes several images of the batch neither attracts nor repels those it was not drawn with.
    """

    def __init__(self, objective: Objective) -> None:
        options: dict[str, Any] = {}
        if objective.distance:
            options["distance"] = DISTANCES[objective.distance]()
        if objective.reducer:
            options["reducer"] = REDUCERS[objective.reducer]()
        if objective.regularizer:
            options |= {
                "embedding_regularizer": REGULARIZERS[objective.regularizer](),
                "embedding_reg_weight": REGULARIZER_WEIGHT,
            }
        self._loss = _pair_loss(objective, options)
        self._miner: Any = MINERS[objective.miner](distance=self._loss.distance) if objective.miner else None

    def __call__(self, images: Tensor, texts: Tensor, owners: Tensor, related: Tensor) -> Tensor:
        vectors, labels = torch.cat([images, texts]), torch.cat([owners, owners])
        mined = self._miner(vectors, labels) if self._miner else pairing.get_all_pairs_indices(labels)
        either = related | related.T
        same = owners[:, None] == owners
        known = torch.cat([torch.cat([same, related], 1), torch.cat([related.T, either], 1)])
        loss: Tensor = self._loss(vectors, indices_tuple=_allowed(mined, known, len(images)))
        return loss


def _allowed(mined: tuple[Tensor, ...], known: Tensor, images: int) -> tuple[Tensor, ...]:
    """Triplets (anchor, positive, negative) or pairs (anchor, positive, anchor, negative) without negatives that are known to fit,
    and without positives of one kind: an image drawn twice, or a text, is at distance 0, where the gradient is rounding."""
    attracts = (mined[0] < images) != (mined[1] < images)
    repels = ~known[mined[-2 if len(mined) == 4 else 0], mined[-1]]
    if len(mined) == 3:
        return tuple(part[attracts & repels] for part in mined)
    return mined[0][attracts], mined[1][attracts], mined[2][repels], mined[3][repels]


def _pair_loss(objective: Objective, options: dict[str, Any]) -> Any:
    if objective.loss == "nt-xent":
        return losses.NTXentLoss(temperature=objective.temperature, **options)
    if objective.loss == "triplet":
        return losses.TripletMarginLoss(margin=0.05 if objective.margin is None else objective.margin, **options)
    closest, farthest = (1.0, 0.0) if objective.distance in ("cosine", "dot") else (0.0, 1.0)
    return losses.ContrastiveLoss(closest, farthest if objective.margin is None else objective.margin, **options)
