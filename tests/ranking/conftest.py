"""Small made-up rankings for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from ranking.matrix import Axis, Kind, Provenance, Ranking, Relevance

MADE_UP = Provenance("made-up", "none", "made-up", "test", "digest", "no meaning")


@pytest.fixture(scope="session")
def ranking_of() -> Callable[..., Ranking]:
    """`ranking_of(scores, relevant)`: relevant[q] lists the relevant items of query q; ids are i0, i1, ... and t0, t1, ..."""

    def build(
        scores: object, relevant: Sequence[Sequence[int]], kinds: tuple[Kind, Kind] = ("image", "text"), dtype: type = np.float32
    ) -> Ranking:
        matrix = np.array(scores, dtype)
        axes = [Axis(kind, tuple(f"{kind[0]}{i}" for i in range(size))) for kind, size in zip(kinds, matrix.shape, strict=True)]
        pairs = [(query, item) for query, items in enumerate(relevant) for item in items]
        relevance = Relevance.from_pairs(np.array(pairs, np.int64).reshape(-1, 2), len(matrix))
        return Ranking(axes[0], axes[1], relevance, matrix, MADE_UP)

    return build


@pytest.fixture(scope="session")
def captioned(ranking_of: Callable[..., Ranking]) -> Callable[..., Ranking]:
    """`captioned(images, per_image, seed)`: random scores, the captions of image i are the next `per_image` texts."""

    def build(images: int, per_image: int = 5, seed: int = 0) -> Ranking:
        scores = np.random.default_rng(seed).standard_normal((images, images * per_image))
        scores += 1.5 * np.repeat(np.eye(images), per_image, axis=1)
        return ranking_of(scores, np.arange(images * per_image).reshape(images, per_image))

    return build


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny model's 67 images and 131 texts are then 5 and 9 uneven blocks."""
    monkeypatch.setattr("ranking.engine.BLOCK", 16)


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's ranking file, made by one process without a break."""
    from tiny_model import rank

    path = tmp_path_factory.mktemp("whole") / "ranking.h5"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ranking.engine.BLOCK", 16)
        rank(path)
    return path
