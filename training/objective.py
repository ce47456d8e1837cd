"""What a dual encoder learns from a batch: the options of its loss; imports nothing heavy, so that --help stays fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from training.learning import require

PAIR_LOSSES = ("contrastive", "triplet", "nt-xent")
"""Of pytorch-metric-learning: image-image and text-text pairs are negatives too."""


@dataclass(frozen=True)
class Objective:
    """Loss options; a job's Config inherits them and sets its own defaults."""

    loss: Literal["hinge", "infonce", "contrastive", "triplet", "nt-xent"] = "hinge"
    """hinge: margin violations between images and texts (VSE++); infonce: cross-entropy both ways; the others compare all images and texts of the batch with each other."""
    margin: float | None = None
    """hinge 0.2, triplet 0.05; contrastive: how far negatives are pushed, distance 1 or similarity 0."""
    temperature: float = 0.07
    """infonce, nt-xent: what similarities are divided by."""
    top_k_violations: int = 1
    """hinge: count only the k worst violations of each query; 0 = all."""
    reduction: Literal["sum", "mean"] = "sum"
    """hinge: over the batch; the sum is as published, so the learning rate goes with the batch size."""
    distance: Literal["", "cosine", "dot", "euclidean"] = ""
    """contrastive, triplet, nt-xent: of two vectors; by default the loss's own (euclidean, euclidean, cosine)."""
    miner: Literal["", "hard", "multi-similarity", "triplet-margin"] = ""
    """contrastive, triplet, nt-xent: only the pairs this miner picks; by default all."""
    reducer: Literal["", "mean", "nonzero", "threshold"] = ""
    """contrastive, triplet, nt-xent: mean over all terms, over those not 0, or over those above 0.1 only; by default the loss's own."""
    regularizer: Literal["", "l1", "l2", "mean"] = ""
    """contrastive, triplet, nt-xent: also keep the vectors' L1 or L2 norm, or their mean, small; weight 0.01."""

    def __post_init__(self) -> None:
        pairs = self.loss in PAIR_LOSSES
        only = f"left out for --loss {self.loss}: it is for {', '.join(PAIR_LOSSES)}"
        own = [(name, pairs or not getattr(self, name), only) for name in ("distance", "miner", "reducer", "regularizer")]
        require(
            self,
            ("margin", self.margin is None or self.margin >= 0, "0 or more"),
            ("temperature", self.temperature > 0, "above 0"),
            ("top_k_violations", self.top_k_violations >= 0, "0 or more"),
            ("distance", not (self.loss == "nt-xent" and self.distance == "euclidean"), "cosine or dot for --loss nt-xent"),
            *own,
        )
