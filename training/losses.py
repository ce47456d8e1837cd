"""Losses on scores: plain tensor functions that know no model.

Shapes: Q queries, C candidates. `target` (Q,) is the column of each query's own candidate; `ignored` (Q, C) marks
candidates that are also relevant (two captions of one image in a batch) and so must not count as negatives.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def binary_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Mean binary cross-entropy of matching logits (P,) against labels 0 or 1 (P,)."""
    return F.binary_cross_entropy_with_logits(scores, labels.to(scores.dtype))


def softmax_loss(scores: Tensor, target: Tensor, ignored: Tensor) -> Tensor:
    """InfoNCE (van den Oord et al. 2018): mean cross-entropy of each query's own candidate against the others."""
    return F.cross_entropy(scores.masked_fill(ignored, -torch.inf), target)


def hinge_loss(scores: Tensor, target: Tensor, ignored: Tensor, margin: float, top_k: int = 0) -> Tensor:
    """Sum over candidates of max(0, margin - own + other), averaged over queries.

    With top_k only the k worst violations of each query count; k = 1 is VSE++'s max violation (Faghri et al. 2018).
    """
    own = scores.gather(1, target[:, None])
    violations = (margin - own + scores).clamp(min=0).masked_fill(ignored, 0)
    violations = violations.scatter(1, target[:, None], 0)
    if 0 < top_k < scores.shape[1]:
        violations = violations.topk(top_k, dim=1).values
    return violations.sum(dim=1).mean()


def related(texts_of_image: Tensor, text: Tensor) -> Tensor:
    """(...): whether each text (...) is among those of each image (..., K); broadcasts."""
    return (texts_of_image == text[..., None]).any(-1)


def circulant_pairs(batch: int, negatives: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Which pairs of a batch to score when all B x B are too many: (image (B, 1 + N), text (B, 1 + N)) indices.

    Row t holds text t with its own image and with the images at N distinct random distances behind it in the batch.
    Every image then meets exactly N other texts as well, so the same scores serve both directions (`other_direction`).
    With N = B - 1 these are all pairs. Fewer than two samples have no negatives: ValueError.
    """
    if batch < 2 or negatives < 1:
        raise ValueError(f"no in-batch negatives among {batch} samples: --batch-size must be 2 or more")
    distance = 1 + torch.randperm(batch - 1, generator=generator)[:negatives]
    text = torch.arange(batch)[:, None].expand(batch, 1 + len(distance))
    return (text + torch.cat([torch.zeros(1, dtype=torch.long), distance])) % batch, text


def other_direction(values: Tensor, image: Tensor) -> Tensor:
    """Scores (or masks) by text, as `circulant_pairs` lays them out, turned into scores by image: row i, own text first."""
    by_image = torch.empty_like(values)
    columns = torch.arange(values.shape[1], device=values.device).expand_as(values)
    by_image[image.to(values.device), columns] = values
    return by_image
