from __future__ import annotations

import pytest
import torch
from torch import nn

from models.tern_layers import Aggregator, Encoder, EncoderLayer, RegionEmbedding, SelfAttention

MASK = torch.tensor([[True, True, True, True], [True, True, False, False]])


@pytest.mark.parametrize("order", ["post", "pre"])
def test_a_layer_is_torchs_own(order):
    torch.manual_seed(0)
    ours = EncoderLayer(8, 2, 12, 0.0, order, 0)
    kind = {"norm_first": order == "pre", "activation": "gelu" if order == "pre" else "relu"}
    theirs = nn.TransformerEncoderLayer(8, 2, 12, 0.0, batch_first=True, **kind)
    names = {
        "self_attn.in_proj_": "attention.project.",
        "self_attn.out_proj.": "attention.out.",
        "linear1.": "feed_forward.0.",
        "linear2.": "feed_forward.3.",
        "norm1.": "attention_norm.",
        "norm2.": "feed_forward_norm.",
    }
    for theirs_name, own in names.items():
        for part in ("weight", "bias"):
            theirs.state_dict()[theirs_name + part].copy_(ours.state_dict()[own + part])
    x = torch.randn(2, 4, 8)
    expected = theirs(x, src_key_padding_mask=~MASK)
    torch.testing.assert_close(ours(x, MASK)[MASK], expected[MASK], atol=1e-6, rtol=1e-5)


def test_an_encoder_without_layers_does_nothing():
    encoder = Encoder(0, 8, 2, 12, 0.0, "pre", 0)
    x = torch.randn(2, 4, 8)
    assert torch.equal(encoder(x, MASK), x) and not list(encoder.parameters())


def test_relative_positions_are_those_of_a_loop():
    """Shaw et al. 2018, equations 3 and 4, one head after the other."""
    torch.manual_seed(0)
    attention = SelfAttention(6, 2, 0.0, relative=1)
    x = torch.randn(1, 4, 6)
    query, key, value = attention.project(x).unflatten(-1, (3, 2, 3)).permute(2, 0, 3, 1, 4)[:, 0]
    heads = []
    for head in range(2):
        rows = []
        for i in range(4):
            near = [attention.distances[:, max(-1, min(1, j - i)) + 1] for j in range(4)]
            scores = torch.stack([query[head, i] @ (key[head, j] + near[j][0]) / 3**0.5 for j in range(4)])
            rows.append(sum(w * (value[head, j] + near[j][1]) for j, w in enumerate(scores.softmax(0))))
        heads.append(torch.stack(rows))
    expected = attention.out(torch.cat(heads, dim=-1))
    torch.testing.assert_close(attention(x, torch.ones(1, 4, dtype=torch.bool))[0], expected, atol=1e-6, rtol=1e-5)


def test_relative_positions_tell_order_and_plain_attention_does_not():
    torch.manual_seed(0)
    x, back = torch.randn(1, 4, 6), [3, 2, 1, 0]
    everywhere = torch.ones(1, 4, dtype=torch.bool)
    for relative, tells in ((0, False), (2, True)):
        attention = SelfAttention(6, 2, 0.0, relative)
        differs = (attention(x, everywhere)[:, back] - attention(x[:, back], everywhere)).abs().max() > 1e-3
        assert bool(differs) is tells


@pytest.mark.parametrize("boxes", ["concat", "add"])
def test_the_paper_puts_a_region_of_zeros_first(boxes):
    torch.manual_seed(0)
    embedding = RegionEmbedding(5, 8, boxes, learned_first=False, project=False)
    features, places = torch.randn(2, 4, 5), torch.rand(2, 4, 4)
    x, mask = embedding(features, places, MASK)
    zero, _ = embedding(torch.zeros(1, 1, 5), torch.zeros(1, 1, 4), torch.ones(1, 1, dtype=torch.bool))
    torch.testing.assert_close(x[:, 0], zero[:, 1].expand(2, -1))
    assert mask.tolist() == [[True] * 5, [True, True, True, False, False]]


def test_the_area_of_a_box_is_its_fifth_number():
    embedding = RegionEmbedding(2, 2, "add", learned_first=False, project=False)
    assert isinstance(embedding.feature, nn.Identity)
    with torch.no_grad():
        embedding.box.weight.copy_(torch.tensor([[0, 0, 0, 0, 1.0], [1, 0, 0, 0, 0]]))
        embedding.box.bias.zero_()
    x, _ = embedding(torch.zeros(1, 1, 2), torch.tensor([[[0.25, 0.0, 0.75, 0.5]]]), torch.ones(1, 1, dtype=torch.bool))
    assert x[0, 1].tolist() == [0.25, 0.25]


def test_the_learned_first_position_starts_at_zero_and_learns():
    embedding = RegionEmbedding(5, 8, "add", learned_first=True, project=True)
    x, _ = embedding(torch.randn(2, 3, 5), torch.rand(2, 3, 4), torch.ones(2, 3, dtype=torch.bool))
    assert not x[:, 0].any() and embedding.first is not None and embedding.first.shape == (2, 8)
    x[:, 0].sum().backward()
    assert embedding.first.grad.tolist() == [[2.0] * 8] * 2


def test_aggregations_of_a_hand_worked_case():
    x = torch.tensor([[[1.0, 2], [3, 4], [5, 6], [7, 8]], [[1.0, 2], [3, 4], [50, 60], [70, 80]]])
    assert Aggregator("first", 2)(x, MASK).tolist() == [[1, 2], [1, 2]]
    assert Aggregator("sum", 2)(x, MASK).tolist() == [[16, 20], [4, 6]]
    assert Aggregator("mean", 2)(x, MASK).tolist() == [[4, 5], [2, 3]]  # over the padding it would be [31, 36.5]
    mlp = Aggregator("sum-mlp", 2)
    torch.testing.assert_close(mlp(x, MASK), mlp.map(torch.tensor([[16.0, 20], [4, 6]])))


def test_the_gated_sum_is_that_of_a_loop():
    torch.manual_seed(0)
    gated, x = Aggregator("gated", 6), torch.randn(2, 4, 6)
    for row, length in enumerate((4, 2)):
        expected = sum(torch.sigmoid(gated.gate(x[row, s])) * gated.map(x[row, s]) for s in range(length))
        torch.testing.assert_close(gated(x, MASK)[row], expected)


def test_the_gru_stops_at_the_last_real_position():
    torch.manual_seed(0)
    aggregator, x = Aggregator("gru", 6), torch.randn(2, 4, 6)
    _, last = aggregator.gru(x[1:, :2])
    torch.testing.assert_close(aggregator(x, MASK)[1], last[0, 0])
