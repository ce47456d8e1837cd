from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from training.losses import binary_loss, circulant_pairs, hinge_loss, other_direction, related, softmax_loss

SCORES = torch.tensor([[2.0, 1.5, -1.0, 3.0], [0.5, 0.25, 4.0, 0.3], [-2.0, 1.0, 1.0, 0.0]])
TARGET = torch.tensor([0, 1, 2])
IGNORED = torch.tensor([[False, False, False, True], [False, False, False, False], [True, False, False, False]])


def rows() -> list[tuple[float, list[float]]]:
    """(own score, scores of the negatives) of each query, read off by hand-written loops."""
    result = []
    for query in range(3):
        negatives = [
            SCORES[query, item].item() for item in range(4) if item != TARGET[query].item() and not IGNORED[query, item].item()
        ]
        result.append((SCORES[query, TARGET[query]].item(), negatives))
    return result


def test_binary_loss():
    scores, labels = [2.0, -1.0, 0.5], [1, 0, 0]
    chances = [1 / (1 + math.exp(-score)) for score in scores]
    expected = -sum(math.log(p if label else 1 - p) for p, label in zip(chances, labels, strict=True)) / 3
    assert binary_loss(torch.tensor(scores), torch.tensor(labels)).item() == pytest.approx(expected, rel=1e-6)
    assert binary_loss(torch.tensor(scores), torch.tensor(labels, dtype=torch.float64)).dtype == torch.float32


def test_softmax_loss():
    losses = [-math.log(math.exp(own) / sum(map(math.exp, [own, *others]))) for own, others in rows()]
    assert softmax_loss(SCORES, TARGET, IGNORED).item() == pytest.approx(sum(losses) / 3, rel=1e-6)


@pytest.mark.parametrize("top_k", [0, 1, 2, 3, 4, 9])
def test_hinge_loss(top_k):
    losses = []
    for own, others in rows():
        violations = sorted((max(0.0, 0.2 - own + other) for other in others), reverse=True)
        losses.append(sum(violations[: top_k or None]))
    assert hinge_loss(SCORES, TARGET, IGNORED, 0.2, top_k).item() == pytest.approx(sum(losses) / 3, rel=1e-6)


def test_hinge_counts_only_the_worst():
    assert hinge_loss(SCORES, TARGET, IGNORED, 1.0, 1).item() == pytest.approx((0.5 + 4.75 + 1.0) / 3)


@pytest.mark.parametrize(
    "loss", [softmax_loss, lambda *given: hinge_loss(*given, 0.2), lambda *given: hinge_loss(*given, 0.2, 1)]
)
def test_a_query_without_negatives_costs_nothing(loss):
    """Every other caption of the batch may be of the same image: loss and gradient are then 0, not NaN."""
    ignored = torch.tensor([[False, True, True], [True, False, True], [False, False, False]])
    scores = torch.tensor([[1.0, 5.0, 5.0], [5.0, 1.0, 5.0], [1.0, 2.0, 3.0]], requires_grad=True)
    value = loss(scores, torch.tensor([0, 1, 2]), ignored)
    value.backward()
    assert value.isfinite()
    assert scores.grad is not None and scores.grad.isfinite().all()
    assert (scores.grad[:2] == 0).all()


def test_ignored_candidates_get_no_gradient():
    for loss in (softmax_loss, lambda *given: hinge_loss(*given, 5.0)):
        scores = SCORES.clone().requires_grad_()
        loss(scores, TARGET, IGNORED).backward()
        assert scores.grad is not None
        assert (scores.grad[IGNORED] == 0).all()
        assert (scores.grad[~IGNORED] != 0).all()


def test_related():
    texts_of_image = torch.tensor([[4, 7, -1], [2, -1, -1]])
    assert related(texts_of_image, torch.tensor([7, 4])).tolist() == [True, False]
    assert related(texts_of_image[:, None], torch.tensor([7, 2, 9])).tolist() == [[True, False, False], [False, True, False]]


@pytest.mark.parametrize("batch, negatives", [(2, 1), (5, 1), (5, 3), (8, 7), (8, 100)])
def test_circulant_pairs(batch, negatives):
    """Every text and every image meets its own partner and exactly N others, each once."""
    image, text = circulant_pairs(batch, negatives, torch.Generator().manual_seed(3))
    others = min(negatives, batch - 1)
    assert image.shape == text.shape == (batch, 1 + others)
    assert image[:, 0].tolist() == text[:, 0].tolist() == list(range(batch))
    pairs = list(zip(image.flatten().tolist(), text.flatten().tolist(), strict=True))
    assert len(set(pairs)) == batch * (1 + others)
    for side in (0, 1):
        for item in range(batch):
            assert sum(pair[side] == item for pair in pairs) == 1 + others


def test_circulant_pairs_differ_by_generator():
    drawn = {tuple(circulant_pairs(9, 2, torch.Generator().manual_seed(seed))[0][0].tolist()) for seed in range(20)}
    assert len(drawn) > 10


@pytest.mark.parametrize("batch, negatives", [(1, 1), (4, 0)])
def test_circulant_pairs_need_negatives(batch, negatives):
    with pytest.raises(ValueError, match=f"no in-batch negatives among {batch} samples"):
        circulant_pairs(batch, negatives, torch.Generator())


def by_loops(values: Tensor, image: Tensor) -> list[list[float]]:
    result = [[0.0] * values.shape[1] for _ in values]
    for text in range(len(values)):
        for column in range(values.shape[1]):
            result[int(image[text, column])][column] = values[text, column].item()
    return result


@pytest.mark.parametrize("batch, negatives", [(2, 1), (6, 2), (6, 5)])
def test_other_direction(batch, negatives):
    image, text = circulant_pairs(batch, negatives, torch.Generator().manual_seed(1))
    full = torch.arange(float(batch * batch)).view(batch, batch)  # score of image i and text t: full[i, t]
    by_text = full[image, text]
    by_image = other_direction(by_text, image)
    assert by_image.tolist() == by_loops(by_text, image)
    assert by_image[:, 0].tolist() == full.diagonal().tolist()
    for row, candidates in enumerate(by_image.tolist()):
        assert len(set(candidates)) == 1 + negatives
        assert set(candidates) <= set(full[row].tolist())


def test_other_direction_of_all_pairs_is_the_transposed_matrix():
    """With every pair of the batch, both directions' losses equal those of the square matrix."""
    batch = 6
    image, text = circulant_pairs(batch, batch - 1, torch.Generator().manual_seed(1))
    full = torch.randn(batch, batch, generator=torch.Generator().manual_seed(2)).requires_grad_()
    own, nothing = torch.zeros(batch, dtype=torch.long), torch.zeros(batch, batch, dtype=torch.bool)
    by_text = full[image, text]
    loss = softmax_loss(by_text, own, nothing) + softmax_loss(other_direction(by_text, image), own, nothing)
    diagonal = torch.arange(batch)
    square = softmax_loss(full.T, diagonal, nothing) + softmax_loss(full, diagonal, nothing)
    torch.testing.assert_close(loss, square)
    (gradient,), (expected,) = torch.autograd.grad(loss, full, retain_graph=True), torch.autograd.grad(square, full)
    torch.testing.assert_close(gradient, expected)
