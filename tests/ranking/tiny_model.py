"""A small cross-encoder and a split for it: real torch modules, no weights to load."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from corpora.corpus import Split
from models.protocols import Batch, States
from ranking.engine import Engine
from ranking.matrix import Provenance, Ranking
from training.loop import process_group
from training.weights import weights_digest

IMAGES, TEXTS, WIDTH, WORDS = 67, 131, 8, 50


def split() -> Split:
    """67 images with 1 to 4 of 131 captions of 1 to 9 words; one caption describes two images."""
    random = np.random.default_rng(0)
    owner = np.concatenate([np.arange(IMAGES), random.integers(IMAGES, size=TEXTS - IMAGES)])
    pairs = np.array(sorted({*zip(owner.tolist(), range(TEXTS), strict=True), (5, 9)}))
    texts = tuple(" ".join(f"w{word}" for word in random.integers(WORDS, size=random.integers(1, 10))) for _ in range(TEXTS))
    images = tuple(f"image-{i}" for i in range(IMAGES))
    return Split("test", images, ("",) * IMAGES, tuple(f"text-{i}" for i in range(TEXTS)), texts, pairs)


class TinyModel(nn.Module):
    """Scores a pair by a small network over both; padding of texts must not matter."""

    score_meaning = "made-up logit"

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.words, self.pixels = nn.Embedding(WORDS, WIDTH), nn.Linear(WIDTH, WIDTH)
            self.head = nn.Sequential(nn.Linear(2 * WIDTH, 16), nn.Dropout(0.5), nn.Tanh(), nn.Linear(16, 1))
        self.before_score: Callable[[], object] = lambda: None
        self.calls: list[tuple[str, int]] = []

    def encode_images(self, batch: Batch) -> States:
        self.calls += [("image", int(i)) for i in batch["number"]]
        return (self.pixels(batch["features"]),)

    def encode_texts(self, batch: Batch) -> States:
        self.calls += [("text", len(batch["words"]))]
        return self.words(batch["words"]) * batch["mask"][..., None], batch["mask"]

    def score(self, images: States, texts: States) -> Tensor:
        self.before_score()
        self.calls.append(("pairs", len(images[0]) * len(texts[0])))
        text = texts[0].sum(1) / texts[1].sum(1, keepdim=True)
        pairs = [torch.cat([image.expand_as(text), text], dim=1) for image in images[0]]
        return torch.stack([self.head(block).squeeze(1) for block in pairs])


class TinyInputs:
    def images(self, image_ids: Sequence[str]) -> Batch:
        numbers = [int(image_id.split("-")[1]) for image_id in image_ids]
        features = np.stack([np.random.default_rng([1, number]).standard_normal(WIDTH, np.float32) for number in numbers])
        return {"number": torch.tensor(numbers), "features": torch.from_numpy(features)}

    def texts(self, texts: Sequence[str]) -> Batch:
        rows = [[int(word[1:]) for word in text.split()] for text in texts]
        words = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
        mask = torch.zeros(words.shape)
        for place, row in enumerate(rows):
            words[place, : len(row)] = torch.tensor(row)
            mask[place, : len(row)] = 1
        return {"words": words, "mask": mask}


def provenance(model: nn.Module, **changes: str) -> Provenance:
    made = Provenance("tiny", "none", "made-up", "test", split().digest, "made-up logit", weights=weights_digest(model))
    return replace(made, **changes)


def engine(model: TinyModel | None = None, pair_batch: int = 40, workers: int = 0) -> Engine:
    return Engine(model or TinyModel(), TinyInputs(), split(), pair_batch=pair_batch, workers=workers)


def rank(path: Path, model: TinyModel | None = None) -> Ranking:
    """The ranking file of the tiny model, by all processes there are."""
    process_group("no")
    model = model or TinyModel()
    return engine(model).rank_to_file(path, provenance(model))


def scores(ranking: Ranking) -> np.ndarray:
    return np.concatenate([block for _, block in ranking.blocks()])
