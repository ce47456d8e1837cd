"""Which layer learns how fast."""

from __future__ import annotations

import torch
from torch import nn
from transformers import Swinv2Config, Swinv2Model

from training.layer_rates import layer_rates


def test_every_block_learns_slower_than_the_one_above():
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Linear(2, 2)
            self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)) for _ in range(3)])
            self.norm = nn.LayerNorm(2)

    rates = layer_rates(Network(), 0.5)
    assert rates["stem.weight"] == rates["blocks.0.0.weight"] == rates["blocks.0.1.bias"] == 0.25
    assert (rates["blocks.1.0.bias"], rates["blocks.2.1.weight"], rates["norm.weight"]) == (0.5, 1.0, 1.0)
    assert rates.keys() == dict(Network().named_parameters()).keys()
    assert set(layer_rates(Network(), 1.0).values()) == {1.0}
    assert set(layer_rates(nn.Linear(2, 2), 0.5).values()) == {1.0}


def test_the_blocks_of_swin():
    with torch.device("meta"):
        model = Swinv2Model(Swinv2Config(embed_dim=8, depths=[2, 1], num_heads=[1, 2], image_size=32, window_size=4))
    rates = layer_rates(model, 0.5)
    place = "encoder.layers.{}.layernorm_after.weight"
    assert [rates[place.format(block)] for block in ("0.blocks.0", "0.blocks.1", "1.blocks.0")] == [0.125, 0.25, 1.0]
    assert rates["embeddings.patch_embeddings.projection.weight"] == 0.125
    assert rates["encoder.layers.0.downsample.reduction.weight"] == 0.5
    assert rates["layernorm.weight"] == 1.0
