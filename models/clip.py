"""CLIP (Radford et al. 2021): two encoders, score = logit scale x cosine.

Pixels come from the corpus as uint8 pictures. The original stored floats of 0..255, which the image processor scaled
once more: its published CLIP figures were produced on photographic negatives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerBase
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from corpora.images import ImageStore
from models.pretrained import one_error, read_config, read_model, read_tokenizer
from models.protocols import Batch, States
from models.tokenizer import tokenize

CONTEXT = 77
"""Longest text in tokens, of the published models and of new ones."""


class Clip(CLIPModel):
    """A CLIP checkpoint that keeps the retrieval contract."""

    score_meaning = "logit scale x cosine"

    def encode_images(self, batch: Batch) -> States:
        """`pixel_values` (I, 3, H, W) -> unit vectors (I, projection)."""
        features = self.get_image_features(pixel_values=batch["pixel_values"])
        return (F.normalize(features.pooler_output.float(), dim=-1),)

    def encode_texts(self, batch: Batch) -> States:
        """`input_ids`, `attention_mask` (T, L) -> unit vectors (T, projection)."""
        features = self.get_text_features(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        return (F.normalize(features.pooler_output.float(), dim=-1),)

    def score(self, images: States, texts: States) -> Tensor:
        """(I, T) logits."""
        with torch.autocast(images[0].device.type, enabled=False):  # a bf16 logit has 8 bits: of thousands, many would tie
            return self.logit_scale.exp() * images[0] @ texts[0].T


class ClipInputs:
    """Pixels and tokens for CLIP."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, processor: CLIPImageProcessorPil, store: ImageStore, max_length: int
    ) -> None:
        self.tokenizer, self.processor, self._store, self._max_length = tokenizer, processor, store, max_length

    def images(self, image_ids: Sequence[str]) -> Batch:
        """`pixel_values` (I, 3, H, W): short side resized, centre crop, CLIP's mean and deviation."""
        pictures = [self._store.picture(image_id) for image_id in image_ids]
        return {"pixel_values": self.processor(pictures, return_tensors="pt")["pixel_values"]}

    def texts(self, texts: Sequence[str]) -> Batch:
        """`input_ids` and `attention_mask` (T, L)."""
        return tokenize(self.tokenizer, texts, self._max_length)


@dataclass(frozen=True)
class ClipShape:
    """A small CLIP from scratch; both towers have the same width and depth."""

    image_size: int = 96
    patch: int = 12
    width: int = 128
    layers: int = 3
    heads: int = 4
    projection: int = 128

    def __post_init__(self) -> None:
        if self.width % self.heads or self.image_size % self.patch:
            raise ValueError(
                f"--width {self.width} --heads {self.heads} --image-size {self.image_size} --patch {self.patch}: "
                "the heads must divide the width, and patches the image"
            )


def load(checkpoint: str, store: ImageStore) -> tuple[Clip, ClipInputs]:
    """Any CLIP checkpoint by hub name or folder. Missing weights are an error: nothing is silently random."""
    config = read_config(checkpoint, "clip")
    model, _ = read_model(Clip, checkpoint, config)
    with one_error(checkpoint, "image processor"):
        processor = CLIPImageProcessorPil.from_pretrained(checkpoint)
    tokenizer = read_tokenizer(checkpoint, config.text_config.vocab_size)
    return model, ClipInputs(tokenizer, processor, store, config.text_config.max_position_embeddings)


def from_scratch(shape: ClipShape, store: ImageStore, tokenizer: PreTrainedTokenizerBase) -> tuple[Clip, ClipInputs]:
    """A new CLIP of this shape over a tokenizer whose end-of-text token CLIP reads the sentence from."""
    tower = {"hidden_size": shape.width, "intermediate_size": 4 * shape.width, "num_hidden_layers": shape.layers}
    tower |= {"num_attention_heads": shape.heads}
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": CONTEXT, "eos_token_id": tokenizer.eos_token_id}
    text |= {"bos_token_id": tokenizer.bos_token_id, "pad_token_id": tokenizer.pad_token_id}
    vision = {"image_size": shape.image_size, "patch_size": shape.patch}
    config = CLIPConfig(text_config=tower | text, vision_config=tower | vision, projection_dim=shape.projection)
    side = shape.image_size
    processor = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    return Clip(config), ClipInputs(tokenizer, processor, store, CONTEXT)


def save(model: Clip, inputs: ClipInputs, folder: Path) -> None:
    """Weights (safetensors), configuration, tokenizer and image processor, as `load` reads them."""
    model.save_pretrained(folder)
    inputs.tokenizer.save_pretrained(folder)
    inputs.processor.save_pretrained(folder)
