"""What an image encoder learns from classes: the options of batches and loss; imports nothing heavy, so that --help stays fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from training.learning import require

PROXY_LOSSES = ("proxy-anchor", "arcface")
"""Of pytorch-metric-learning: images against learned points, one or some a class."""


@dataclass(frozen=True)
class ClassObjective:
    """Sampling and loss options; a job's Config inherits them and sets its own defaults."""

    sampler: Literal["balanced", "super-class", "triplets"] = "balanced"
    """balanced: --images-per-class of every class in a batch; super-class: the same, with classes in groups of one super-class; triplets: random ones, as published."""
    images_per_class: int = 4
    """balanced, super-class: images of each class in a batch; those of a small class are repeated."""
    classes_per_super_class: int = 4
    """super-class: classes of one super-class that stand together in a batch."""
    loss: Literal["triplet", "contrastive", "multi-similarity", "proxy-anchor", "arcface"] = "triplet"
    """All of pytorch-metric-learning; arcface has three sub-centres a class."""
    mining: Literal["hard", "semi-hard", "multi-similarity", "none"] = "hard"
    """Which pairs or triplets of the batch count. hard: the farthest positive and the nearest negative of each image (batch-hard); none: all, or with --sampler triplets the drawn ones."""
    margin: float | None = None
    """triplet 0.2, contrastive 0.5; both 1 where vectors are not normalised, as published."""
    memory: int = 0
    """Cross-batch memory (Wang et al. 2020): vectors of so many earlier images are positives and negatives too."""
    proxy_rate: float = 100.0
    """proxy-anchor, arcface: the learned points' rate, as a multiple of --learning-rate."""

    def __post_init__(self) -> None:
        proxies, none = self.loss in PROXY_LOSSES, self.mining == "none"
        require(
            self,
            ("images_per_class", self.images_per_class > 1, "2 or more"),
            ("classes_per_super_class", self.classes_per_super_class > 0, "1 or more"),
            ("mining", none or not proxies, f"none for --loss {self.loss}, which compares images with learned points"),
            ("margin", self.margin is None or self.margin >= 0, "0 or more"),
            ("memory", self.memory >= 0, "0 or more"),
            ("memory", not (self.memory and proxies), f"0 for --loss {self.loss}"),
            ("memory", not (self.memory and none and self.sampler == "triplets"), "0 for the drawn triplets; choose a --mining"),
            ("proxy_rate", self.proxy_rate > 0, "above 0"),
        )
