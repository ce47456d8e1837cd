"""Swin V2 (Liu et al. 2022), or any other backbone, as an encoder of images that are searched by images.

    model, inputs = from_trunk(load_trunk(full_name("swinv2-base"), frozen=False), Shape(), store)

The vector is the mean of the backbone's last map (of Swin V2 its pooler output), through a linear head if there is one, of unit
length or as it is. Images are compared with images; there is no text side.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn, cast

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from corpora.images import ImageStore
from models.image_trunk import ImageTrunk, Pixels, load_trunk, read_trunk
from models.pretrained import one_error
from models.protocols import Batch, States
from models.weight_files import load_named, read_tensors

FILE, WEIGHTS = "swin.json", "model.safetensors"
ENCODER, AVERAGE = "encoder.", "average."
"""Prefixes in a checkpoint: the weights that learn, and their moving average, which is what is searched with if there is one."""
SIZES = {
    "swinv2-tiny": "microsoft/swinv2-tiny-patch4-window8-256",
    "swinv2-base": "microsoft/swinv2-base-patch4-window16-256",
    "swinv2-large": "microsoft/swinv2-large-patch4-window12-192-22k",
}


@dataclass(frozen=True)
class Shape:
    """What becomes of the pooled map."""

    projection: int = 0
    """Width of a linear head; 0 = none."""
    normalise: bool = True
    """Unit vectors, compared by cosine; otherwise by Euclidean distance, as published."""


class ImageEncoder(nn.Module):
    """Images to vectors."""

    def __init__(self, trunk: ImageTrunk, shape: Shape) -> None:
        super().__init__()
        self.trunk, self.shape = trunk, shape
        self.head = nn.Linear(trunk.width, shape.projection) if shape.projection else nn.Identity()
        self.width = shape.projection or trunk.width
        self.measure: Literal["ip", "l2"] = "ip" if shape.normalise else "l2"
        self.score_meaning = "cosine" if shape.normalise else "squared distance, negative"

    def encode_images(self, batch: Batch) -> States:
        """`pixel_values` (I, 3, H, W) -> (I, width)."""
        vectors = self.head(self.trunk.pooled(batch["pixel_values"])).float()
        return (F.normalize(vectors, dim=-1) if self.shape.normalise else vectors,)

    def encode_texts(self, batch: Batch) -> NoReturn:
        """ValueError: there is no text side."""
        raise ValueError("an image encoder compares images with images; it has no text side")

    def score(self, images: States, others: States) -> Tensor:
        """(I, J) scores of images against images."""
        with torch.autocast(images[0].device.type, enabled=False):
            return images[0] @ others[0].T if self.shape.normalise else -(torch.cdist(images[0], others[0]) ** 2)


class ImageInputs:
    """Pixels of a corpus's images."""

    def __init__(self, prepare: Pixels, store: ImageStore) -> None:
        self._prepare, self._store = prepare, store

    def images(self, image_ids: Sequence[str]) -> Batch:
        """`pixel_values` (I, 3, side, side)."""
        return {"pixel_values": self._prepare([self._store.picture(image_id) for image_id in image_ids])}

    def texts(self, texts: Sequence[str]) -> NoReturn:
        """ValueError: there is no text side."""
        raise ValueError("an image encoder compares images with images; it has no text side")


def full_name(backbone: str) -> str:
    """The hub name of a Swin V2 by its size; any other name as it is (`models.image_trunk.load_trunk`)."""
    return SIZES.get(backbone, backbone)


def from_trunk(trunk: ImageTrunk, shape: Shape, store: ImageStore) -> tuple[ImageEncoder, ImageInputs]:
    """A backbone with a new head, if any."""
    model = ImageEncoder(trunk, shape)
    cast(Any, model).to(memory_format=torch.channels_last)  # convolutions are faster so
    return model, ImageInputs(trunk.prepare, store)


def is_checkpoint(checkpoint: str) -> bool:
    """Whether it is a folder that a training wrote; otherwise it is the name of a backbone."""
    return Path(checkpoint, FILE).is_file()


def load(checkpoint: str, store: ImageStore, frozen: bool = True) -> tuple[ImageEncoder, ImageInputs]:
    """A checkpoint of a training: of its weights the moving average, if it has one. Missing files or weights are a ValueError."""
    folder = Path(checkpoint)
    with one_error(checkpoint, "image encoder"):
        shape = Shape(**json.loads((folder / FILE).read_text()))
    model, inputs = from_trunk(read_trunk(folder, frozen), shape, store)
    weights = read_tensors(folder / WEIGHTS)
    prefix = AVERAGE if any(name.startswith(AVERAGE) for name in weights) else ENCODER
    own = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    load_named(model, own, str(folder / WEIGHTS))
    return model, inputs


def open_encoder(
    checkpoint: str, store: ImageStore, normalise: bool = True, image_size: int = 0
) -> tuple[ImageEncoder, ImageInputs]:
    """A checkpoint as `load` reads it, or a backbone by name as it comes; the other arguments are for the latter."""
    if is_checkpoint(checkpoint):
        return load(checkpoint, store)
    return from_trunk(load_trunk(full_name(checkpoint), size=image_size), Shape(normalise=normalise), store)


def save(learner: nn.Module, encoder: ImageEncoder, folder: Path) -> None:
    """All weights of what learns (safetensors), of which `encoder` is a part, and what `load` needs to build that."""
    folder.mkdir(parents=True, exist_ok=True)
    encoder.trunk.save(folder)
    (folder / FILE).write_text(json.dumps(asdict(encoder.shape)))
    save_file({name: value.contiguous() for name, value in learner.state_dict().items()}, folder / WEIGHTS)
