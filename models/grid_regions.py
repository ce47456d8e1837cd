"""A grid as regions: the last map of a backbone, averaged into N x N cells, each with its box.

The whole picture is squashed to the backbone's square input, so that the cells tile all of it: a crop would leave out what
the boxes claim.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from corpora.regions import Regions
from models.image_trunk import ImageTrunk, load_trunk
from models.region_extractor import Precision, device_of, inference


class GridExtractor:
    """cells x cells regions of a picture, row after row."""

    def __init__(self, trunk: ImageTrunk, name: str, cells: int, precision: Precision = "no") -> None:
        self.model, self.name, self.width, self.regions = trunk, name, trunk.width, cells * cells
        self._cells, self._precision = cells, precision
        self._boxes = cell_boxes(cells)
        self([Image.new("RGB", (32, 32))])  # a map that is too small is told now

    @torch.inference_mode()
    def __call__(self, pictures: Sequence[Image.Image]) -> list[Regions]:
        pixels = self.model.prepare(pictures).to(device_of(self.model))
        with inference(self.model, self._precision):
            last = self.model(pixels).float()
        if min(last.shape[2:]) < self._cells:
            raise ValueError(
                f"{self.name}: its last map has {last.shape[2]} x {last.shape[3]} places; ask for at most so many regions"
            )
        features = F.adaptive_avg_pool2d(last, self._cells).flatten(2).transpose(1, 2).cpu().numpy()
        return [Regions("", one, self._boxes) for one in features]


def cell_boxes(cells: int) -> np.ndarray:
    """(cells * cells, 4) boxes in [0, 1], row after row."""
    edges = np.linspace(0, 1, cells + 1, dtype=np.float32)
    return np.array(
        [(edges[x], edges[y], edges[x + 1], edges[y + 1]) for y in range(cells) for x in range(cells)], dtype=np.float32
    )


def load(checkpoint: str, regions: int = 49, precision: Precision = "no") -> GridExtractor:
    """A grid over a backbone by any name that `models.image_trunk.load_trunk` knows."""
    cells = math.isqrt(regions)
    if cells < 1 or cells * cells != regions:
        raise ValueError(f"--regions {regions}: a grid has N x N cells, such as 49 or 36")
    return GridExtractor(load_trunk(checkpoint), f"grid of {Path(checkpoint).name}", cells, precision)
