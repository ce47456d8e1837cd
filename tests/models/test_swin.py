"""The image encoder: Swin V2 as transformers computes it, any other backbone, heads, checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import Swinv2Config, Swinv2Model, ViTImageProcessorPil

from models import swin
from models.image_trunk import load_trunk
from models.swin import ImageEncoder, Shape
from models.swin_training import Learner
from training.class_losses import ClassLoss
from training.class_objective import ClassObjective


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> str:
    """A Swin V2 of random weights: two stages, 32 pixels."""
    folder = tmp_path_factory.mktemp("swin")
    torch.manual_seed(0)
    config = Swinv2Config(
        image_size=32, patch_size=4, embed_dim=8, depths=[1, 2], num_heads=[1, 2], window_size=4, drop_path_rate=0.0
    )
    Swinv2Model(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return str(folder)


def encoder(tiny: str, pictures, **shape) -> tuple[ImageEncoder, swin.ImageInputs]:
    torch.manual_seed(1)
    return swin.from_trunk(load_trunk(tiny, frozen=False), Shape(**shape), pictures)


def test_the_published_base_has_so_many_parameters():
    with torch.device("meta"):
        base = Swinv2Model(
            Swinv2Config(image_size=256, embed_dim=128, depths=[2, 2, 18, 2], num_heads=[4, 8, 16, 32], window_size=16)
        )
    assert sum(one.numel() for one in base.parameters()) == 86_893_816
    assert base.num_features == 1024


def test_the_vector_is_transformers_pooled_output(tiny, pictures):
    """The mean of the last tokens behind the LayerNorm."""
    model, inputs = encoder(tiny, pictures, normalise=False)
    batch = inputs.images(["0", "3", "5"])
    reference = Swinv2Model.from_pretrained(tiny).eval()
    with torch.no_grad():
        seen = reference(batch["pixel_values"])
        (mine,) = model.eval().encode_images(batch)
    torch.testing.assert_close(mine, seen.pooler_output, atol=1e-5, rtol=0)
    torch.testing.assert_close(mine, seen.last_hidden_state.mean(1), atol=1e-5, rtol=0)
    assert mine.std() > 0.1 and model.width == 16


def test_heads_and_lengths(tiny, pictures):
    model, inputs = encoder(tiny, pictures, projection=5)
    batch = inputs.images(["0", "1"])
    with torch.no_grad():
        (unit,) = model.eval().encode_images(batch)
        raw = model.head(model.trunk.pooled(batch["pixel_values"]))
    torch.testing.assert_close(unit, raw / raw.norm(dim=1, keepdim=True))
    assert (model.width, model.measure, model.score_meaning) == (5, "ip", "cosine")
    torch.testing.assert_close(model.score((unit,), (unit,)), unit @ unit.T)
    plain, _ = encoder(tiny, pictures, normalise=False)
    far = torch.tensor([[0.0, 3.0], [4.0, 0.0]])
    assert plain.measure == "l2" and plain.score((far,), (far,)).tolist() == [[0, -25], [-25, 0]]


def test_there_is_no_text_side(tiny, pictures):
    model, inputs = encoder(tiny, pictures)
    for ask in (lambda: model.encode_texts({}), lambda: inputs.texts(["a dog"])):
        with pytest.raises(ValueError, match="it has no text side"):
            ask()


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_a_checkpoint_gives_the_searched_encoder_back(tiny, pictures, tmp_path, average):
    model, inputs = encoder(tiny, pictures, projection=4)
    learner = Learner(model, ClassLoss(ClassObjective(memory=3), 4, 2, True), average)
    with torch.no_grad():
        model.head.bias += 1
    swin.save(learner, model, tmp_path)
    loaded, again = swin.load(str(tmp_path), pictures)
    searched = learner.searched
    assert (searched is model) == (average == 0)
    with torch.no_grad():
        expected = searched.eval().encode_images(inputs.images(["2", "4"]))[0]
        torch.testing.assert_close(loaded.eval().encode_images(again.images(["2", "4"]))[0], expected, atol=1e-6, rtol=0)
    assert not any(one.requires_grad for one in loaded.trunk.parameters())
    assert swin.is_checkpoint(str(tmp_path)) and not swin.is_checkpoint(tiny)


def test_a_damaged_checkpoint_is_one_error(tiny, pictures, tmp_path):
    model, _ = encoder(tiny, pictures)
    swin.save(Learner(model, ClassLoss(ClassObjective(), 16, 2, True), 0), model, tmp_path)
    (tmp_path / "swin.json").write_text("{")
    with pytest.raises(ValueError, match="image encoder cannot be read"):
        swin.load(str(tmp_path), pictures)
    (tmp_path / "swin.json").write_text(json.dumps({"projection": 7, "normalise": True}))
    with pytest.raises(ValueError, match=r"2 missing: head\.weight"):
        swin.load(str(tmp_path), pictures)


def test_backbones_by_name(tiny, pictures):
    assert swin.full_name("swinv2-base") == "microsoft/swinv2-base-patch4-window16-256"
    assert swin.full_name(tiny) == tiny
    model, inputs = swin.open_encoder(tiny, pictures, normalise=False, image_size=64)
    assert inputs.images(["1"])["pixel_values"].shape == (1, 3, 64, 64) and model.measure == "l2"
    with torch.no_grad():
        assert model.encode_images(inputs.images(["1"]))[0].shape == (1, 16)


def test_less_memory_gives_the_same_gradients(tiny, pictures):
    def gradients(saving: bool) -> dict[str, torch.Tensor]:
        model, inputs = encoder(tiny, pictures)
        calls = []
        model.trunk.model.encoder.layers[1].blocks[0].register_forward_hook(lambda *_: calls.append(1))
        if saving:
            model.trunk.save_memory()
        model.train().encode_images(inputs.images(["0", "1"]))[0][:, 0].sum().backward()
        assert len(calls) == 1 + saving
        return {name: one.grad for name, one in model.named_parameters() if one.grad is not None}

    plain, saving = gradients(False), gradients(True)
    assert plain.keys() == saving.keys() and max(one.abs().max() for one in plain.values()) > 1e-3
    for name, gradient in plain.items():
        torch.testing.assert_close(gradient, saving[name], atol=1e-6, rtol=1e-5)


def test_a_backbone_that_cannot_save_memory_is_refused(tiny):
    trunk = load_trunk(tiny, frozen=False)
    trunk.model = nn.Identity()
    with pytest.raises(ValueError, match="--gradient-checkpointing is for models"):
        trunk.save_memory()


def test_any_scorer_opens_it(tiny, pictures, tmp_path):
    from models.scorer import open_scorer

    class Corpus:
        images = pictures

    model, _ = encoder(tiny, pictures)
    swin.save(Learner(model, ClassLoss(ClassObjective(), 16, 2, True), 0), model, Path(tmp_path))
    name, opened, _ = open_scorer(str(tmp_path), Corpus())
    assert name == "image encoder" and isinstance(opened, ImageEncoder)
