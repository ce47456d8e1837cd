"""Encoding a split: every vector is the model's own, in the order of the ids, by any number of processes and parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from real_processes import in_processes
from tiny_model import IMAGES, TEXTS, TinyInputs, TinyModel, split
from torch import Tensor

from corpora.pieces import Part
from models.protocols import Batch, States
from ranking.encoding import Encoder
from ranking.vectors import Vectors, VectorsError, read_vectors
from training.loop import process_group


class Dual(TinyModel):
    """One vector an item; score is their product, scaled and shifted."""

    def encode_texts(self, batch: Batch) -> States:
        words, mask = super().encode_texts(batch)
        return (words.sum(1) / mask.sum(1, keepdim=True),)

    def score(self, images: States, texts: States) -> Tensor:
        return 3 * images[0] @ texts[0].T - 1


class Distance(Dual):
    score_meaning = "minus a distance"

    def score(self, images: States, texts: States) -> Tensor:
        return -torch.cdist(images[0], texts[0])


class Opposite(Dual):
    def score(self, images: States, texts: States) -> Tensor:
        return -super().score(images, texts)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr("ranking.vectors.PIECE", 20)
    monkeypatch.setattr("ranking.encoding.PIECE", 20)
    monkeypatch.setattr("ranking.encoding.BLOCK", 8)


def encode(folder: Path, kind="images", model=None, measure="ip", **more) -> Vectors | None:
    process_group("no")
    encoder = Encoder(model or Dual(), TinyInputs(), split())
    return encoder.vectors_of(folder, encoder.origin("tiny", "none", "made-up", kind, "r", measure), **more)


@pytest.mark.parametrize("kind, count", [("images", IMAGES), ("texts", TEXTS)])
def test_every_vector_is_the_models(tmp_path, kind, count):
    vectors, model, inputs = encode(tmp_path / "v", kind), Dual(), TinyInputs()
    ids = split().image_ids if kind == "images" else split().text_ids
    assert list(vectors.ids) == list(ids) and len(vectors) == count
    with torch.inference_mode():
        for place in range(count):
            if kind == "images":
                (alone,) = model.encode_images(inputs.images(ids[place : place + 1]))
            else:
                (alone,) = model.encode_texts(inputs.texts([split().texts[place]]))
            np.testing.assert_allclose(vectors.rows[place], alone[0], rtol=1e-5, atol=1e-6)
    made = vectors.made_by
    assert (made.model, made.kind, made.split, made.digest, made.measure) == ("tiny", kind, "test", split().digest, "ip")
    assert made.weights and made.weights != encode(tmp_path / "other", kind, Dual(seed=1)).made_by.weights


def test_every_item_is_encoded_once(tmp_path):
    model = Dual()
    encode(tmp_path / "v", model=model, measure="l2")
    assert sorted(number for kind, number in model.calls if kind == "image") == list(range(IMAGES))


def test_parts_and_processes_give_the_same(tmp_path):
    whole = encode(tmp_path / "whole", "texts").rows
    assert encode(tmp_path / "parts", "texts", part=Part(2, 2)) is None
    assert np.array_equal(encode(tmp_path / "parts", "texts", part=Part(1, 2)).rows, whole)
    assert in_processes(2, lambda: encode(tmp_path / "two", "texts")) == [0, 0]
    assert np.array_equal(read_vectors(tmp_path / "two").rows, whole)
    assert in_processes(2, lambda: encode(tmp_path / "both", "texts", part=Part(2, 2))) == [0, 0]
    assert in_processes(2, lambda: encode(tmp_path / "both", "texts", part=Part(1, 2))) == [0, 0]
    assert np.array_equal(read_vectors(tmp_path / "both").rows, whole)


def test_models_that_cannot_be_searched_are_refused(tmp_path):
    with pytest.raises(VectorsError, match=r"makes no vector of texts but states \(16, .*only a dual encoder"):
        encode(tmp_path / "v", "texts", TinyModel())
    for model in (Distance(), Opposite()):
        with pytest.raises(VectorsError, match=r"not inner products of its vectors"):
            encode(tmp_path / "v", model=model)
    assert not list(tmp_path.iterdir())
    assert encode(tmp_path / "v", model=Distance(), measure="l2").made_by.measure == "l2"


def test_the_supervisor_hears_of_every_piece(tmp_path):
    class Heard:
        steps: tuple[int, ...] = ()

        def beat(self) -> None: ...
        def check(self) -> None: ...
        def saved(self, progress: int) -> None:
            self.steps += (progress,)

    process_group("no")
    encoder = Encoder(Dual(), TinyInputs(), split(), supervisor=Heard())
    encoder.vectors_of(tmp_path / "v", encoder.origin("tiny", "none", "made-up", "images", "r"))
    assert encoder.supervisor.steps == (1, 2, 3, 4)
