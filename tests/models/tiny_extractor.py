"""An extractor of almost no work, and a corpus for it; as a program, it extracts slowly, to be killed.

python tiny_extractor.py <corpus folder>
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from corpora.corpus import Caption, Corpus, CorpusWriter, ImageRecord
from corpora.images import write_images
from corpora.regions import Regions
from models import region_extraction

PIECE = 4
IMAGES = 30


class TinyExtractor:
    """Two regions: means of a picture's halves, times a weight; keeps count of the pictures it saw."""

    name, regions, width = "tiny", 2, 3

    def __init__(self, seconds: float = 0.0, weight: float = 1.0) -> None:
        self.model = nn.Linear(1, 1)
        nn.init.constant_(self.model.weight, weight)
        nn.init.constant_(self.model.bias, 0.0)
        self.seconds, self.seen = seconds, 0

    @torch.inference_mode()
    def __call__(self, pictures: Sequence[Image.Image]) -> list[Regions]:
        self.seen += len(pictures)
        time.sleep(self.seconds * len(pictures))
        return [self._regions(np.asarray(picture).astype(np.float32)) for picture in pictures]

    def _regions(self, pixels: np.ndarray) -> Regions:
        half = pixels.shape[1] // 2
        features = np.stack([pixels[:, :half].mean((0, 1)), pixels[:, half:].mean((0, 1))]) * self.model.weight.item()
        boxes = np.array([[0, 0, 0.5, 1], [0.5, 0, 1, 1]], np.float32)
        return Regions("", features, boxes, np.array([1, 2]), np.array([0.5, 0.25], np.float32))


def make_corpus(folder: Path, images: int = IMAGES) -> Corpus:
    """Random pictures of random sizes."""
    generator = np.random.default_rng(0)
    with CorpusWriter(folder, {"made": "for a test"}, {}) as corpus:
        write_images(corpus.part / "images.h5", ((f"i{k}", _random_png(generator)) for k in range(images)))
        corpus.images += [ImageRecord(f"i{k}", "train", 9, 9) for k in range(images)]
        corpus.captions += [Caption(f"c{k}", "noise", (f"i{k}",)) for k in range(images)]
    return Corpus(folder)


def _random_png(generator: np.random.Generator) -> bytes:
    file = io.BytesIO()
    size = (*generator.integers(4, 12, 2), 3)
    Image.fromarray(generator.integers(0, 256, size).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


if __name__ == "__main__":
    region_extraction.PIECE = PIECE
    region_extraction.Extraction(Corpus(Path(sys.argv[1])), TinyExtractor(0.05), "tiny").run()
