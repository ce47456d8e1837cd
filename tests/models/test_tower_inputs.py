from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from corpora.images import ImageStore, write_images
from corpora.store import StoreError
from models.image_trunk import ImageTrunk, load_trunk
from models.text_tower import TextTower, load_text_tower
from models.tower_inputs import TowerInputs, frozen_inputs


@pytest.fixture
def towers(captions) -> tuple[ImageTrunk, TextTower]:
    torch.manual_seed(0)
    return load_trunk("scratch", size=32), load_text_tower("scratch", pool="mean", texts=captions)


@pytest.fixture
def live(towers, pictures) -> TowerInputs:
    trunk, tower = towers
    return TowerInputs(trunk.prepare, tower.tokens, pictures)


def count(module: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each forward pass of a tower takes, from now on."""
    rows: list[int] = []
    forward = module.forward

    def counted(batch):
        rows.append(len(batch["input_ids"]) if isinstance(batch, dict) else len(batch))
        return forward(batch)

    monkeypatch.setattr(module, "forward", counted)
    return rows


def test_what_is_looked_up_is_what_the_towers_give(towers, live, make_split, captions, tmp_path):
    trunk, tower = towers
    train, val = make_split(6, [{i % 6} for i in range(8)]), make_split(2, [{0}, {1}], [captions[4], "a horse"])
    inputs = frozen_inputs(live, trunk, tower, (train, val), tmp_path / "cache")
    ids, texts = ["5", "0", "3", "0"], ["a horse", captions[3], captions[0]]
    vectors = inputs.images(ids)
    assert vectors.keys() == {"image_vectors"}
    torch.testing.assert_close(vectors["image_vectors"], trunk.pooled(live.images(ids)["pixel_values"]), atol=1e-5, rtol=0)
    alone = torch.cat([tower(live.texts([text])).pooled for text in texts])
    torch.testing.assert_close(inputs.texts(texts)["text_vectors"], alone, atol=1e-5, rtol=0)
    again = pickle.loads(pickle.dumps(inputs))  # loader workers
    assert torch.equal(again.texts(texts)["text_vectors"], inputs.texts(texts)["text_vectors"])


def test_a_second_start_encodes_nothing(towers, live, make_split, tmp_path, monkeypatch):
    trunk, tower = towers
    split = make_split(5, [{i % 5} for i in range(7)])
    images, texts = count(trunk, monkeypatch), count(tower, monkeypatch)
    for _ in range(2):
        frozen_inputs(live, trunk, tower, (split,), tmp_path / "cache").images(["1"])
    assert (sum(images), sum(texts)) == (5, 7)


def test_other_weights_pixels_or_pooling_are_other_vectors(towers, live, make_split, captions, pictures, tmp_path):
    """A cache of these images and texts, but of other towers, must not be read."""
    split, (first, second) = make_split(2, [{0}, {1}]), towers
    frozen_inputs(live, first, second, (split,), tmp_path)
    for trunk, tower in (
        (load_trunk("scratch", size=32), second),
        (ImageTrunk(first.model, replace(first.prepare, side=48), first.name, None, True), second),
        (first, load_text_tower("scratch", pool="mean", texts=captions)),
        (first, TextTower(second.model, second.config, second.tokens, (-1,), "first", True)),
        (first, TextTower(second.model, second.config, second.tokens, (-2,), "mean", True)),
    ):
        other, before = TowerInputs(trunk.prepare, tower.tokens, pictures), len(list(tmp_path.iterdir()))
        inputs = frozen_inputs(other, trunk, tower, (split,), tmp_path)
        assert len(list(tmp_path.iterdir())) == before + 1
        images, texts = trunk.pooled(other.images(["0"])["pixel_values"]), tower(other.texts(split.texts[:1])).pooled
        torch.testing.assert_close(inputs.images(["0"])["image_vectors"], images, atol=1e-5, rtol=0)
        torch.testing.assert_close(inputs.texts(split.texts[:1])["text_vectors"], texts, atol=1e-5, rtol=0)


def test_a_tower_that_learns_is_not_looked_up(live, towers, make_split, captions, tmp_path):
    split = make_split(2, [{0}, {1}])
    learning = load_trunk("scratch", frozen=False, size=32), load_text_tower("scratch", frozen=False, texts=captions)
    inputs = frozen_inputs(live, learning[0], towers[1], (split,), tmp_path / "a")
    assert inputs.images(["0"]).keys() == {"pixel_values"} and inputs.texts(split.texts[:1]).keys() == {"text_vectors"}
    inputs = frozen_inputs(live, towers[0], learning[1], (split,), tmp_path / "b")
    assert inputs.images(["0"]).keys() == {"image_vectors"}
    assert inputs.texts(split.texts[:1]).keys() == {"input_ids", "attention_mask"}


def test_many_texts_keep_their_order(towers, live, make_split, tmp_path):
    """They are encoded by length, 64 at a time."""
    words = ("a dog", "a man on a horse", "birds", "the old house in the rain")
    texts = [" ".join(words[(i + k) % 4] for k in range(1 + i % 5)) + f" {i}" for i in range(150)]
    split = make_split(1, [{0}] * 150, texts)
    seen = frozen_inputs(live, *towers, (split,), tmp_path).texts(texts)["text_vectors"]
    alone = torch.cat([towers[1](live.texts([text])).pooled for text in texts])
    torch.testing.assert_close(seen, alone, atol=1e-5, rtol=0)


def test_a_broken_image_is_an_error_that_names_it(towers, pictures, make_split, tmp_path: Path):
    """The original silently took the item 95 places further on."""
    write_images(tmp_path / "broken.h5", [("0", pictures.read("0")), ("1", pictures.read("1")[:60])])
    trunk, tower = towers
    live = TowerInputs(trunk.prepare, tower.tokens, ImageStore(tmp_path / "broken.h5"))
    live.images(["0"])
    for read in (
        lambda: live.images(["0", "1"]),
        lambda: frozen_inputs(live, trunk, tower, (make_split(2, [{0}, {1}]),), tmp_path / "cache"),
    ):
        with pytest.raises(StoreError, match="image '1' cannot be decoded"):
            read()
    assert {path.suffix for path in (tmp_path / "cache").glob("images-*")} == {".part"}  # never taken for whole
