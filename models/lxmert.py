"""LXMERT (Tan & Bansal 2019) as a retrieval model: language and vision layers once an item, cross layers once a pair.

The language and the vision layers never see each other, so their outputs are the states of a caption and of an image.
`score` runs only the cross layers, and less of those than a full forward: the first cross-attention projects items, not
pairs; of the last layer only the first token's language output is computed, which is all the pooler reads; and texts of
like length are scored together. The scores equal those of a full forward a pair (tests/models/test_lxmert.py).

Tensor suffixes: P pairs, I images, T texts, L tokens, R regions, D width, H heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertModel, LxmertConfig, LxmertModel, PreTrainedTokenizerBase
from transformers.models.lxmert.modeling_lxmert import (
    LxmertAttention,
    LxmertLayer,
    LxmertPreTrainedModel,
    LxmertSelfAttentionLayer,
    LxmertXLayer,
)

from corpora.regions import RegionStore
from models.pretrained import read_config, read_model, read_tokenizer
from models.protocols import Batch, States
from models.tokenizer import tokenize
from training.processes import is_main

Head = Literal["binary", "match"]
LENGTHS_TOGETHER = 2
"""`score` pads texts of so many lengths to the longest of them: 1 pads nothing, more make larger groups, which a GPU likes."""

BERT_SIZES = (
    *("vocab_size", "type_vocab_size", "max_position_embeddings", "hidden_size"),
    *("num_attention_heads", "intermediate_size", "hidden_act"),
)
"""What an LXMERT over a BERT checkpoint takes from its configuration, beside the number of layers."""


class BinaryHead(nn.Sequential):
    """One logit: Linear D -> 2D, GELU, LayerNorm, Linear 2D -> 1 (lxmert_clip_tiir; the shape of LXMERT's answer head)."""

    def __init__(self, width: int) -> None:
        super().__init__(nn.Linear(width, 2 * width), nn.GELU(), nn.LayerNorm(2 * width, eps=1e-12), nn.Linear(2 * width, 1))


class MatchHead(nn.Module):
    """The pretraining match head as one logit: "matches" minus "does not match". Loads `cls.seq_relationship` of LXMERT's weights."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.seq_relationship = nn.Linear(width, 2)

    def forward(self, pooled_PD: Tensor) -> Tensor:
        logits = self.seq_relationship(pooled_PD)
        return logits[:, 1:] - logits[:, :1]


class Lxmert(LxmertPreTrainedModel):
    """An LXMERT backbone with a head that gives a pair one matching logit."""

    score_meaning = "match logit"

    def __init__(self, config: LxmertConfig) -> None:
        super().__init__(config)
        self.lxmert = LxmertModel(config)
        self.cls = MatchHead(config.hidden_size) if config.head == "match" else BinaryHead(config.hidden_size)
        self.post_init()

    def encode_images(self, batch: Batch) -> States:
        """`features` (I, R, feature width), `boxes` (I, R, 4) in [0, 1] -> vision layers' output (I, R, D)."""
        vision = self.lxmert.encoder.visn_fc(batch["features"], batch["boxes"])
        for layer in self.lxmert.encoder.r_layers:
            vision = _layer(layer, vision)
        return (vision,)

    def encode_texts(self, batch: Batch) -> States:
        """`input_ids` (T, L), `attention_mask` (T, L) -> language layers' output (T, L, D) and the mask as bool."""
        mask = batch["attention_mask"].bool()
        language = self.lxmert.embeddings(batch["input_ids"], torch.zeros_like(batch["input_ids"]))
        for layer in self.lxmert.encoder.layer:
            language = _layer(layer, language, mask)
        return language, mask

    def score(self, images: States, texts: States) -> Tensor:
        """(I, T) matching logits of every image against every text."""
        language_TLD, mask_TL = texts
        lengths = mask_TL.sum(1).tolist()
        by_length = sorted(range(len(lengths)), key=lengths.__getitem__)
        scores_IT = torch.empty(len(images[0]), len(lengths), device=language_TLD.device)
        for _, group in groupby(by_length, key=lambda text: lengths[text] // LENGTHS_TOGETHER):
            alike = list(group)
            longest = lengths[alike[-1]]
            scores_IT[:, alike] = self._score_all(images, (language_TLD[alike, :longest], mask_TL[alike, :longest]))
        return scores_IT

    def _score_all(self, images: States, texts: States) -> Tensor:
        count_I, count_T = len(images[0]), len(texts[0])
        image_P = torch.arange(count_I, device=images[0].device).repeat_interleave(count_T)
        text_P = torch.arange(count_T, device=images[0].device).repeat(count_I)
        return self.score_pairs(images, texts, image_P, text_P).view(count_I, count_T)

    def score_pairs(self, images: States, texts: States, image_P: Tensor, text_P: Tensor) -> Tensor:
        """(P,) matching logits of the pairs (image_P[p], text_P[p])."""
        (vision_IRD,), (language_TLD, mask_TL) = images, texts
        layers = self.lxmert.encoder.x_layers
        # The first cross-attention projects items, which are then dealt out to the pairs. By index_select: the gradient of
        # x[index] is summed by several threads in any order, and two runs of the same training would differ.
        first = layers[0].visual_attention.att
        ready: _Projected | None = _Projected(
            *(part.index_select(0, image_P) for part in _project(first, vision_IRD)),
            *(part.index_select(0, text_P) for part in _project(first, language_TLD)),
        )
        vision, language, mask = vision_IRD.index_select(0, image_P), language_TLD.index_select(0, text_P), mask_TL[text_P]
        for layer in layers[:-1]:
            vision, language = _cross_layer(layer, vision, language, mask, ready)
            ready = None
        last = _last_cross_layer(layers[-1], vision, language, mask, ready)
        with torch.autocast(last.device.type, enabled=False):  # a bf16 logit has 8 bits: of thousands, many would tie
            return self.cls(self.lxmert.pooler(last.float())).squeeze(1)


class _Projected(NamedTuple):
    """Queries, keys and values of the vision and the language side of a cross-attention, (P, H, length, D / H)."""

    vision_query: Tensor
    vision_key: Tensor
    vision_value: Tensor
    language_query: Tensor
    language_key: Tensor
    language_value: Tensor


def _cross_layer(
    layer: LxmertXLayer, vision: Tensor, language: Tensor, mask: Tensor, ready: _Projected | None
) -> tuple[Tensor, Tensor]:
    """One LxmertXLayer: cross-attention both ways with shared weights, then self-attention and feed-forward of each side."""
    cross = layer.visual_attention
    p = ready or _Projected(*_project(cross.att, vision), *_project(cross.att, language))
    language_crossed = cross.output(_mix(cross.att, p.language_query, p.vision_key, p.vision_value), language)
    vision_crossed = cross.output(_mix(cross.att, p.vision_query, p.language_key, p.language_value, mask), vision)
    language = _self_attend(layer.lang_self_att, language_crossed, language_crossed, mask)
    vision = _self_attend(layer.visn_self_att, vision_crossed, vision_crossed)
    return layer.visn_output(layer.visn_inter(vision), vision), layer.lang_output(layer.lang_inter(language), language)


def _last_cross_layer(layer: LxmertXLayer, vision: Tensor, language: Tensor, mask: Tensor, ready: _Projected | None) -> Tensor:
    """The first token's language output (P, 1, D) of an LxmertXLayer; the vision side is not needed any more."""
    cross = layer.visual_attention
    if ready is None:
        att = cross.att
        query, key, value = (_heads(att, part) for part in (att.query(language), att.key(vision), att.value(vision)))
    else:
        query, key, value = ready.language_query, ready.vision_key, ready.vision_value
    crossed = cross.output(_mix(cross.att, query, key, value), language)
    first = _self_attend(layer.lang_self_att, crossed[:, :1], crossed, mask)
    return layer.lang_output(layer.lang_inter(first), first)


def _layer(layer: LxmertLayer, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """One LxmertLayer: self-attention and feed-forward."""
    x = _self_attend(layer.attention, x, x, mask)
    return layer.output(layer.intermediate(x), x)


def _self_attend(block: LxmertSelfAttentionLayer, queries: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
    """An LxmertSelfAttentionLayer for some of its positions: attention over `context`, output projection, residual, LayerNorm."""
    att = block.self
    query, key, value = (_heads(att, part) for part in (att.query(queries), att.key(context), att.value(context)))
    return block.output(_mix(att, query, key, value, mask), queries)


def _project(att: LxmertAttention, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value heads of x, (B, H, length, D / H) each."""
    return _heads(att, att.query(x)), _heads(att, att.key(x)), _heads(att, att.value(x))


def _heads(att: LxmertAttention, x: Tensor) -> Tensor:
    return x.unflatten(-1, (att.num_attention_heads, -1)).transpose(1, 2)


def _mix(att: LxmertAttention, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention with the layer's dropout; `mask` (P, keys) is True where a key is a real token."""
    where = None if mask is None else mask[:, None, None, :]
    dropout = att.dropout.p if att.training else 0.0
    return F.scaled_dot_product_attention(query, key, value, attn_mask=where, dropout_p=dropout).transpose(1, 2).flatten(2)


class LxmertInputs:
    """Region features and tokens for LXMERT; no maximum length but the position table's."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, regions: RegionStore, max_length: int) -> None:
        self.tokenizer, self._regions, self._max_length = tokenizer, regions, max_length

    def images(self, image_ids: Sequence[str]) -> Batch:
        """`features` (I, R, feature width) float32 and `boxes` (I, R, 4)."""
        features, boxes = self._regions.read(image_ids)
        return {"features": torch.from_numpy(features).float(), "boxes": torch.from_numpy(boxes)}

    def texts(self, texts: Sequence[str]) -> Batch:
        """`input_ids` and `attention_mask` (T, L)."""
        return tokenize(self.tokenizer, texts, self._max_length)


@dataclass(frozen=True)
class LxmertShape:
    """A configuration from scratch. A language checkpoint brings its own width, heads and number of language layers."""

    width: int = 768
    heads: int = 12
    language_layers: int = 9
    vision_layers: int = 5
    cross_layers: int = 5
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.cross_layers < 1 or self.width % self.heads:
            raise ValueError(
                f"--cross-layers {self.cross_layers} --width {self.width} --heads {self.heads}: "
                "at least one cross layer is needed, and a width that the heads divide"
            )


def load(checkpoint: str, regions: RegionStore, head: Head = "binary", trained: bool = False) -> tuple[Lxmert, LxmertInputs]:
    """LXMERT from a hub name or a folder. Missing backbone weights are an error; a fresh head is said so on the terminal.

    A folder that `save` wrote keeps its own head; `head` counts for a checkpoint that says nothing of it. With `trained`
    a checkpoint without that head is an error too: its scores would be random.
    """
    config = read_config(checkpoint, "lxmert")
    if not hasattr(config, "head"):
        config.head = head
    if config.visual_feat_dim != regions.width:
        raise ValueError(
            f"{regions.path}: features are {regions.width} wide, {checkpoint} reads {config.visual_feat_dim}; "
            "use the regions it was trained on"
        )
    model, absent = read_model(Lxmert, checkpoint, config, optional="cls.")
    if absent and trained:
        raise ValueError(
            f"{checkpoint}: has no {config.head} head, its scores would be random; fine-tune it first, or choose another --head"
        )
    if absent and is_main():
        print(f"{checkpoint}: has no {config.head} head, a fresh one is used: train it before you trust a score")
    tokenizer = read_tokenizer(checkpoint, config.vocab_size)
    return model, LxmertInputs(tokenizer, regions, config.max_position_embeddings)


def from_scratch(
    shape: LxmertShape, regions: RegionStore, tokenizer: PreTrainedTokenizerBase | None, language: str = "", head: Head = "binary"
) -> tuple[Lxmert, LxmertInputs]:
    """A new LXMERT of this shape over `tokenizer`, or over `language`, the hub name or folder of a BERT checkpoint.

    The embeddings and language layers are then BERT's, and so are the tokenizer and their sizes.
    """
    if language:
        return _from_language(shape, regions, language, head)
    if tokenizer is None:
        raise ValueError("a configuration from scratch needs a tokenizer or a language checkpoint")
    sizes = {"vocab_size": len(tokenizer), "hidden_size": shape.width, "num_attention_heads": shape.heads}
    sizes |= {"intermediate_size": 4 * shape.width, "l_layers": shape.language_layers}
    config = _config(shape, regions, head, sizes)
    return Lxmert(config), LxmertInputs(tokenizer, regions, config.max_position_embeddings)


def _from_language(shape: LxmertShape, regions: RegionStore, language: str, head: Head) -> tuple[Lxmert, LxmertInputs]:
    bert, _ = read_model(BertModel, language, read_config(language, "bert"), optional="pooler.")
    sizes = {name: getattr(bert.config, name) for name in BERT_SIZES} | {"l_layers": bert.config.num_hidden_layers}
    config = _config(shape, regions, head, sizes)
    model = Lxmert(config)
    model.lxmert.embeddings.load_state_dict(bert.embeddings.state_dict())
    model.lxmert.encoder.layer.load_state_dict(bert.encoder.layer.state_dict())
    return model, LxmertInputs(read_tokenizer(language, config.vocab_size), regions, config.max_position_embeddings)


def _config(shape: LxmertShape, regions: RegionStore, head: Head, sizes: dict[str, Any]) -> LxmertConfig:
    return LxmertConfig(
        x_layers=shape.cross_layers,
        r_layers=shape.vision_layers,
        visual_feat_dim=regions.width,
        hidden_dropout_prob=shape.dropout,
        attention_probs_dropout_prob=shape.dropout,
        head=head,
        **sizes,
    )


def freeze_language(model: Lxmert) -> None:
    """Stop the embeddings and language layers from learning. Their states are then the same at every step: compute them once."""
    model.lxmert.embeddings.requires_grad_(False)
    model.lxmert.encoder.layer.requires_grad_(False)


def freeze_unread(model: Lxmert) -> None:
    """Freeze the last layer's vision side: the pooler never reads it, and DistributedDataParallel waits for every gradient."""
    last = model.lxmert.encoder.x_layers[-1]
    for unread in (last.visn_self_att, last.visn_inter, last.visn_output):
        unread.requires_grad_(False)


def save(model: Lxmert, inputs: LxmertInputs, folder: Path) -> None:
    """Weights (safetensors), configuration and tokenizer, as `load` reads them."""
    model.save_pretrained(folder)
    inputs.tokenizer.save_pretrained(folder)
