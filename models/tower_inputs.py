"""Inputs of models made of an image trunk and a text tower: live, or looked up where a tower is frozen.

What a frozen tower makes of a picture or a text never changes, so it is computed once for all epochs and validations, and
mapped from the run folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import nn

from corpora.corpus import Split
from corpora.images import ImageStore
from corpora.progress import progress
from models.image_trunk import ImageTrunk, Pixels
from models.protocols import Batch, Inputs
from models.region_extractor import device_of
from models.text_tower import TextTower, Tokens
from training.pairs import PairSet
from training.processes import on_main
from training.state_cache import StateCache, write_states
from training.weights import weights_digest

TOGETHER = 64
"""Pictures or texts encoded at once for a cache."""


class TowerInputs:
    """Pixels and tokens. A picture that cannot be decoded is a StoreError that names it, never another picture."""

    def __init__(self, prepare: Pixels, tokens: Tokens, store: ImageStore) -> None:
        self._prepare, self._tokens, self._store = prepare, tokens, store

    def images(self, image_ids: Sequence[str]) -> Batch:
        """`pixel_values` (I, 3, side, side)."""
        return {"pixel_values": self._prepare([self._store.picture(image_id) for image_id in image_ids])}

    def texts(self, texts: Sequence[str]) -> Batch:
        """`input_ids` and `attention_mask` (T, L)."""
        return self._tokens(texts)


class Vectors:
    """One vector a key (an image id or a text), from the caches of some splits."""

    def __init__(self, caches: Sequence[tuple[Sequence[str], StateCache]]) -> None:
        self._caches = [cache for _, cache in caches]
        self._place = {key: (number, row) for number, (keys, _) in enumerate(caches) for row, key in enumerate(keys)}

    def __call__(self, keys: Sequence[str]) -> torch.Tensor:
        """(K, width) float32."""
        places = [self._place[key] for key in keys]
        return torch.stack([self._caches[number].row(row)[0] for number, row in places])


class FrozenInputs:
    """`image_vectors` (I, width) and `text_vectors` (T, width) of frozen towers; pixels and tokens of those that learn."""

    def __init__(self, live: TowerInputs, image_vectors: Vectors | None, text_vectors: Vectors | None) -> None:
        self._live, self._image_vectors, self._text_vectors = live, image_vectors, text_vectors

    def images(self, image_ids: Sequence[str]) -> Batch:
        """As the class says."""
        return {"image_vectors": self._image_vectors(image_ids)} if self._image_vectors else self._live.images(image_ids)

    def texts(self, texts: Sequence[str]) -> Batch:
        """As the class says."""
        return {"text_vectors": self._text_vectors(texts)} if self._text_vectors else self._live.texts(texts)


def frozen_inputs(live: TowerInputs, trunk: ImageTrunk, tower: TextTower, splits: Sequence[Split], folder: Path) -> FrozenInputs:
    """Encode the splits' images and texts with those towers that are frozen, unless `folder` holds that already."""
    images = texts = None
    if trunk.frozen:
        mark = _mark(trunk, asdict(trunk.prepare))
        images = Vectors([(one.image_ids, _cache(folder, "images", one, mark, _image_rows(live, trunk, one))) for one in splits])
    if tower.frozen:
        mark = _mark(tower, [tower.layers, tower.pool, tower.tokens.max_length])
        texts = Vectors([(one.texts, _cache(folder, "texts", one, mark, _text_rows(live, tower, one))) for one in splits])
    return FrozenInputs(live, images, texts)


def _mark(tower: nn.Module, options: object) -> str:
    return hashlib.sha256(json.dumps([weights_digest(tower), options]).encode()).hexdigest()[:16]


def _cache(folder: Path, kind: str, split: Split, mark: str, rows: Callable[[], Iterator[np.ndarray]]) -> StateCache:
    place = folder / f"{kind}-{split.digest[:16]}-{mark}"
    if not on_main(place.exists):
        on_main(lambda: write_states(place, rows()))
    return StateCache(place)


def _image_rows(live: TowerInputs, trunk: ImageTrunk, split: Split) -> Callable[[], Iterator[np.ndarray]]:
    """(1, width) of every image, in order."""

    def rows() -> Iterator[np.ndarray]:
        for start in progress(range(0, len(split.image_ids), TOGETHER), f"encoding batches of images of {split.name}"):
            pixels = live.images(split.image_ids[start : start + TOGETHER])["pixel_values"]
            with torch.inference_mode():
                yield from trunk.pooled(pixels.to(device_of(trunk))).cpu().numpy()[:, None]

    return rows


def _text_rows(live: TowerInputs, tower: TextTower, split: Split) -> Callable[[], Iterator[np.ndarray]]:
    """(1, width) of every text, in order; of many at a time those of like length are encoded together."""

    def rows() -> Iterator[np.ndarray]:
        many = 32 * TOGETHER
        for start in progress(range(0, len(split.texts), many), f"encoding texts of {split.name}"):
            some = split.texts[start : start + many]
            vectors = np.empty((len(some), tower.width), np.float32)
            order = np.argsort([len(text) for text in some], kind="stable")
            for few in np.split(order, range(TOGETHER, len(order), TOGETHER)):
                batch = live.texts([some[i] for i in few])
                with torch.inference_mode():
                    pooled = tower({key: value.to(device_of(tower)) for key, value in batch.items()}).pooled
                vectors[few] = pooled.cpu().numpy()
            yield from vectors[:, None]

    return rows


class TowerPairs:
    """Makes batches from a split's pairs; runs in loader workers."""

    def __init__(self, split: Split, inputs: Inputs) -> None:
        self._split, self._inputs = split, inputs
        self._pairs = PairSet(split.pairs, len(split.image_ids), len(split.texts))

    def batch(self, samples: np.ndarray, generator: np.random.Generator) -> dict[str, torch.Tensor]:
        """What the inputs give of B images and their B texts, and what fits what (`PairSet.known`)."""
        images, texts = self._split.pairs[samples].T
        pictures = self._inputs.images([self._split.image_ids[i] for i in images])
        captions = self._inputs.texts([self._split.texts[i] for i in texts])
        return {**pictures, **captions} | {key: torch.from_numpy(value) for key, value in self._pairs.known(samples).items()}

    def describe(self, samples: np.ndarray) -> list[str]:
        """Caption ids of samples."""
        return [self._split.text_ids[text] for text in self._split.pairs[samples, 1]]
