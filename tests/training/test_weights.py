"""Weights are told apart by their content."""

from __future__ import annotations

import torch
from torch import nn

from training.weights import weights_digest


def linear(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Linear(3, 2)


def test_the_same_weights_have_the_same_digest():
    assert weights_digest(linear(0)) == weights_digest(linear(0)) != weights_digest(linear(1))
    assert len(weights_digest(linear(0))) == 16


def test_scalars_and_other_types_count():
    scale = nn.ParameterDict({"scale": nn.Parameter(torch.tensor(1.0))})
    assert weights_digest(scale) != weights_digest(scale.double()) and weights_digest(linear(0)) != weights_digest(
        linear(0).half()
    )
