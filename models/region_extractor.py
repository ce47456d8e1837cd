"""The contract every region extractor keeps: a detector, or a grid over a backbone's last map.

An extractor module offers `load(...) -> extractor`; `models.region_extraction` runs any of them over a corpus.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Literal, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from corpora.regions import Regions

Precision = Literal["no", "bf16"]


class RegionExtractor(Protocol):
    """Pictures to regions. What a picture gives does not depend on the pictures beside it, but for rounding."""

    name: str
    """Which extractor, with the options that change what it gives."""
    regions: int
    """R, the same for every picture."""
    width: int
    """D."""

    @property
    def model(self) -> nn.Module: ...

    def __call__(self, pictures: Sequence[Image.Image]) -> list[Regions]:
        """R regions of each picture, without its id; boxes by the picture's width and height."""
        ...


def inference(model: nn.Module, precision: Precision) -> AbstractContextManager[None]:
    """Autocast on the model's device where bf16 is asked for."""
    return torch.autocast(device_of(model).type, torch.bfloat16, enabled=precision == "bf16")


def device_of(model: nn.Module) -> torch.device:
    """Where a model's weights are."""
    return next(model.parameters()).device


def pixel_tensor(picture: Image.Image, device: torch.device) -> Tensor:
    """(3, H, W) float32 of 0..255, RGB."""
    return torch.from_numpy(np.array(picture.convert("RGB"))).to(device).permute(2, 0, 1).float()


def require_torchvision() -> None:
    """ValueError if torchvision is not there, or is built for another torch."""
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError, OSError) as error:
        raise ValueError(
            f"this extractor needs torchvision ({str(error).partition(chr(10))[0]}): bash setup.sh detector, then start the job with "
            ".venv-detector/bin/python"
        ) from error
