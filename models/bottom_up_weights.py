"""Where the weights of the bottom-up attention detector are, and whether the configuration beside them is of this detector."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

NAMES = ("model.safetensors", "pytorch_model.bin")

ARCHITECTURE: dict[str, Any] = {
    "model.max_pool": True,
    "model.pixel_mean": [102.9801, 115.9465, 122.7717],
    "model.pixel_std": [1.0, 1.0, 1.0],
    "input.format": "BGR",
    "anchor_generator.sizes": [[64, 128, 256, 512]],
    "anchor_generator.aspect_ratios": [[0.5, 1.0, 2.0]],
    "anchor_generator.offset": 0,
    "rpn.bbox_reg_weights": [1.0, 1.0, 1.0, 1.0],
    "roi_heads.num_classes": 1600,
    "roi_box_head.bbox_reg_weights": [10.0, 10.0, 5.0, 5.0],
    "roi_box_head.pooler_resolution": 14,
    "roi_box_head.res5halve": False,
    "roi_box_head.attr": True,
    "roi_box_head.num_attrs": 400,
    "resnets.depth": 101,
    "resnets.stride_in_1x1": True,
}
"""What a checkpoint's config.yaml may say of the architecture."""


def find_weights(checkpoint: str) -> Path:
    """The file of weights: the checkpoint itself, in its folder, or fetched from the Hugging Face hub."""
    path = Path(checkpoint)
    if path.is_dir():
        found = next((path / name for name in NAMES if (path / name).is_file()), None)
        if found is None:
            raise ValueError(f"{checkpoint}: holds none of {', '.join(NAMES)}")
        return found
    if path.is_file():
        return path
    if checkpoint.startswith((".", "/")) or checkpoint.count("/") != 1:
        raise ValueError(f"{checkpoint}: no such file or folder, and no name on the Hugging Face hub (owner/name)")
    return _from_hub(checkpoint)


def _from_hub(name: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        hf_hub_download(name, "config.yaml")
        return Path(hf_hub_download(name, "pytorch_model.bin"))
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{name}: cannot be fetched from the Hugging Face hub ({reason}); fetch config.yaml and pytorch_model.bin where there "
            "is a network, and name their folder"
        ) from error


def check_config(path: Path) -> None:
    """ValueError if the configuration beside the weights asks for another architecture; there may be none."""
    if not path.is_file():
        return
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read ({str(error).partition(chr(10))[0]})") from None
    differs = [
        f"{key} {given} (here {wanted})"
        for key, wanted in ARCHITECTURE.items()
        if (given := _value(config, key, wanted)) != wanted
    ]
    if differs:
        raise ValueError(f"{path}: another detector: {'; '.join(differs)}")


def _value(config: Any, key: str, default: Any) -> Any:
    """What a nested mapping holds under a dotted key."""
    for name in key.split("."):
        if not isinstance(config, Mapping) or name not in config:
            return default
        config = config[name]
    return config


def read_vocabulary(folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the 1,600 classes and 400 attributes: objects_vocab.txt and attributes_vocab.txt, of each line the first synonym."""
    return _names(folder / "objects_vocab.txt", 1600), _names(folder / "attributes_vocab.txt", 400)


def _names(path: Path, count: int) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read ({error})") from None
    if len(lines) != count:
        raise ValueError(f"{path}: {len(lines)} lines, expected {count}")
    return tuple(line.split(",")[0].strip() for line in lines)
