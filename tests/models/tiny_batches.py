"""Made-up batches for LXMERT."""

from __future__ import annotations

import torch
from torch import Tensor


def text_batch(lengths: list[int], vocabulary: int, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    ids = torch.randint(1, vocabulary, mask.shape, generator=generator)
    return {"input_ids": ids.where(mask, 0), "attention_mask": mask.long()}


def image_batch(images: int, regions: int, width: int, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.rand(images, regions, 4, generator=generator)
    return {"features": torch.randn(images, regions, width, generator=generator), "boxes": boxes}
