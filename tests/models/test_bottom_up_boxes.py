"""Boxes worked by hand, with a plain NMS in place of torchvision's; with torchvision as the oracle where it is there."""

from __future__ import annotations

import math

import pytest
import torch
from detector_environment import detector
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.bottom_up_boxes import (
    PRESETS,
    THRESHOLDS,
    Detection,
    cell_anchors,
    choose,
    clipped,
    grid_anchors,
    propose,
    regressed,
    resized,
)


def iou(a: list[float], b: list[float]) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / max(sum(areas) - width * height, 1e-12)


def plain_nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    kept: list[int] = []
    for i in scores.argsort(descending=True, stable=True).tolist():
        if all(iou(boxes[i].tolist(), boxes[j].tolist()) <= threshold for j in kept):
            kept.append(i)
    return torch.tensor(kept, dtype=torch.int64)


def random_boxes(count: int, seed: int = 0, side: float = 300) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * side
    return torch.cat((corner, corner + 1 + torch.rand(count, 2, generator=generator) * 120), dim=1)


# Sizes


@pytest.mark.parametrize(
    ("width", "height", "preset", "expected"),
    [
        (640, 480, "bottom-up-800", (1067, 800)),
        (480, 640, "bottom-up-800", (800, 1067)),
        (1000, 500, "bottom-up-800", (1333, 667)),  # the long side decides
        (640, 480, "bottom-up-600", (800, 600)),
        (500, 200, "bottom-up-600", (1000, 400)),
        (800, 800, "bottom-up-800", (800, 800)),
        (1, 1000, "bottom-up-800", (32, 1333)),  # a side of one pixel would leave no place on the map
    ],
)
def test_resized(width, height, preset, expected):
    assert resized(width, height, PRESETS[preset]) == expected


def test_the_presets_have_the_published_limits():
    for preset in PRESETS.values():
        assert (preset.candidates, preset.proposals, preset.proposal_threshold, preset.regions) == (6000, 300, 0.7, 36)


# Anchors and regression


def test_the_first_three_anchors_are_the_published_ones():
    anchors = cell_anchors()
    assert anchors.shape == (12, 4)
    expected = [(-45.25, -22.63, 45.25, 22.63), (-32, -32, 32, 32), (-22.63, -45.25, 22.63, 45.25)]
    assert torch.allclose(anchors[:3], torch.tensor(expected), atol=0.005)
    assert torch.allclose(
        (anchors[:, 2:] - anchors[:, :2]).prod(1).sqrt(), torch.tensor([64.0, 128, 256, 512]).repeat_interleave(3)
    )


def test_anchors_stand_at_every_place():
    anchors = grid_anchors(cell_anchors(), 2, 3, 16)
    assert anchors.shape == (2, 3, 12, 4)
    assert torch.equal(anchors[1, 2, 1], torch.tensor([32.0 - 32, 16 - 32, 32 + 32, 16 + 32]))


def test_regression_by_hand():
    box = torch.tensor([[10.0, 20, 30, 60]])  # 20 x 40 around (20, 40)
    assert torch.equal(regressed(box, torch.zeros(1, 4), (1, 1, 1, 1)), box)
    moved = regressed(box, torch.tensor([[0.5, -0.25, math.log(2), 0]]), (1, 1, 1, 1))
    assert torch.allclose(moved, torch.tensor([[10.0, 10, 50, 50]]), atol=1e-4)
    assert torch.allclose(regressed(box, torch.tensor([[5.0, -2.5, 5 * math.log(2), 0]]), (10, 10, 5, 5)), moved, atol=1e-4)
    wild = regressed(box, torch.tensor([[0.0, 0, 99, 99]]), (1, 1, 1, 1))
    assert torch.allclose(wild[:, 2:] - wild[:, :2], torch.tensor([[20 * 62.5, 40 * 62.5]]))


def test_clipped():
    boxes = torch.tensor([[-5.0, -5, 120, 130], [10, 10, 20, 20]])
    assert clipped(boxes, 100, 50).tolist() == [[0, 0, 100, 50], [10, 10, 20, 20]]


# Proposals


def test_proposals_are_the_best_that_nms_leaves():
    anchors = torch.tensor([[0.0, 0, 50, 50], [1, 1, 51, 51], [60, 60, 90, 90], [200, 200, 300, 300]])
    objectness = torch.tensor([1.0, 3.0, 2.0, 9.0])  # the last lies outside the picture, and the first under the second
    found = propose(anchors, objectness, torch.zeros(4, 4), (100, 100), Detection(), plain_nms)
    assert found.tolist() == [[1, 1, 51, 51], [60, 60, 90, 90]]
    assert propose(anchors, objectness, torch.zeros(4, 4), (100, 100), Detection(candidates=2), plain_nms).tolist() == [
        [1, 1, 51, 51]
    ]
    assert propose(anchors, objectness, torch.zeros(4, 4), (100, 100), Detection(proposals=1), plain_nms).tolist() == [
        [1, 1, 51, 51]
    ]


def test_a_picture_without_any_proposal_is_one():
    outside = torch.tensor([[200.0, 200, 300, 300]])
    assert propose(outside, torch.ones(1), torch.zeros(1, 4), (100, 40), Detection(), plain_nms).tolist() == [[0, 0, 100, 40]]


# A fixed number of boxes


def overlapping(*overlaps: float) -> Tensor:
    """Pairs of boxes far from each other, each pair with one IoU."""
    pairs = []
    for number, overlap in enumerate(overlaps):
        x = 1000.0 * number
        shift = 100 * (1 - overlap) / (1 + overlap)
        pairs += [[x, 0, x + 100, 100], [x + shift, 0, x + 100 + shift, 100]]
    return torch.tensor(pairs)


def test_the_first_threshold_that_leaves_enough_decides():
    boxes, scores = overlapping(0.55, 0.65), torch.tensor([0.9, 0.8, 0.7, 0.6])
    assert choose(boxes, scores, 2, plain_nms).tolist() == [0, 2]  # at 0.5 each pair is one
    assert choose(boxes, scores, 3, plain_nms).tolist() == [0, 1, 2]  # at 0.6 the first pair is two
    assert choose(boxes, scores, 4, plain_nms).tolist() == [0, 1, 2, 3]


def test_dropped_boxes_fill_up_when_no_threshold_leaves_enough():
    boxes, scores = overlapping(0.95, 0.96), torch.tensor([0.5, 0.4, 0.9, 0.8])
    assert choose(boxes, scores, 3, plain_nms).tolist() == [2, 0, 3]
    assert choose(boxes, scores, 7, plain_nms).tolist() == [2, 0, 3, 1, 2, 0, 3]  # there are only four


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 30), st.integers(0, 1000))
def test_always_exactly_so_many(count, boxes, seed):
    places, scores = random_boxes(boxes, seed, 40), torch.rand(boxes, generator=torch.Generator().manual_seed(seed))
    chosen = choose(places, scores, count, plain_nms)
    assert len(chosen) == count
    assert len(set(chosen.tolist())) == min(count, boxes)
    assert chosen[0] == scores.argmax()
    whole = [threshold for threshold in THRESHOLDS if len(plain_nms(places, scores, threshold)) >= count]
    if whole:
        assert torch.equal(chosen, plain_nms(places, scores, whole[0])[:count])


# Against torchvision


@detector
def test_anchors_are_torchvisions():
    from torchvision.models.detection.anchor_utils import AnchorGenerator

    generator = AnchorGenerator(((64, 128, 256, 512),), ((0.5, 1.0, 2.0),))
    rounded = {tuple(box) for box in generator.cell_anchors[0].tolist()}
    assert {tuple(box) for box in cell_anchors().round().tolist()} == rounded
    generator.cell_anchors = [cell_anchors()]
    (theirs,) = generator.grid_anchors([[5, 7]], [[torch.tensor(16), torch.tensor(16)]])
    assert torch.equal(grid_anchors(cell_anchors(), 5, 7, 16).view(-1, 4), theirs)


@detector
def test_regression_is_torchvisions():
    from torchvision.models.detection._utils import BoxCoder

    boxes, deltas = random_boxes(500), torch.randn(500, 4, generator=torch.Generator().manual_seed(1)) * 4
    theirs = BoxCoder((10.0, 10.0, 5.0, 5.0)).decode_single(deltas, boxes)
    assert torch.allclose(regressed(boxes, deltas, (10, 10, 5, 5)), theirs, rtol=1e-5, atol=1e-3)


@detector
def test_proposals_are_torchvisions():
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
    from torchvision.ops import nms

    limits = {"pre_nms_top_n": {"training": 0, "testing": 6000}, "post_nms_top_n": {"training": 0, "testing": 300}}
    head, generator = RPNHead(8, 12), AnchorGenerator(((64,),), ((1.0,),))
    rpn = RegionProposalNetwork(generator, head, 0.7, 0.3, 1, 0.5, **limits, nms_thresh=0.7).eval()
    anchors = grid_anchors(cell_anchors(), 30, 40, 16).view(-1, 4)
    random = torch.Generator().manual_seed(2)
    objectness, deltas = torch.randn(len(anchors), generator=random), torch.randn(len(anchors), 4, generator=random) * 0.3
    (theirs,), _ = rpn.filter_proposals(
        rpn.box_coder.decode(deltas, [anchors]).view(1, -1, 4), objectness[:, None], [(480, 640)], [len(anchors)]
    )
    ours = propose(anchors, objectness, deltas, (640, 480), Detection(), nms)
    assert len(ours) == 300
    assert torch.allclose(ours, theirs, atol=1e-2)


@detector
def test_the_plain_nms_is_torchvisions():
    from torchvision.ops import nms

    for seed in range(20):
        boxes, scores = random_boxes(60, seed), torch.rand(60, generator=torch.Generator().manual_seed(seed))
        for threshold in THRESHOLDS:
            assert torch.equal(nms(boxes, scores, threshold), plain_nms(boxes, scores, threshold))
