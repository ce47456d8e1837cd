"""The losses against sums over loops, and the cross-batch memory against one large batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pytorch_metric_learning import losses
from torch import Tensor

from training.class_losses import ClassLoss, without_same_image
from training.class_objective import ClassObjective

LABELS = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 3])
IMAGES = torch.arange(9)


def vectors(count: int = 9, seed: int = 0) -> Tensor:
    drawn = torch.randn(count, 5, generator=torch.Generator().manual_seed(seed))
    return (drawn / drawn.norm(dim=1, keepdim=True)).requires_grad_()


def make(normalised: bool = True, **options: Any) -> ClassLoss:
    torch.manual_seed(0)
    return ClassLoss(ClassObjective(**options), 5, 4, normalised)


def triplets(labels: Tensor) -> list[tuple[int, int, int]]:
    every = range(len(labels))
    return [(a, p, n) for a in every for p in every for n in every if a != p and labels[a] == labels[p] != labels[n]]


def hinge(x: Tensor, a: int, p: int, n: int, margin: float) -> float:
    return max(0.0, ((x[a] - x[p]).norm() - (x[a] - x[n]).norm()).item() + margin)


def test_drawn_triplets_are_the_published_loss():
    """Margin 1, Euclidean, the mean over the drawn triplets with those of loss 0, of vectors as they are."""
    x = vectors() * 3
    loss = make(False, sampler="triplets", mining="none")(x, LABELS, IMAGES)
    published = torch.nn.TripletMarginLoss(margin=1.0, eps=0)(x[0::3], x[1::3], x[2::3])
    assert loss.item() == pytest.approx(published.item(), abs=1e-6)
    loss.backward()


def test_all_triplets():
    x = vectors()
    each = [hinge(x, *one, 0.2) for one in triplets(LABELS)]
    expected = np.mean([one for one in each if one > 0])
    assert 0 in each and make(mining="none")(x, LABELS, IMAGES).item() == pytest.approx(expected, abs=1e-5)


def test_hard_triplets_are_the_farthest_positive_and_the_nearest_negative():
    x = vectors()
    each = []
    for a in range(8):  # image 8 has no positive
        far = max((p for p in range(9) if p != a and LABELS[p] == LABELS[a]), key=lambda p: float((x[a] - x[p]).norm()))
        near = min((n for n in range(9) if LABELS[n] != LABELS[a]), key=lambda n: float((x[a] - x[n]).norm()))
        each.append(hinge(x, a, far, near, 0.2))
    assert make()(x, LABELS, IMAGES).item() == pytest.approx(np.mean([one for one in each if one > 0]), abs=1e-5)


def test_semi_hard_triplets_have_a_negative_behind_the_positive_and_within_the_margin():
    x = vectors()
    each = [hinge(x, *one, 0.5) for one in triplets(LABELS)]
    kept = [one for one in each if 0 < one < 0.5]
    assert 0 < len(kept) < sum(one > 0 for one in each)
    assert make(mining="semi-hard", margin=0.5)(x, LABELS, IMAGES).item() == pytest.approx(np.mean(kept), abs=1e-5)


def test_contrastive():
    x = vectors()
    near = [float((x[a] - x[b]).norm()) for a in range(9) for b in range(9) if a != b and LABELS[a] == LABELS[b]]
    far = [max(0.0, 0.5 - float((x[a] - x[b]).norm())) for a in range(9) for b in range(9) if LABELS[a] != LABELS[b]]
    expected = np.mean(near) + np.mean([one for one in far if one > 0])
    assert make(loss="contrastive", mining="none")(x, LABELS, IMAGES).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("loss, kind", [("proxy-anchor", losses.ProxyAnchorLoss), ("arcface", losses.SubCenterArcFaceLoss)])
def test_proxies_learn(loss, kind):
    mine = make(loss=loss, mining="none")
    torch.manual_seed(0)
    theirs = kind(num_classes=4, embedding_size=5)
    value = mine(vectors(), LABELS, IMAGES)
    assert value.item() == pytest.approx(theirs(vectors(), LABELS).item(), rel=1e-5)
    value.backward()
    (points,) = mine.parameters()
    assert points.grad is not None and points.grad.abs().max() > 0


def test_two_views_of_an_image_are_no_positives():
    """A class of two images that comes four times in a batch: nothing is learned from distance 0."""
    x = vectors(4, seed=1)
    twice, labels, images = torch.cat([x, x]), torch.tensor([0, 0, 1, 1] * 2), torch.arange(4).repeat(2)
    once = make(mining="none")(x, labels[:4], images[:4])
    assert make(mining="none")(twice, labels, images).item() == pytest.approx(once.item(), abs=1e-6)
    pairs = tuple(torch.tensor(part) for part in ([0, 0], [4, 1], [0], [2]))
    assert [part.tolist() for part in without_same_image(pairs, images, images)] == [[0], [1], [0], [2]]


@pytest.mark.parametrize(
    "options",
    [{"mining": "hard"}, {"loss": "contrastive", "mining": "none"}, {"loss": "multi-similarity", "mining": "multi-similarity"}],
)
def test_images_of_the_memory_are_positives_and_negatives_too(options):
    """Against an oracle: the same loss of pytorch-metric-learning with the references laid out by hand, itself left out."""
    remembering = make(memory=12, **options)
    earlier, now = vectors(9, 1), vectors(9, 2)
    remembering(earlier, LABELS, IMAGES)
    assert (remembering.labels >= 0).sum() == 9
    loss = remembering(now, LABELS, IMAGES + 9)
    alone = make(**options)
    mined = alone._mined(now, LABELS, torch.cat([now, earlier]), LABELS.repeat(2))
    mined = without_same_image(mined, IMAGES + 9, torch.cat([IMAGES + 9, IMAGES]))
    references = torch.cat([now, earlier.detach()])
    expected = alone._loss(now, LABELS, indices_tuple=mined, ref_emb=references, ref_labels=LABELS.repeat(2))
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    assert loss.item() != pytest.approx(make(**options)(now, LABELS, IMAGES).item(), abs=1e-4)
    loss.backward()
    assert earlier.grad is None and now.grad.abs().max() > 0


def test_the_memory_keeps_the_newest_and_only_learns_in_training():
    loss = make(memory=12)
    loss(vectors(9, 1), LABELS, IMAGES)
    loss.eval()(vectors(9, 2), LABELS, IMAGES + 9)
    assert (loss.labels >= 0).sum() == 9  # the loop's warm-up must leave no trace
    loss.train()(vectors(9, 3), LABELS, IMAGES + 18)
    assert loss.images.tolist() == [*range(18, 27), 0, 1, 2]
    torch.testing.assert_close(loss.vectors[9:], vectors(9, 1)[:3].detach())
    again = make(memory=12)
    again.load_state_dict(loss.state_dict())  # so that a resumed run goes on with it
    assert torch.equal(again.images, loss.images)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"images_per_class": 1}, "--images-per-class 1: must be 2 or more"),
        ({"classes_per_super_class": 0}, "--classes-per-super-class 0: must be 1 or more"),
        ({"loss": "arcface"}, "--mining hard: must be none for --loss arcface"),
        ({"margin": -0.1}, "--margin -0.1: must be 0 or more"),
        ({"memory": -1}, "--memory -1: must be 0 or more"),
        ({"loss": "proxy-anchor", "mining": "none", "memory": 8}, "--memory 8: must be 0 for --loss proxy-anchor"),
        ({"sampler": "triplets", "mining": "none", "memory": 8}, "--memory 8: must be 0 for the drawn triplets"),
        ({"proxy_rate": 0}, "--proxy-rate 0: must be above 0"),
    ],
)
def test_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ClassObjective(**options)
