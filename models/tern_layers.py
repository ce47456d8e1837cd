"""The parts of TERN: transformer encoders with real masks, regions with their boxes, and what makes one vector of many.

Tensor suffixes: N items (images or texts), S positions (regions or tokens), W width, H heads. `mask` (N, S) is True where a
position is real: nothing here reads a padded one.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NormOrder = Literal["post", "pre"]
Boxes = Literal["concat", "add"]
Aggregation = Literal["first", "mean", "sum", "sum-mlp", "gated", "gru", "encoder"]
"""How a sequence becomes a vector; `encoder`: the mean of the encoder's own states, past the shared layers."""


class SelfAttention(nn.Module):
    """Multi-head self-attention. With `relative`, learned vectors for the distances -relative to relative are added to keys and
    values (Shaw et al. 2018); farther positions share the last one."""

    def __init__(self, width: int, heads: int, dropout: float, relative: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width}: must be a multiple of {heads} heads")
        self.heads, self._dropout, self._relative = heads, dropout, relative
        self.project, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        if relative:
            self.distances = nn.Parameter(torch.empty(2, 2 * relative + 1, width // heads))
            nn.init.xavier_uniform_(self.distances)

    def forward(self, x_NSW: Tensor, mask_NS: Tensor) -> Tensor:
        query, key, value = self.project(x_NSW).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        dropout = self._dropout if self.training else 0.0
        if self._relative:
            mixed = self._mix_relative(query, key, value, mask_NS, dropout)
        else:
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask_NS[:, None, None], dropout_p=dropout)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def _mix_relative(self, query: Tensor, key: Tensor, value: Tensor, mask_NS: Tensor, dropout: float) -> Tensor:
        """query, key, value (N, H, S, W / H)."""
        place = torch.arange(query.shape[2], device=query.device)
        distance = (place - place[:, None]).clamp(-self._relative, self._relative) + self._relative
        for_keys, for_values = self.distances[:, distance]
        scores = query @ key.transpose(2, 3) + torch.einsum("nhqd,qkd->nhqk", query, for_keys)
        scores = (scores / query.shape[3] ** 0.5).masked_fill(~mask_NS[:, None, None], -torch.inf)
        weights = F.dropout(scores.softmax(-1), dropout)
        return weights @ value + torch.einsum("nhqk,qkd->nhqd", weights, for_values.to(weights.dtype))


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each with its residual: LayerNorm and ReLU as in Vaswani et al. 2017 (post), or LayerNorm
    first and GELU (pre)."""

    def __init__(self, width: int, heads: int, feed_forward: int, dropout: float, order: NormOrder, relative: int) -> None:
        super().__init__()
        self._order = order
        self.attention = SelfAttention(width, heads, dropout, relative)
        activation = nn.ReLU() if order == "post" else nn.GELU()
        self.feed_forward = nn.Sequential(
            nn.Linear(width, feed_forward), activation, nn.Dropout(dropout), nn.Linear(feed_forward, width)
        )
        self.attention_norm, self.feed_forward_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        if self._order == "post":
            x = self.attention_norm(x + self.dropout(self.attention(x, mask)))
            return self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))
        x = x + self.dropout(self.attention(self.attention_norm(x), mask))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class Encoder(nn.Module):
    """Some layers, after pre-norm layers a last LayerNorm; with no layers, nothing."""

    def __init__(
        self, layers: int, width: int, heads: int, feed_forward: int, dropout: float, order: NormOrder, relative: int
    ) -> None:
        super().__init__()
        made = (EncoderLayer(width, heads, feed_forward, dropout, order, relative) for _ in range(layers))
        self.layers = nn.ModuleList(made)
        self.norm = nn.LayerNorm(width) if layers and order == "pre" else nn.Identity()

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, mask)
        normed: Tensor = self.norm(x)
        return normed


class RegionEmbedding(nn.Module):
    """Region features and boxes to vectors, behind a first position that stands for the image.

    `concat`: feature and box through two layers; `add`: their projections added up. The first position is a region of zeros,
    as in the paper, or with `learned_first` two learned vectors, one beside the features and one beside the boxes.
    """

    def __init__(self, region_width: int, width: int, boxes: Boxes, learned_first: bool, project: bool) -> None:
        super().__init__()
        self._boxes = boxes
        if boxes == "concat":
            self.map = nn.Sequential(nn.Linear(region_width + 5, width), nn.ReLU(), nn.Linear(width, width))
        else:
            self.feature = nn.Linear(region_width, width) if project or region_width != width else nn.Identity()
            self.box = nn.Linear(5, width)
        self.first = nn.Parameter(torch.zeros(2, width)) if learned_first else None

    def forward(self, features: Tensor, boxes: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """(I, R, D), (I, R, 4) in [0, 1] and (I, R) -> (I, 1 + R, W) and its mask."""
        area = (boxes[..., 2:3] - boxes[..., :1]) * (boxes[..., 3:] - boxes[..., 1:2])
        places = torch.cat([boxes, area], dim=-1)
        if self.first is None:
            features, places = (F.pad(part, (0, 0, 1, 0)) for part in (features, places))
        if self._boxes == "concat":
            x = self.map(torch.cat([features, places], dim=-1))
        else:
            x = self.feature(features) + self.box(places)
        if self.first is not None:
            x = torch.cat([self.first.sum(0).to(x.dtype).expand(len(x), 1, -1), x], dim=1)
        return x, F.pad(mask, (1, 0), value=True)


class Aggregator(nn.Module):
    """One vector of the real positions: (N, S, W), (N, S) -> (N, W)."""

    def __init__(self, kind: Aggregation, width: int) -> None:
        super().__init__()
        self.kind = kind
        if kind in ("sum-mlp", "gated"):
            self.map = _two_layers(width, width)
        if kind == "gated":
            self.gate = _two_layers(width, 1)
        if kind == "gru":
            self.gru = nn.GRU(width, width, batch_first=True)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        real = mask[..., None]
        if self.kind == "first":
            return x[:, 0]
        if self.kind == "gru":
            return self._last_state(x, mask)
        if self.kind == "gated":
            return (torch.sigmoid(self.gate(x)) * self.map(x)).masked_fill(~real, 0).sum(1)
        total = x.masked_fill(~real, 0).sum(1)
        if self.kind in ("mean", "encoder"):
            return total / real.sum(1)
        summed: Tensor = self.map(total) if self.kind == "sum-mlp" else total
        return summed

    def _last_state(self, x: Tensor, mask: Tensor) -> Tensor:
        """Of a GRU that stops at each item's last real position; the padding is on the right."""
        packed = nn.utils.rnn.pack_padded_sequence(x, mask.sum(1).cpu(), batch_first=True, enforce_sorted=False)
        _, last = self.gru(packed)
        state: Tensor = last[0]
        return state


def _two_layers(width: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, out))
