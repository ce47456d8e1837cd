"""Contrast within a batch: every pair of a process's share against the items of the whole batch, in both directions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from training.gathering import gathered
from training.losses import related
from training.processes import rank


class Contrast(NamedTuple):
    """Queries against candidates, as the losses of `training.losses` take them."""

    scores: Tensor
    """(Q, C)."""
    target: Tensor
    """(Q,) the column of each query's own candidate."""
    ignored: Tensor
    """(Q, C) bool: candidates that are relevant too, and so are no negatives."""


def in_batch(
    score: Callable[[Tensor, Tensor], Tensor], images: Tensor, texts: Tensor, batch: Mapping[str, Tensor]
) -> tuple[Contrast, Contrast]:
    """Image to text and text to image; row b of `images` and `texts` is a pair of this process's share.

    `batch` tells what fits what, as `PairSet.known` does; `score(images, texts)` gives (images, texts).
    """
    text, texts_of_image = batch["own_text"], batch["texts_of_image"]
    own = rank() * len(text) + torch.arange(len(text), device=text.device)
    by_image, by_text = score(images, gathered(texts)), score(gathered(images), texts).T
    i2t = related(texts_of_image[:, None], gathered(text)).scatter(1, own[:, None], False)
    t2i = related(gathered(texts_of_image), text[:, None]).scatter(1, own[:, None], False)
    return Contrast(by_image, own, i2t), Contrast(by_text, own, t2i)
