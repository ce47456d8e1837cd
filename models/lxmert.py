"""LXMERT (Tan & Bansal 2019) as a retrieval model: language and vision layers once an item, cross layers once a pair.

The language and the vision layers never see each other, so their outputs are the states of a caption and of an image.
`score` runs only the cross layers, and less of those than a full forward: the first cross-attention's projections are
computed once an item, and of the last layer only the first token's language output, which is all the pooler reads.
The scores equal those of a full forward a pair (tests/models/test_lxmert.py).

Tensor suffixes: P pairs, I images, T texts, L tokens, R regions, D width, H heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, BertModel, LxmertConfig, LxmertModel, PreTrainedTokenizerBase
from transformers.models.lxmert.modeling_lxmert import (
    LxmertAttention,
    LxmertLayer,
    LxmertPreTrainedModel,
    LxmertSelfAttentionLayer,
    LxmertXLayer,
)

from corpora.regions import RegionStore
from models.protocols import Batch, States

Head = Literal["binary", "match"]
HUB_NAME = "unc-nlp/lxmert-base-uncased"


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
        last = self.lxmert.encoder.x_layers[-1]
        for unread in (last.visn_self_att, last.visn_inter, last.visn_output):
            unread.requires_grad_(False)  # the pooler never reads the last vision output, so no gradient reaches these

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
        count_I, count_T = len(images[0]), len(texts[0])
        image_P = torch.arange(count_I, device=images[0].device).repeat_interleave(count_T)
        text_P = torch.arange(count_T, device=images[0].device).repeat(count_I)
        return self.score_pairs(images, texts, image_P, text_P).view(count_I, count_T)

    def score_pairs(self, images: States, texts: States, image_P: Tensor, text_P: Tensor) -> Tensor:
        """(P,) matching logits of the pairs (image_P[p], text_P[p])."""
        (vision_IRD,), (language_TLD, mask_TL) = images, texts
        layers = self.lxmert.encoder.x_layers
        # The first cross-attention projects items, not pairs: once each, then dealt out to the pairs.
        first = layers[0].visual_attention.att
        ready: _Projected | None = _Projected(
            *(part[image_P] for part in _project(first, vision_IRD)), *(part[text_P] for part in _project(first, language_TLD))
        )
        vision, language, mask = vision_IRD[image_P], language_TLD[text_P], mask_TL[text_P]
        for layer in layers[:-1]:
            vision, language = _cross_layer(layer, vision, language, mask, ready)
            ready = None
        pooled = self.lxmert.pooler(_last_cross_layer(layers[-1], vision, language, mask, ready))
        return self.cls(pooled).squeeze(1).float()


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
        """`input_ids` and `attention_mask` (T, L), padded to the longest of the batch."""
        encoded = self.tokenizer(list(texts), padding=True, truncation=True, max_length=self._max_length, return_tensors="pt")
        return {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}


@dataclass(frozen=True)
class LxmertShape:
    """A configuration from scratch. With a language checkpoint its width, heads and feed-forward width are taken from there."""

    width: int = 768
    heads: int = 12
    language_layers: int = 9
    vision_layers: int = 5
    cross_layers: int = 5
    dropout: float = 0.1


def load(checkpoint: str, regions: RegionStore, head: Head = "binary") -> tuple[Lxmert, LxmertInputs]:
    """LXMERT from a hub name or a folder. Missing backbone weights are an error; a fresh head is said so on the terminal.

    A folder that `save` wrote keeps its own head; `head` counts for a checkpoint that says nothing of it.
    """
    config = AutoConfig.from_pretrained(checkpoint)
    if config.model_type != "lxmert":
        raise ValueError(f"{checkpoint}: a {config.model_type} checkpoint; lxmert is needed (for BERT weights use --language)")
    if not hasattr(config, "head"):
        config.head = head
    _check_feature_width(config, regions)
    model, report = Lxmert.from_pretrained(checkpoint, config=config, output_loading_info=True)
    absent = sorted(report["missing_keys"])
    if backbone := [key for key in absent if not key.startswith("cls.")]:
        raise ValueError(f"{checkpoint}: {len(backbone)} weights of the backbone are missing, the first: {backbone[0]}")
    if absent:
        print(f"{checkpoint}: has no {config.head} head, a fresh one is used: train it before you trust a score")
    return model, _inputs(AutoTokenizer.from_pretrained(checkpoint), regions, config)


def from_scratch(
    shape: LxmertShape, regions: RegionStore, tokenizer: PreTrainedTokenizerBase | None, language: str = "", head: Head = "binary"
) -> tuple[Lxmert, LxmertInputs]:
    """A new LXMERT of this shape; with `language` (hub name or folder of a BERT checkpoint) its language layers start from there."""
    sizes: dict[str, Any] = {"hidden_size": shape.width, "num_attention_heads": shape.heads, "intermediate_size": 4 * shape.width}
    sizes |= {"l_layers": shape.language_layers}
    bert = _bert(language) if language else None
    if bert is not None:
        tokenizer = AutoTokenizer.from_pretrained(language)
        names = (
            "hidden_size",
            "num_attention_heads",
            "intermediate_size",
            "hidden_act",
            "max_position_embeddings",
            "type_vocab_size",
        )
        sizes |= {name: getattr(bert.config, name) for name in names} | {"l_layers": bert.config.num_hidden_layers}
    if tokenizer is None:
        raise ValueError("a configuration from scratch needs a tokenizer or a language checkpoint")
    config = LxmertConfig(
        vocab_size=len(tokenizer) if bert is None else bert.config.vocab_size,
        x_layers=shape.cross_layers,
        r_layers=shape.vision_layers,
        visual_feat_dim=regions.width,
        hidden_dropout_prob=shape.dropout,
        attention_probs_dropout_prob=shape.dropout,
        head=head,
        **sizes,
    )
    model = Lxmert(config)
    if bert is not None:
        model.lxmert.embeddings.load_state_dict(bert.embeddings.state_dict(), strict=False)
        model.lxmert.encoder.layer.load_state_dict(bert.encoder.layer.state_dict())
    return model, _inputs(tokenizer, regions, config)


def freeze_language(model: Lxmert) -> None:
    """Stop the embeddings and language layers from learning. Their states are then the same at every step: compute them once."""
    model.lxmert.embeddings.requires_grad_(False)
    model.lxmert.encoder.layer.requires_grad_(False)


def save(model: Lxmert, inputs: LxmertInputs, folder: Path) -> None:
    """Weights (safetensors), configuration and tokenizer, as `load` reads them."""
    model.save_pretrained(folder)
    inputs.tokenizer.save_pretrained(folder)


def _bert(language: str) -> BertModel:
    bert = AutoModel.from_pretrained(language)
    if bert.config.model_type != "bert":
        raise ValueError(
            f"{language}: a {bert.config.model_type} checkpoint; LXMERT's language layers are BERT's (bert, MiniLM, ...)"
        )
    return bert


def _inputs(tokenizer: PreTrainedTokenizerBase, regions: RegionStore, config: LxmertConfig) -> LxmertInputs:
    return LxmertInputs(tokenizer, regions, config.max_position_embeddings)


def _check_feature_width(config: LxmertConfig, regions: RegionStore) -> None:
    if config.visual_feat_dim != regions.width:
        raise ValueError(
            f"{regions.path}: features are {regions.width} wide, this model reads {config.visual_feat_dim}; use the regions it was trained on"
        )
