"""Training in chunks is the plain step at the memory of one chunk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_batches import image_batch, text_batch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from transformers import CLIPConfig, LxmertConfig

from models.clip import Clip
from models.clip_training import ClipTrainee
from models.lxmert import Lxmert
from models.lxmert_training import LxmertTrainee

SYSTEMS = ("clip", "lxmert")


def clip_config() -> CLIPConfig:
    tower = {"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4}
    text = {"vocab_size": 50, "max_position_embeddings": 12, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    return CLIPConfig(text_config=tower | text, vision_config=tower | {"image_size": 32, "patch_size": 8}, projection_dim=16)


@pytest.fixture
def build(lxmert_config: Callable[..., LxmertConfig]) -> Callable[..., nn.Module]:
    def build(system: str, chunk: int, dropout: float = 0.0) -> nn.Module:
        torch.manual_seed(0)
        if system == "clip":
            return ClipTrainee(Clip(clip_config()), chunk)
        off = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
        return LxmertTrainee(Lxmert(lxmert_config(vocab_size=50, x_layers=3, **off)), "contrastive", negatives=2, chunk=chunk)

    return build


def batch_of(count: int) -> dict[str, Tensor]:
    """Random pixels, regions and tokens; every fourth pair has the image of the one before."""
    pixels = torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    image = torch.arange(count) - (torch.arange(count) % 4 == 3).long()
    known = {"own_text": torch.arange(count), "texts_of_image": torch.stack([image, image + (image % 4 == 2).long()], 1)}
    lengths = [3 + place % 8 for place in range(count)]
    items = image_batch(count, 5, 8) | text_batch(lengths, 50) | {"pixel_values": pixels}
    items["input_ids"][torch.arange(count), torch.tensor(lengths) - 1] = 2  # CLIP reads a text from its end
    return items | known | {"draw": torch.tensor(5)}


def step(trainee: nn.Module, batch: dict[str, Tensor], precision: str = "no") -> dict[str, Tensor]:
    """Loss and gradients."""
    torch.manual_seed(1)
    with torch.autocast("cpu", enabled=precision == "bf16"):
        loss = trainee.train()(batch)
    loss.backward()
    return {"loss": loss.detach()} | {name: p.grad for name, p in trainee.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("chunk", [1, 3, 8])
@pytest.mark.parametrize("precision, tolerance", [("no", 3e-6), ("bf16", 2e-2)])
def test_loss_and_gradients_are_those_of_the_plain_step(build, system: str, chunk: int, precision: str, tolerance: float):
    plain, chunks = (step(build(system, size), batch_of(8), precision) for size in (0, chunk))
    largest = max(value.abs().max().item() for value in plain.values())
    assert chunks.keys() == plain.keys() and largest > 0.1
    for name, value in plain.items():
        torch.testing.assert_close(chunks[name], value, atol=tolerance * max(1, largest), rtol=0)


def test_under_dropout_a_chunk_that_holds_all_is_the_plain_step(build):
    """Smaller chunks draw other masks, each the same in both of its passes (tests/training/test_chunking.py)."""
    plain, whole = (step(build("lxmert", chunk, dropout=0.3), batch_of(8)) for chunk in (0, 24))
    assert all(torch.equal(whole[name], value) for name, value in plain.items())


def peak(trainee: nn.Module, batch: dict[str, Tensor]) -> int:
    """Most bytes that a step holds at one time, above what it began with."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        step(trainee, batch)
    events: Any = seen.profiler.kineto_results.events()
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    held = torch.tensor([change for _, change in changes]).cumsum(0)
    return int(held.max())


@pytest.mark.parametrize("system", SYSTEMS)
def test_memory_does_not_grow_with_the_batch(build, system: str):
    """But for what a loss over the whole batch must have: the states (LXMERT) or all scores (CLIP), and their gradients."""
    plain, small, large = (peak(build(system, chunk), batch_of(count)) for chunk, count in ((0, 64), (32, 64), (32, 512)))
    states = (512 - 64) * (5 + 10) * 32 * 4  # of 5 regions and at most 10 tokens, 32 wide
    scores = 512 * 512 * 4
    assert large - small < (3 * states if system == "lxmert" else scores)
    assert large < plain / 2
