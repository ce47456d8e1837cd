from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from models import clip
from models.clip import ClipShape
from models.clip_training import ClipPairs, ClipTrainee

SMALL = ClipShape(image_size=32, patch=16, width=16, layers=1, heads=2, projection=8)


@pytest.fixture
def small(pictures, tokenizer):
    torch.manual_seed(0)
    return clip.from_scratch(SMALL, pictures, tokenizer)


def test_loss_equals_a_loop_that_leaves_other_relevant_pairs_out(small, make_split):
    model, inputs = small
    owners = [{0}, {0}, {1}, {2}, {3, 0}]
    split, samples = make_split(4, owners), np.array([0, 1, 3, 4, 5])
    images, texts = split.pairs[samples].T
    batch = ClipPairs(split, inputs).batch(samples, np.random.default_rng(0))
    pixels = inputs.images([split.image_ids[i] for i in images])
    tokens = inputs.texts([split.texts[j] for j in texts])
    scores = model.score(model.encode_images(pixels), model.encode_texts(tokens))
    assert scores.std() > 0.1
    losses = []
    for matrix, related in (
        (scores, lambda i, j: images[i] in owners[texts[j]]),
        (scores.T, lambda j, i: images[i] in owners[texts[j]]),
    ):
        for own in range(5):
            others = [other for other in range(5) if other != own and not related(own, other)]
            losses.append(torch.logsumexp(matrix[own, [own, *others]], 0) - matrix[own, own])
    torch.testing.assert_close(ClipTrainee(model)(batch), torch.stack(losses).mean(), atol=1e-5, rtol=0)
    assert any(images[i] in owners[texts[j]] for i in range(5) for j in range(5) if i != j)


def test_the_same_pair_twice_in_a_batch_is_no_negative(small, make_split):
    model, inputs = small
    batch = ClipPairs(make_split(2, [{0}, {1}]), inputs).batch(np.array([0, 0]), np.random.default_rng(0))
    assert ClipTrainee(model)(batch).item() == pytest.approx(0, abs=1e-6)


def test_the_scale_of_the_logits_is_clamped_at_100(small, make_split):
    model, inputs = small
    trainee, batch = (
        ClipTrainee(model),
        ClipPairs(make_split(2, [{0}, {1}]), inputs).batch(np.arange(2), np.random.default_rng(0)),
    )
    with torch.no_grad():
        model.logit_scale.fill_(math.log(400))
    trainee(batch).backward()
    assert model.logit_scale.exp().item() == pytest.approx(100, rel=1e-5)
    assert model.logit_scale.grad is not None  # it can come down again
    with torch.no_grad():
        model.logit_scale.fill_(math.log(20))
    trainee(batch)
    assert model.logit_scale.exp().item() == pytest.approx(20, rel=1e-5)


def test_every_parameter_gets_a_gradient(small, make_split):
    model, inputs = small
    batch = ClipPairs(make_split(3, [{0}, {1}, {2}]), inputs).batch(np.arange(3), np.random.default_rng(0))
    ClipTrainee(model).train()(batch).backward()
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]


def test_samples_are_named_by_their_captions(small, make_split):
    assert ClipPairs(make_split(2, [{0}, {1}, {0}]), small[1]).describe(np.array([2, 0])) == ["c1", "c0"]
