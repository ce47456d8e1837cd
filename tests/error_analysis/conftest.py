"""Small corpora and rankings whose ranks are known beforehand."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from corpora.corpus import Caption, Corpus, CorpusWriter, ImageRecord, Split
from corpora.images import write_images
from ranking.matrix import Axis, Provenance, Ranking, Relevance


def jpeg(width: int = 40, height: int = 30, colour: tuple[int, int, int] = (200, 120, 40)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def make_corpus(tmp_path: Path) -> Callable[..., Corpus]:
    """make(captions by image id, folder name, encoded picture of every image): a corpus of one split, val."""

    def make(captions: Mapping[str, Sequence[str]], name: str = "corpus", picture: bytes | None = None) -> Corpus:
        with CorpusWriter(tmp_path / name) as writer:
            write_images(writer.part / "images.h5", [(key, picture or jpeg()) for key in captions])
            for key, texts in captions.items():
                writer.images.append(ImageRecord(key, "val", 40, 30))
                for text in texts:
                    writer.captions.append(Caption(f"c{len(writer.captions)}", text, (key,)))
        return Corpus(tmp_path / name)

    return make


@pytest.fixture
def numbered_corpus(make_corpus: Callable[..., Corpus]) -> Corpus:
    """24 images with one caption each, so that rank k of a caption and of its image can be set alike."""
    return make_corpus({f"img{i}": [f"caption {i}"] for i in range(24)})


def ranking_of(split: Split, scores: np.ndarray, model: str = "made up", digest: str | None = None, corpus: str = "") -> Ranking:
    """A ranking of a split with image queries."""
    images = len(split.image_ids)
    return Ranking(
        Axis("image", split.image_ids),
        Axis("text", split.text_ids),
        Relevance.from_pairs(split.pairs, images),
        scores.astype(np.float32),
        Provenance(model, "none", corpus, split.name, split.digest if digest is None else digest, "made up"),
    )


def ranked(ranks: Sequence[int], items: int, model: str = "made up", split: str = "val") -> Ranking:
    """Text queries t0, t1, ... against images i0, i1, ...: text q describes image q, which stands at 0-based ranks[q]."""
    scores = np.full((len(ranks), items), -1.0, np.float32)
    for query, rank in enumerate(ranks):
        others = [item for item in range(items) if item != query]
        scores[query, query] = 0
        scores[query, others[:rank]] = 1 + np.arange(rank, 0, -1)
    pairs = np.array([(query, query) for query in range(len(ranks))])
    return Ranking(
        Axis("text", tuple(f"t{query}" for query in range(len(ranks)))),
        Axis("image", tuple(f"i{item}" for item in range(items))),
        Relevance.from_pairs(pairs, len(ranks)),
        scores,
        Provenance(model, "none", "", split, "", "made up"),
    )


@pytest.fixture
def known_ranks() -> Callable[..., Ranking]:
    return ranked


@pytest.fixture
def make_ranking() -> Callable[..., Ranking]:
    return ranking_of


@pytest.fixture
def make_jpeg() -> Callable[..., bytes]:
    return jpeg
