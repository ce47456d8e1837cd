"""TERN (Messina et al. 2020, "Transformer Reasoning Network for Image-Text Matching and Retrieval"): regions and words each go
through a transformer encoder, then both through layers with shared weights; one vector a side, score = cosine.

Two variants: `paper`, the authors' network, and `flickr`, a smaller re-implementation of it (kaylode/tern). Both mask
padding, and boxes are corners and area in [0, 1], which the re-implementation's were not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from corpora.regions import RegionStore
from models.pretrained import one_error
from models.protocols import Batch, States
from models.tern_layers import Aggregation, Aggregator, Boxes, Encoder, RegionEmbedding, SelfAttention
from models.text_features import TextFeatures
from models.text_tower import TextTower, read_text_tower
from models.weight_files import load_named, read_tensors

Variant = Literal["paper", "flickr"]
Measure = Literal["cosine", "order"]
FILE = "tern.json"
AT_ONCE = 1 << 24
"""Numbers that the order score compares at once."""


@dataclass(frozen=True)
class TernShape:
    """All that makes a TERN beside the widths of its region and text features.

    The variant decides: post-norm with ReLU, a first region of zeros and linear projections (paper), or pre-norm with GELU, a
    learned first region, projections of two layers and Xavier's initial weights (flickr).
    """

    variant: Variant = "paper"
    boxes: Boxes = "concat"
    width: int = 2048
    vision_layers: int = 4
    text_layers: int = 0
    shared_layers: int = 2
    separate: bool = False
    embedding: int = 1024
    heads: int = 4
    feed_forward: int = 2048
    dropout: float = 0.1
    relative: int = 0
    image_aggregation: Aggregation = "first"
    text_aggregation: Aggregation = "first"
    measure: Measure = "cosine"
    input_dropout: float = 0.0
    """Share of region and text features left out, the same at all positions of an item."""

    def __post_init__(self) -> None:
        if self.width % self.heads or self.embedding % self.heads:
            raise ValueError(f"--width {self.width} --embedding {self.embedding}: must be multiples of --heads {self.heads}")
        if "encoder" in (self.image_aggregation, self.text_aggregation) and not self.shared_layers:
            raise ValueError("aggregation encoder: goes past the shared layers, and there are none; use mean")


PRESETS: dict[Variant, TernShape] = {
    "paper": TernShape(),
    "flickr": TernShape("flickr", "add", width=768, shared_layers=0, image_aggregation="mean", text_aggregation="mean"),
}


class Tern(nn.Module):
    """TERN over a text tower, or with `text=None` over text features computed before."""

    def __init__(self, shape: TernShape, region_width: int, text_width: int, text: TextTower | None) -> None:
        super().__init__()
        self.shape, self.region_width, self.text_width = shape, region_width, text_width
        self.score_meaning = "cosine" if shape.measure == "cosine" else "minus the order violation"
        paper, wide = shape.variant == "paper", shape.embedding
        self.regions = RegionEmbedding(region_width, shape.width, shape.boxes, learned_first=not paper, project=not paper)
        self.image_encoder = _encoder(shape, shape.vision_layers, shape.width)
        self.text_encoder = _encoder(shape, shape.text_layers, text_width)
        self.image_projection, self.text_projection = (_projection(width, wide, paper) for width in (shape.width, text_width))
        self.shared = _encoder(shape, shape.shared_layers, wide)
        self.shared_text = _encoder(shape, shape.shared_layers, wide) if shape.separate else None
        if shape.shared_layers:  # for aggregation "encoder"; the published weights have them without reading them
            self.image_pooled, self.text_pooled = nn.Linear(shape.width, wide), nn.Linear(text_width, wide)
        self.image_aggregator = Aggregator(shape.image_aggregation, wide)
        self.text_aggregator = Aggregator(shape.text_aggregation, wide)
        self.apply(_start if paper else _start_xavier)
        self.text = text  # last: its weights are not to be made anew

    def encode_images(self, batch: Batch) -> States:
        """`features` (I, R, region width), `boxes` (I, R, 4), `region_mask` (I, R) -> vectors (I, embedding)."""
        x, mask = self.regions(self._thinned(batch["features"]), batch["boxes"], batch["region_mask"])
        x = self.image_encoder(x, mask)
        if self.shape.image_aggregation == "encoder":
            return (self._vector(self.image_pooled(self.image_aggregator(x, mask))),)
        return (self._vector(self.image_aggregator(self.shared(self.image_projection(x), mask), mask)),)

    def encode_texts(self, batch: Batch) -> States:
        """`attention_mask` (T, L) with `input_ids` (T, L) or `states` (T, L, text width) -> vectors (T, embedding)."""
        mask = batch["attention_mask"].bool()
        states = batch["states"] if "states" in batch else self._live(batch)
        x = self.text_encoder(self._thinned(states), mask)
        if self.shape.text_aggregation == "encoder":
            return (self._vector(self.text_pooled(self.text_aggregator(x, mask))),)
        shared = self.shared if self.shared_text is None else self.shared_text
        return (self._vector(self.text_aggregator(shared(self.text_projection(x), mask), mask)),)

    def score(self, images: States, texts: States) -> Tensor:
        """(I, T) scores."""
        (image_IE,), (text_TE,) = images, texts
        with torch.autocast(image_IE.device.type, enabled=False):
            if self.shape.measure == "cosine":
                return image_IE @ text_TE.T
            rows = max(1, AT_ONCE // text_TE.numel())
            return torch.cat([_order_score(part, text_TE) for part in image_IE.split(rows)])

    def _live(self, batch: Batch) -> Tensor:
        if self.text is None:
            raise ValueError("this TERN reads text features that were computed before: give it a batch with states")
        states: Tensor = self.text(batch).states
        return states

    def _thinned(self, x_NSW: Tensor) -> Tensor:
        """Input dropout. One mask for all positions: left out here and there, a feature would still be seen in the mean."""
        if not (self.training and self.shape.input_dropout):
            return x_NSW
        return x_NSW * F.dropout(torch.ones_like(x_NSW[:, :1]), self.shape.input_dropout)

    def _vector(self, x: Tensor) -> Tensor:
        unit = F.normalize(x.float(), dim=-1)
        return unit if self.shape.measure == "cosine" else unit.abs()


def _order_score(image_IE: Tensor, text_TE: Tensor) -> Tensor:
    """-||max(0, text - image)|| (Vendrov et al. 2016): 0 where the image has all that the text has."""
    return -torch.linalg.vector_norm((text_TE - image_IE[:, None]).clamp(min=0), dim=-1)


def _encoder(shape: TernShape, layers: int, width: int) -> Encoder:
    order: Literal["post", "pre"] = "post" if shape.variant == "paper" else "pre"
    return Encoder(layers, width, shape.heads, shape.feed_forward, shape.dropout, order, shape.relative)


def _projection(width: int, out: int, linear: bool) -> nn.Module:
    return nn.Linear(width, out) if linear else nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, out))


def _start(module: nn.Module) -> None:
    """Initial weights of attention as in torch's own transformer layers; the rest has torch's defaults."""
    if isinstance(module, SelfAttention):
        nn.init.xavier_uniform_(module.project.weight)
        nn.init.zeros_(module.project.bias)
        nn.init.zeros_(module.out.bias)


def _start_xavier(module: nn.Module) -> None:
    """All matrices, and each of an attention's three by itself."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
    if isinstance(module, SelfAttention):
        for part in module.project.weight.data.chunk(3):
            nn.init.xavier_uniform_(part)


@dataclass(frozen=True)
class TernInputs:
    """Regions, and tokens or text features, for TERN."""

    regions: RegionStore
    read_texts: Callable[[Sequence[str]], Batch]
    """A tower's `tokens`, or a `TextFeatures`."""

    def images(self, image_ids: Sequence[str]) -> Batch:
        """`features` (I, R, D) float32, `boxes` (I, R, 4), `region_mask` (I, R): True for regions that an image has."""
        features, boxes, counts = self.regions.read_padded(image_ids)
        mask = torch.arange(features.shape[1]) < torch.from_numpy(counts)[:, None]
        return {"features": torch.from_numpy(features).float(), "boxes": torch.from_numpy(boxes), "region_mask": mask}

    def texts(self, texts: Sequence[str]) -> Batch:
        """`attention_mask` (T, L) with `input_ids` (T, L) or `states` (T, L, text width)."""
        return self.read_texts(texts)


def from_scratch(shape: TernShape, regions: RegionStore, text: TextTower | TextFeatures) -> tuple[Tern, TernInputs]:
    """A new TERN over a text tower, whose last hidden states it reads, or over text features."""
    if isinstance(text, TextFeatures):
        return Tern(shape, regions.width, text.width, None), TernInputs(regions, text)
    width = text.config.hidden_size * len(text.layers)
    return Tern(shape, regions.width, width, text), TernInputs(regions, text.tokens)


def load(checkpoint: str, regions: RegionStore, features: TextFeatures | None = None) -> tuple[Tern, TernInputs]:
    """A TERN that `save` wrote. `features` for one that was trained on text features; a live tower reads any text."""
    folder = Path(checkpoint)
    shape, told = _read_shape(folder)
    if told["region_width"] != regions.width:
        raise ValueError(
            f"{regions.path}: features are {regions.width} wide, {checkpoint} reads {told['region_width']}; "
            "use the regions it was trained on"
        )
    tower = read_text_tower(folder) if told["live"] else None
    if tower is None and features is None:
        raise ValueError(
            f"{checkpoint}: was trained on text features ({told['features']}); give --text-features that hold the split's texts"
        )
    if tower is None and features is not None and features.made_by != told["features"]:
        raise ValueError(f"{features.folder}: made by {features.made_by}; {checkpoint} reads those of {told['features']}")
    model = Tern(shape, regions.width, told["text_width"], tower)
    load_named(model, read_tensors(folder / "model.safetensors"), str(folder))
    read = tower.tokens if tower is not None else features
    assert read is not None
    return model, TernInputs(regions, read)


def _read_shape(folder: Path) -> tuple[TernShape, dict[str, Any]]:
    """The shape, and region_width, text_width, live and features."""
    with one_error(str(folder), "TERN"):
        try:
            told = json.loads((folder / FILE).read_text())
            return TernShape(**told["shape"]), {key: told[key] for key in ("region_width", "text_width", "live", "features")}
        except (KeyError, TypeError) as error:
            raise ValueError(f"{FILE} is damaged or of another version: {error}") from None


def save(model: Tern, inputs: TernInputs, folder: Path) -> None:
    """Weights (safetensors), shape, and what the text tower needs, as `load` reads them."""
    features = inputs.read_texts.made_by if isinstance(inputs.read_texts, TextFeatures) else ""
    told: dict[str, Any] = {"region_width": model.region_width, "text_width": model.text_width, "live": model.text is not None}
    told |= {"features": features, "shape": asdict(model.shape)}
    (folder / FILE).write_text(json.dumps(told, indent=1))
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, folder / "model.safetensors")
    if model.text is not None:
        model.text.save(folder)
