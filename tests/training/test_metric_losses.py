"""Losses on the vectors of a batch, against loops over their definitions."""

from __future__ import annotations

import pytest
import torch
from pytorch_metric_learning import losses, miners

from training.metric_losses import make_loss
from training.objective import Objective

OWNERS = torch.tensor([4, 7, 4, 9, 2])
RELATED = OWNERS[:, None] == OWNERS  # the captions of rows 0 and 2 are of one image


def vectors(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    images, texts = torch.nn.functional.normalize(torch.randn(2, 5, 8), dim=-1)
    return images.requires_grad_(), texts.requires_grad_()


def cosine(images, texts):
    return images @ texts.T


def loss(images, texts, related=RELATED, owners=OWNERS, **options):
    return make_loss(Objective(**options), cosine)(images, texts, owners, related)


def violations(matrix, b: int, margin: float) -> list[float]:
    return [max(0.0, margin - matrix[b, b] + matrix[b, c]) for c in range(5) if not RELATED[b, c]]


@pytest.mark.parametrize("top_k", [1, 2, 0])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_hinge_is_that_of_a_loop(top_k, reduction):
    images, texts = vectors()
    expected = 0.0
    for matrix in (cosine(images, texts).tolist(), cosine(texts, images).tolist()):
        matrix = torch.tensor(matrix)
        worst = [sorted(violations(matrix, b, 0.4), reverse=True) for b in range(5)]
        expected += sum(sum(row[: top_k or 5]) for row in worst)
    found = loss(images, texts, loss="hinge", margin=0.4, top_k_violations=top_k, reduction=reduction)
    assert found.item() == pytest.approx(float(expected) / (5 if reduction == "mean" else 1), rel=1e-5)


def test_max_violation_is_smaller_than_all_and_its_margin_is_published():
    images, texts = vectors()
    assert loss(images, texts).item() == loss(images, texts, margin=0.2).item()
    assert loss(images, texts).item() < loss(images, texts, top_k_violations=0).item()


def test_infonce_is_the_mean_of_both_cross_entropies():
    images, texts = vectors()
    total = torch.zeros(())
    for matrix in (cosine(images, texts) / 0.07, cosine(texts, images) / 0.07):
        for b in range(5):
            others = [c for c in range(5) if not RELATED[b, c]]
            total += torch.logsumexp(matrix[b, [b, *others]], 0) - matrix[b, b]
    assert loss(images, texts, loss="infonce").item() == pytest.approx(total.item() / 10, rel=1e-5)


LABELS = torch.arange(5).repeat(2)
ALONE = {"related": torch.eye(5, dtype=torch.bool), "owners": torch.arange(5)}
"""Five different images."""
THEIRS = {
    "contrastive": losses.ContrastiveLoss(0, 1),
    "triplet": losses.TripletMarginLoss(0.05),
    "nt-xent": losses.NTXentLoss(0.07),
}


@pytest.mark.parametrize("name", THEIRS)
def test_without_shared_captions_they_are_pytorch_metric_learnings(name):
    """Over the heap of images and texts, labelled by image: as TERN's re-implementation used them."""
    images, texts = vectors()
    expected = THEIRS[name](torch.cat([images, texts]), LABELS)
    torch.testing.assert_close(loss(images, texts, **ALONE, loss=name), expected)
    assert expected > 0.01


def test_contrastive_is_that_of_a_loop():
    images, texts = vectors()
    heap = torch.cat([images, texts])
    pulled, pushed = [], []
    for a in range(10):
        for b in range(10):
            distance = (heap[a] - heap[b]).norm()
            if a != b and LABELS[a] == LABELS[b]:
                pulled.append(distance)
            elif a != b:
                pushed.append((1 - distance).clamp(min=0))
    means = [sum(terms) / sum(bool(term > 0) for term in terms) for terms in (pulled, pushed)]
    torch.testing.assert_close(loss(images, texts, **ALONE, loss="contrastive"), sum(means))


def test_related_pairs_do_not_repel_and_only_images_and_texts_attract():
    """Rows 0 and 2 are of one image, and text 1 describes image 3 as well; margin 1.9, so that all others count."""
    images, texts = vectors()
    related = RELATED.clone()
    related[3, 1] = True
    heap, owners = torch.cat([images, texts]), torch.cat([OWNERS, OWNERS])
    known = torch.zeros(10, 10, dtype=torch.bool)
    known[3, 6] = known[6, 3] = known[8, 6] = known[6, 8] = True
    pulled, pushed = [], []
    for a in range(10):
        for b in range(10):
            distance = (heap[a] - heap[b]).norm()
            if owners[a] == owners[b] and (a > 4) != (b > 4):
                pulled.append(distance)
            elif owners[a] != owners[b] and not known[a, b]:
                pushed.append((1.9 - distance).clamp(min=0))
    means = [sum(terms) / sum(bool(term > 0) for term in terms) for terms in (pulled, pushed)]
    torch.testing.assert_close(loss(images, texts, related, loss="contrastive", margin=1.9), sum(means))


@pytest.mark.parametrize("name", ["triplet", "nt-xent"])
def test_the_others_leave_related_pairs_out_too(name):
    images, texts = vectors()
    related = RELATED.clone()
    related[3, 1] = True
    options = {"loss": name, "margin": 1.5 if name == "triplet" else None}
    with_it, without = (torch.autograd.grad(loss(images, texts, r, **options), texts)[0][1] for r in (RELATED, related))
    assert (with_it - without).norm() > 1e-3


def test_similarities_are_pulled_to_1_and_pushed_to_0():
    images, texts = vectors()
    expected = losses.ContrastiveLoss(1, 0, distance=THEIRS["nt-xent"].distance)(torch.cat([images, texts]), LABELS)
    torch.testing.assert_close(loss(images, texts, **ALONE, loss="contrastive", distance="cosine"), expected)


@pytest.mark.parametrize("name", THEIRS)
@pytest.mark.parametrize("miner", ["hard", "multi-similarity", "triplet-margin"])
def test_miners_choose_among_the_pairs(name, miner):
    images, texts = vectors()
    found = loss(images, texts, **ALONE, loss=name, miner=miner)
    theirs = {"hard": miners.BatchHardMiner, "multi-similarity": miners.MultiSimilarityMiner}
    theirs["triplet-margin"] = miners.TripletMarginMiner
    heap = torch.cat([images, texts])
    mined = theirs[miner](distance=THEIRS[name].distance)(heap, LABELS)
    torch.testing.assert_close(found, THEIRS[name](heap, indices_tuple=mined))


@pytest.mark.parametrize("name", THEIRS)
@pytest.mark.parametrize(
    "option", [{"reducer": r} for r in ("mean", "nonzero", "threshold")] + [{"regularizer": r} for r in ("l1", "l2", "mean")]
)
def test_reducers_and_regularizers_are_taken(name, option):
    """Configuring any of them crashed the re-implementation."""
    images, texts = vectors()
    found = loss(images, texts, loss=name, margin=0.3 if name == "triplet" else None, **option)
    found.backward()
    assert torch.isfinite(found) and torch.isfinite(images.grad).all()
    if "regularizer" in option:
        assert found > loss(images, texts, loss=name, margin=0.3 if name == "triplet" else None)


def test_the_mean_of_all_terms_is_smaller_than_that_of_those_above_zero():
    images, texts = vectors()
    assert loss(images, texts, loss="triplet", reducer="mean") < loss(images, texts, loss="triplet", reducer="nonzero")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"miner": "hard"}, "--miner hard: must be left out for --loss hinge"),
        ({"loss": "infonce", "regularizer": "l2"}, "--regularizer l2: must be left out for --loss infonce"),
        ({"loss": "nt-xent", "distance": "euclidean"}, "--distance euclidean: must be cosine or dot"),
        ({"temperature": 0.0}, "--temperature 0.0: must be above 0"),
        ({"margin": -1.0}, "--margin -1.0: must be 0 or more"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Objective(**options)
