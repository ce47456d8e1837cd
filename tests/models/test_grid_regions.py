"""Grids over small backbones: convolutional, with and without tokens before the patches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detector_environment import detector
from PIL import Image
from transformers import CLIPConfig, CLIPModel, ResNetConfig, ResNetModel, ViTConfig, ViTImageProcessorPil, ViTModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from models.grid_regions import cell_boxes, load
from models.image_trunk import as_map

VIT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A ViT with a class token, a ResNet and a CLIP, 32 pixels wide."""
    folder = tmp_path_factory.mktemp("backbones")
    torch.manual_seed(0)
    ViTModel(ViTConfig(image_size=32, patch_size=4, **VIT)).save_pretrained(folder / "vit")
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder / "vit")
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 12], "depths": [1, 1], "layer_type": "basic"}
    ResNetModel(ResNetConfig(**sizes)).save_pretrained(folder / "resnet")
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder / "resnet")
    vision = {**VIT, "image_size": 32, "patch_size": 8}
    CLIPModel(CLIPConfig(text_config={**VIT, "vocab_size": 9}, vision_config=vision)).save_pretrained(folder / "clip")
    CLIPImageProcessorPil(size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}).save_pretrained(folder / "clip")
    return folder


def picture(seed: int = 0, width: int = 50, height: int = 30) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3))
    return Image.fromarray(pixels.astype(np.uint8))


def test_boxes_tile_the_picture_row_after_row():
    boxes = cell_boxes(3)
    assert boxes.shape == (9, 4)
    assert boxes[0].tolist() == [0, 0, pytest.approx(1 / 3), pytest.approx(1 / 3)]
    assert boxes[1].tolist() == [pytest.approx(1 / 3), 0, pytest.approx(2 / 3), pytest.approx(1 / 3)]
    assert boxes[8].tolist() == [pytest.approx(2 / 3), pytest.approx(2 / 3), 1, 1]
    assert ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sum() == pytest.approx(1)


@pytest.mark.parametrize(("tokens", "side"), [(49, 7), (50, 7), (51, 7), (197, 14), (261, 16), (2, 1)])
def test_patches_are_the_last_tokens(tokens, side):
    hidden = torch.arange(tokens).float()[None, :, None]
    seen = as_map(hidden)
    assert seen.shape == (1, 1, side, side)
    assert seen[0, 0, -1, -1] == tokens - 1
    assert seen[0, 0, 0, 0] == tokens - side * side


@pytest.mark.parametrize(("name", "width", "cells"), [("vit", 16, 4), ("resnet", 12, 2), ("clip", 16, 4), ("vit", 16, 3)])
def test_cells_of_any_backbone(folders, name, width, cells):
    extractor = load(str(folders / name), cells * cells)
    assert (extractor.regions, extractor.width, extractor.name) == (cells * cells, width, f"grid of {name}")
    together, alone = extractor([picture(0), picture(1, 20, 90)]), extractor([picture(1, 20, 90)])
    assert together[0].features.shape == (cells * cells, width)
    assert np.allclose(together[1].features, alone[0].features, atol=1e-5)
    assert not np.allclose(together[0].features, together[1].features, atol=1e-2)
    assert np.array_equal(together[0].boxes, cell_boxes(cells))


def test_the_first_cell_sees_the_upper_left_corner(folders):
    """Nothing is cropped: what changes at the very edge of a wide picture changes the cell there most."""
    extractor = load(str(folders / "resnet"), 4)
    plain, marked = Image.new("RGB", (200, 50)), Image.new("RGB", (200, 50))
    marked.paste("white", (0, 0, 20, 10))
    change = np.abs(extractor([marked])[0].features - extractor([plain])[0].features).sum(axis=1)
    assert change.argmax() == 0 and change[0] > 0


def test_cells_are_means_of_the_map(folders):
    extractor = load(str(folders / "vit"), 4)  # of 8 x 8 patches
    model, one = ViTModel.from_pretrained(folders / "vit").eval(), picture()
    processor = ViTImageProcessorPil.from_pretrained(folders / "vit")
    with torch.inference_mode():
        tokens = model(**processor(one, return_tensors="pt")).last_hidden_state[0, 1:].view(8, 8, 16)
    assert np.allclose(extractor([one])[0].features[1], tokens[:4, 4:].mean((0, 1)), atol=1e-4)


def test_refusals(folders, tmp_path):
    with pytest.raises(ValueError, match=r"--regions 48: a grid has N x N cells"):
        load(str(folders / "vit"), 48)
    with pytest.raises(ValueError, match="its last map has 8 x 8 places"):
        load(str(folders / "vit"), 81)
    with pytest.raises(ValueError, match="cannot be read"):
        load(str(tmp_path), 4)


@detector
def test_torchvision_backbones(tmp_path):
    from torchvision.models import get_model

    for name, width in (("resnet18", 512), ("mobilenet_v3_small", 576)):
        torch.manual_seed(0)
        torch.save(get_model(name, weights=None).state_dict(), tmp_path / f"{name}.pth")
        extractor = load(f"torchvision:{name}:{tmp_path}/{name}.pth", 49)
        assert extractor.width == width
        assert extractor([picture(), picture(1)])[1].features.shape == (49, width)
    torch.save(get_model("swin_t", weights=None).state_dict(), tmp_path / "swin.pth")
    with pytest.raises(ValueError, match="ends in no map"):
        load(f"torchvision:swin_t:{tmp_path}/swin.pth")
    with pytest.raises(ValueError, match="is no file"):
        load(f"torchvision:resnet18:{tmp_path}/resnet.pth")
