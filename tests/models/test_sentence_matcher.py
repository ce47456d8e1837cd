from __future__ import annotations

import pytest
import torch
from torch import nn

from models import sentence_matcher
from models.image_trunk import load_trunk
from models.sentence_matcher import Head, HeadShape, SentenceMatcher
from models.text_tower import load_text_tower
from models.tower_inputs import TowerInputs

SMALL = HeadShape(hidden=(24,), projection=16, dropout=0.2, input_dropout=0.1)


@pytest.fixture
def small(pictures, captions) -> tuple[SentenceMatcher, TowerInputs]:
    torch.manual_seed(0)
    towers = load_trunk("scratch", size=32), load_text_tower("scratch", layers=(-2, -1), texts=captions)
    model, inputs = sentence_matcher.from_scratch(*towers, SMALL, pictures)
    return model.eval(), inputs


def test_the_published_heads():
    """MLP 2048 -> 1024 -> 1024 -> 512, ReLU and dropout after the first two."""
    head = Head(2048, HeadShape())
    widths = [(part.in_features, part.out_features) for part in head if isinstance(part, nn.Linear)]
    assert widths == [(2048, 1024), (1024, 1024), (1024, 512)]
    assert [type(part).__name__ for part in head][1:] == ["Linear", "ReLU", "Dropout"] * 2 + ["Linear"]
    assert [part.p for part in head if isinstance(part, nn.Dropout)] == [0.0, 0.2, 0.2]


@torch.inference_mode()
def test_scores_are_cosines_of_the_heads(small, captions):
    model, inputs = small
    pixels, tokens = inputs.images(["0", "1", "4"]), inputs.texts(captions)
    images = model.image_head(model.trunk(pixels["pixel_values"]).mean((2, 3)))
    texts = model.text_head(model.tower(tokens).pooled)
    expected = nn.functional.cosine_similarity(images[:, None], texts[None], dim=2)
    scores = model.score(model.encode_images(pixels), model.encode_texts(tokens))
    assert scores.shape == (3, 6) and scores.dtype == torch.float32
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=0)
    looked_up = {"image_vectors": model.trunk.pooled(pixels["pixel_values"]), "text_vectors": model.tower(tokens).pooled}
    torch.testing.assert_close(model.score(model.encode_images(looked_up), model.encode_texts(looked_up)), expected)


@torch.inference_mode()
def test_autocast_does_not_round_the_scores(small, captions):
    model, inputs = small
    with torch.autocast("cpu", torch.bfloat16):
        (images,), (texts,) = model.encode_images(inputs.images(["0", "1"])), model.encode_texts(inputs.texts(captions))
        scores = model.score((images,), (texts,))
    assert scores.dtype == images.dtype == texts.dtype == torch.float32
    torch.testing.assert_close(scores, images @ texts.T, atol=1e-6, rtol=0)


def test_frozen_towers_do_not_learn(small, captions):
    model, inputs = small
    model.train()
    (images,), (texts,) = model.encode_images(inputs.images(["0", "1"])), model.encode_texts(inputs.texts(captions))
    model.score((images,), (texts,)).sum().backward()
    learning = {name for name, one in model.named_parameters() if one.grad is not None}
    assert learning == {name for name, one in model.named_parameters() if one.requires_grad}
    assert {name.split(".")[0] for name in learning} == {"image_head", "text_head"}
    assert not any(part.training for tower in (model.trunk, model.tower) for part in tower.modules())


@pytest.mark.parametrize("shape", [SMALL, HeadShape(hidden=(), projection=8)])
def test_a_checkpoint_scores_as_the_model(pictures, captions, shape, tmp_path):
    towers = load_trunk("scratch", size=32), load_text_tower("scratch", layers=(-2, -1), texts=captions)
    model, inputs = sentence_matcher.from_scratch(*towers, shape, pictures)
    sentence_matcher.save(model.eval(), tmp_path)
    again, read = sentence_matcher.load(str(tmp_path), pictures)
    with torch.inference_mode():
        before, after = (
            one.score(one.encode_images(given.images(["0", "2"])), one.encode_texts(given.texts(captions)))
            for one, given in ((model, inputs), (again.eval(), read))
        )
    assert torch.equal(before, after) and again.shape == shape
    assert again.trunk.frozen and not sentence_matcher.load(str(tmp_path), pictures, image_frozen=False)[0].trunk.frozen


def test_damaged_checkpoints(small, pictures, tmp_path):
    with pytest.raises(ValueError, match="sentence matcher cannot be read"):
        sentence_matcher.load(str(tmp_path / "nothing"), pictures)
    sentence_matcher.save(small[0], tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(ValueError, match="cannot be read as weights"):
        sentence_matcher.load(str(tmp_path), pictures)
