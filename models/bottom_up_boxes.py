"""Boxes of the bottom-up attention detector: anchors, regression, proposals, and the choice of a fixed number of them.

Boxes are x1 y1 x2 y2 in pixels of the resized picture. `nms(boxes, scores, threshold)` is torchvision's: the indices of
what survives, best first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Nms = Callable[[Tensor, Tensor, float], Tensor]

ANCHOR_SIZES = (64, 128, 256, 512)
ANCHOR_RATIOS = (0.5, 1.0, 2.0)
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
"""Tried in turn until enough boxes survive; the published code stops at 0.7 and then fails or gives another picture's boxes."""
LARGEST_SCALE = math.log(1000 / 16)
"""A side grows at most by this exponent, or one wild delta would overflow."""
SHORTEST_SIDE = 32
"""A picture of 1 x 1,000 pixels would leave nothing of its short side on the feature map."""


@dataclass(frozen=True)
class Detection:
    """What may be chosen about a detection without other weights."""

    short_side: int = 800
    """Pixels of the short side after resizing."""
    long_side: int = 1333
    """Pixels that the long side may have after resizing."""
    candidates: int = 6000
    """Best anchors that enter the proposals' NMS."""
    proposals: int = 300
    """Most proposals of a picture."""
    proposal_threshold: float = 0.7
    """IoU above which a proposal gives way to a better one."""
    regions: int = 36
    """Boxes of every picture."""


PRESETS = {"bottom-up-800": Detection(), "bottom-up-600": Detection(600, 1000)}
"""The scale of the public PyTorch checkpoint, and the Caffe original's, at which LXMERT's own features were made."""


def resized(width: int, height: int, detection: Detection) -> tuple[int, int]:
    """Width and height of a picture for the detector: its short side as asked, unless the long one became too long."""
    scale = min(detection.short_side / min(width, height), detection.long_side / max(width, height))
    return max(SHORTEST_SIDE, int(width * scale + 0.5)), max(SHORTEST_SIDE, int(height * scale + 0.5))


def cell_anchors() -> Tensor:
    """(12, 4) anchors around the origin, sizes outermost; ratio = height / width."""
    boxes = []
    for size in ANCHOR_SIZES:
        for ratio in ANCHOR_RATIOS:
            width = math.sqrt(size * size / ratio)
            boxes.append((-width / 2, -width * ratio / 2, width / 2, width * ratio / 2))
    return torch.tensor(boxes)


def grid_anchors(cells: Tensor, height: int, width: int, stride: int) -> Tensor:
    """(height, width, A, 4): the cell's anchors at every place of a feature map."""
    x = torch.arange(width, device=cells.device) * stride
    y = torch.arange(height, device=cells.device) * stride
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    return torch.stack((columns, rows, columns, rows), dim=-1)[:, :, None] + cells


def regressed(boxes: Tensor, deltas: Tensor, weights: tuple[float, float, float, float]) -> Tensor:
    """Boxes (K, 4) moved and scaled by deltas (K, 4) = weights * (dx, dy, dw, dh) (Girshick et al. 2014, appendix C)."""
    dx, dy, dw, dh = (deltas / deltas.new_tensor(weights)).unbind(-1)
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    x, y = boxes[:, 0] + width / 2 + dx * width, boxes[:, 1] + height / 2 + dy * height
    width, height = width * dw.clamp(max=LARGEST_SCALE).exp(), height * dh.clamp(max=LARGEST_SCALE).exp()
    return torch.stack((x - width / 2, y - height / 2, x + width / 2, y + height / 2), dim=-1)


def clipped(boxes: Tensor, width: int, height: int) -> Tensor:
    """Boxes cut to the picture."""
    return boxes.clamp(min=0).minimum(boxes.new_tensor([width, height, width, height]))


def propose(anchors: Tensor, objectness: Tensor, deltas: Tensor, size: tuple[int, int], detection: Detection, nms: Nms) -> Tensor:
    """Proposals (P, 4) of one picture of size (width, height), best first; at least one.

    anchors (K, 4), objectness (K,), deltas (K, 4): those of places inside the picture.
    """
    scores, best = objectness.sort(descending=True, stable=True)
    scores, best = scores[: detection.candidates], best[: detection.candidates]
    boxes = clipped(regressed(anchors[best], deltas[best], (1, 1, 1, 1)), *size)
    solid = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    boxes, scores = boxes[solid], scores[solid]
    if not len(boxes):
        return boxes.new_tensor([[0, 0, *size]])
    return boxes[nms(boxes, scores, detection.proposal_threshold)[: detection.proposals]]


def choose(boxes: Tensor, scores: Tensor, count: int, nms: Nms) -> Tensor:
    """Indices of exactly `count` boxes: the best survivors of the first NMS threshold that leaves enough.

    If none does, the best of what the last one dropped fill up; of fewer than `count` boxes, the first come again.
    """
    kept = scores.new_empty(0, dtype=torch.int64)
    for threshold in THRESHOLDS:
        kept = nms(boxes, scores, threshold)
        if len(kept) >= count:
            return kept[:count]
    order = scores.argsort(descending=True, stable=True)
    every = torch.cat((kept, order[~torch.isin(order, kept)]))
    return every.repeat(-(-count // len(every)))[:count]
