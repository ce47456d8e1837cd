"""Language models that turn texts into vectors, the text side of the dual encoders.

    tower = load_text_tower("bert-base-uncased", layers=(-4, -3, -2, -1))
    pooled, states, mask = tower(tower.tokens(["two dogs run"]))

Reads the BERT family, left-to-right models, and the encoder of encoder-decoders.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast, get_args

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, BertConfig, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from models.pretrained import check_folder, one_error, read_model, read_tokenizer
from models.protocols import Batch
from models.tokenizer import learn_tokenizer, tokenize

Pool = Literal["first", "last", "mean", "pooler"]
SCRATCH, FOLDER, FILE = "scratch", "text_tower", "tower.json"


@dataclass(frozen=True)
class Tokens:
    """Texts to tokens; pickles, for loader workers."""

    tokenizer: PreTrainedTokenizerBase
    max_length: int

    def __call__(self, texts: Sequence[str]) -> Batch:
        """`input_ids` and `attention_mask` (T, L)."""
        return tokenize(self.tokenizer, texts, self.max_length)


class TextStates(NamedTuple):
    """What a tower makes of T texts."""

    pooled: Tensor
    """(T, W)."""
    states: Tensor
    """(T, L, W) of every token."""
    mask: Tensor
    """(T, L) bool, True for real tokens."""


class TextTower(nn.Module):
    """A language model whose hidden states of some layers are concatenated, and pooled over the real tokens.

    `layers` as in transformers' hidden_states: 0 are the embeddings, -1 the last layer. Frozen: in evaluation mode for ever
    and without gradients.
    """

    def __init__(
        self, model: nn.Module, config: PreTrainedConfig, tokens: Tokens, layers: tuple[int, ...], pool: Pool, frozen: bool
    ) -> None:
        super().__init__()
        self.model, self.config, self.tokens = model, config, tokens
        self.layers, self.pool, self.frozen = layers, pool, frozen
        self.width: int = config.hidden_size * (1 if pool == "pooler" else len(layers))
        self.requires_grad_(not frozen).eval()
        self._check()

    def forward(self, batch: Batch) -> TextStates:
        """`input_ids` and `attention_mask` (T, L). Other entries of the batch are left alone."""
        mask = batch["attention_mask"].bool()
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            deep = self.layers != (-1,)
            seen = self.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], output_hidden_states=deep)
            layers = [seen.hidden_states[layer] for layer in self.layers] if deep else [seen.last_hidden_state]
            states = torch.cat(layers, dim=-1)
            pooled = seen.pooler_output if self.pool == "pooler" else pool_tokens(states, mask, self.pool)
        return TextStates(pooled, states, mask)

    def train(self, mode: bool = True) -> TextTower:
        """As of any module, but a frozen tower stays in evaluation mode: no dropout."""
        super().train(mode and not self.frozen)
        return self

    def save(self, folder: Path) -> None:
        """What `read_text_tower` needs beside the weights, which are those of the model that this tower is part of."""
        place = folder / FOLDER
        self.config.save_pretrained(place)
        self.tokens.tokenizer.save_pretrained(place)
        told = {"layers": self.layers, "pool": self.pool, "max_length": self.tokens.max_length}
        (place / FILE).write_text(json.dumps(told))

    def _check(self) -> None:
        """A first pass: the options fit the model, and weights that nothing reads (a pooler, say) are frozen, as
        DistributedDataParallel waits for every gradient."""
        depth = self.config.num_hidden_layers
        if not self.layers or not all(-depth - 1 <= layer <= depth for layer in self.layers):
            raise ValueError(f"layers {self.layers}: the text tower has {depth} layers; name some from {-depth} to {depth}")
        with torch.enable_grad():
            try:
                pooled, states, _ = self(self.tokens(["a"]))
            except AttributeError:
                pooled = states = None
            if pooled is None:
                raise ValueError(f"pool pooler: a {self.config.model_type} model has none; use first, last or mean")
            if not self.frozen:
                (pooled.sum() + states.sum()).backward()
        for parameter in self.parameters():
            parameter.requires_grad_(parameter.grad is not None)
            parameter.grad = None


def pool_tokens(states: Tensor, mask: Tensor, pool: Pool) -> Tensor:
    """(T, L, W) states, (T, L) mask with the padding on the right -> (T, W): of the first, the last, or the mean real token."""
    if pool == "first":
        return states[:, 0]
    if pool == "last":
        last = mask.sum(1) - 1
        return states.gather(1, last[:, None, None].expand(-1, 1, states.shape[2])).squeeze(1)
    weights = mask[..., None].to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1)


def load_text_tower(
    name: str,
    layers: tuple[int, ...] = (-1,),
    pool: Pool | None = None,
    frozen: bool = True,
    max_length: int = 0,
    depth: int = 0,
    texts: Sequence[str] = (),
) -> TextTower:
    """A pretrained language model by hub name or folder; `depth` keeps its first so many layers, 0 = all.

    `scratch` is a small new BERT over a tokenizer learned from `texts`. `max_length` in tokens, 0 = all the model has
    positions for. Without `pool`, what the model's kind was made for: the last token left to right, the first in the BERT
    family, else the mean. Missing weights are a ValueError; a pooler without weights counts only where it is the pool.
    """
    if name == SCRATCH:
        tokenizer: PreTrainedTokenizerBase = learn_tokenizer(texts)
        sizes = {"hidden_size": 128, "intermediate_size": 512, "num_attention_heads": 4, "num_hidden_layers": depth or 2}
        config: PreTrainedConfig = BertConfig(vocab_size=len(tokenizer), **sizes)
        model = AutoModel.from_config(config)
    else:
        check_folder(name)
        with one_error(name, "configuration"):
            config = AutoConfig.from_pretrained(name)
        if not 0 <= depth <= config.num_hidden_layers:
            raise ValueError(f"depth {depth}: {name} has {config.num_hidden_layers} layers")
        config.num_hidden_layers = depth or config.num_hidden_layers
        model, _ = read_model(cast(Any, AutoModel), name, config, optional="" if pool == "pooler" else "pooler.")
        tokenizer = read_tokenizer(name, config.vocab_size)
    if tokenizer.pad_token is None:  # GPT's: padding is masked, so any token will do
        tokenizer.pad_token = tokenizer.eos_token
    tokens = Tokens(tokenizer, _longest(tokenizer, config, max_length))
    return TextTower(_encoder(model), config, tokens, tuple(layers), pool or default_pool(config), frozen)


def read_text_tower(folder: Path, frozen: bool = True) -> TextTower:
    """The tower of a checkpoint folder that `save` wrote, with random weights: load those of the whole model next."""
    place = folder / FOLDER
    with one_error(str(place), "configuration of the text tower"):
        told = json.loads((place / FILE).read_text())
        config = AutoConfig.from_pretrained(place)
    tokens = Tokens(read_tokenizer(str(place), config.vocab_size), told["max_length"])
    pool = told["pool"]
    if pool not in get_args(Pool):
        raise ValueError(f"{place / FILE}: pool {pool!r} is none of {', '.join(get_args(Pool))}")
    return TextTower(_encoder(AutoModel.from_config(config)), config, tokens, tuple(told["layers"]), pool, frozen)


def default_pool(config: PreTrainedConfig) -> Pool:
    """Where a kind of model gathers the sentence: a first token that sees only itself holds none of it."""
    if config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        return "first"
    return "mean" if config.is_encoder_decoder else "last"


def _encoder(model: Any) -> nn.Module:
    encoder: nn.Module = model.get_encoder() if model.config.is_encoder_decoder else model
    return encoder


def _longest(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig, wanted: int) -> int:
    """Tokens of the longest text; ValueError if the model has fewer positions than wanted."""
    positions = getattr(config, "max_position_embeddings", None) or tokenizer.model_max_length
    if "roberta" in config.model_type:  # its positions are counted from the padding token's id on
        positions -= config.pad_token_id + 1
    longest = min(positions, tokenizer.model_max_length)
    if wanted > longest or wanted < 0:
        raise ValueError(f"max_length {wanted}: the text tower reads up to {longest} tokens; 0 = all of them")
    return wanted or longest
