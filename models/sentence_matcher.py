"""The sentence matcher of vokenization's cross-modal matching (Tan & Bansal 2020), as Maria (Liang et al. 2021) uses it.

An image trunk and a language model, each followed by a small network, meet in one space; score = cosine.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from corpora.images import ImageStore
from models.image_trunk import ImageTrunk, read_trunk
from models.pretrained import one_error
from models.protocols import Batch, States
from models.text_tower import TextTower, read_text_tower
from models.tower_inputs import TowerInputs
from models.weight_files import load_named, read_tensors

FILE, WEIGHTS = "sentence_matcher.json", "model.safetensors"


@dataclass(frozen=True)
class HeadShape:
    """The network after each tower: for every width of `hidden` a Linear, ReLU and dropout, then a Linear to `projection`.

    Published are (1024, 1024) and 512. On a few thousand pictures a single Linear, `hidden` (), with dropout of a tower's
    vector itself, `input_dropout`, learns more.
    """

    hidden: tuple[int, ...] = (1024, 1024)
    projection: int = 512
    dropout: float = 0.2
    input_dropout: float = 0.0


class Head(nn.Sequential):
    """(B, width) vectors of a tower -> (B, projection)."""

    def __init__(self, width: int, shape: HeadShape) -> None:
        parts: list[nn.Module] = [nn.Dropout(shape.input_dropout)]
        for before, after in pairwise((width, *shape.hidden)):
            parts += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(shape.dropout)]
        super().__init__(*parts, nn.Linear((width, *shape.hidden)[-1], shape.projection))


class SentenceMatcher(nn.Module):
    """A dual encoder over two towers, frozen or not."""

    score_meaning = "cosine"

    def __init__(self, trunk: ImageTrunk, tower: TextTower, shape: HeadShape) -> None:
        super().__init__()
        self.trunk, self.tower, self.shape = trunk, tower, shape
        self.image_head, self.text_head = Head(trunk.width, shape), Head(tower.width, shape)

    def encode_images(self, batch: Batch) -> States:
        """`pixel_values` (I, 3, H, W), or the frozen trunk's `image_vectors` (I, width) -> unit vectors (I, projection)."""
        vectors = batch["image_vectors"] if "image_vectors" in batch else self.trunk.pooled(batch["pixel_values"])
        return (F.normalize(self.image_head(vectors).float(), dim=-1),)

    def encode_texts(self, batch: Batch) -> States:
        """`input_ids`, `attention_mask` (T, L), or the frozen tower's `text_vectors` (T, width) -> unit vectors (T, projection)."""
        vectors = batch["text_vectors"] if "text_vectors" in batch else self.tower(batch).pooled
        return (F.normalize(self.text_head(vectors).float(), dim=-1),)

    def score(self, images: States, texts: States) -> Tensor:
        """(I, T) cosines."""
        with torch.autocast(images[0].device.type, enabled=False):
            return images[0] @ texts[0].T


def from_scratch(trunk: ImageTrunk, tower: TextTower, shape: HeadShape, store: ImageStore) -> tuple[SentenceMatcher, TowerInputs]:
    """New heads over two towers."""
    return SentenceMatcher(trunk, tower, shape), TowerInputs(trunk.prepare, tower.tokens, store)


def load(
    checkpoint: str, store: ImageStore, image_frozen: bool = True, text_frozen: bool = True
) -> tuple[SentenceMatcher, TowerInputs]:
    """A checkpoint that `save` wrote. A missing file, weight or tokenizer is a ValueError."""
    folder = Path(checkpoint)
    with one_error(checkpoint, "sentence matcher"):
        told = json.loads((folder / FILE).read_text())
        shape = HeadShape(**{**told, "hidden": tuple(told["hidden"])})
    model, inputs = from_scratch(read_trunk(folder, image_frozen), read_text_tower(folder, text_frozen), shape, store)
    load_named(model, read_tensors(folder / WEIGHTS), str(folder / WEIGHTS))
    return model, inputs


def save(model: SentenceMatcher, folder: Path) -> None:
    """Weights (safetensors) of towers and heads, and what `load` needs to build them."""
    folder.mkdir(parents=True, exist_ok=True)
    model.trunk.save(folder)
    model.tower.save(folder)
    (folder / FILE).write_text(json.dumps(asdict(model.shape)))
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / WEIGHTS)
