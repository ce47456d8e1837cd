from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from training.chunking import in_chunks

ROWS = torch.randn(10, 6, generator=torch.Generator().manual_seed(0))


class Tower(nn.Module):
    """Two results of two inputs, with dropout; counts how many rows it is given."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Dropout(dropout), nn.Linear(8, 6))
        self.given: list[int] = []

    def forward(self, rows: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        self.given.append(len(rows["one"]))
        return self.layers(rows["one"]) + rows["other"], rows["other"] > 0


def step(tower: Tower, chunk: int) -> tuple[Tensor, Tensor, list[Tensor]]:
    """A loss that ties every row to every other, and the gradients."""
    torch.manual_seed(1)
    states, positive = in_chunks(tower, {"one": ROWS, "other": ROWS.flip(0)}, chunk)
    (states @ states.T).logsumexp(1).sum().backward()
    return states.detach(), positive, [parameter.grad for parameter in tower.parameters()]


@pytest.mark.parametrize("chunk", [1, 3, 5, 9, 10, 99])
def test_chunks_are_the_whole(chunk: int):
    whole, parts = Tower(0.0), Tower(0.0)
    torch.testing.assert_close(step(parts, chunk), step(whole, 0), atol=1e-5, rtol=1e-5)
    assert whole.given == [10]
    chunks = [min(chunk, 10 - start) for start in range(0, 10, chunk)]
    assert parts.given == (chunks if chunk >= 10 else chunks + chunks[::-1])  # forward, then again from the end


def test_dropout_is_the_same_when_a_chunk_is_computed_again():
    again, kept = Tower(0.5), Tower(0.5)
    got = step(again, 3)
    torch.manual_seed(1)
    parts = [kept({"one": one, "other": other}) for one, other in zip(ROWS.split(3), ROWS.flip(0).split(3), strict=True)]
    states = torch.cat([part[0] for part in parts])
    (states @ states.T).logsumexp(1).sum().backward()
    assert torch.equal(got[0], states)
    torch.testing.assert_close(got[2], [parameter.grad for parameter in kept.parameters()], atol=1e-5, rtol=1e-5)


def test_a_chunk_as_large_as_the_batch_is_the_plain_step_under_dropout_too():
    for one, other in zip(step(Tower(0.5), 10)[2], step(Tower(0.5), 0)[2], strict=True):
        assert torch.equal(one, other)


def test_rows_are_arguments_so_that_their_device_is_seen(monkeypatch):
    """`checkpoint` keeps the random state of the devices of its arguments only."""
    seen = []
    monkeypatch.setattr(
        "training.chunking.checkpoint", lambda compute, rows, **given: seen.append((rows, given)) or compute(rows)
    )
    in_chunks(Tower(0.5), {"one": ROWS, "other": ROWS}, 6)
    assert [[len(tensor) for tensor in rows.values()] for rows, _ in seen] == [[6, 6], [4, 4]]
    assert all(given == {"use_reentrant": False} for _, given in seen)


def test_without_gradients():
    with torch.no_grad():
        states, _ = in_chunks(Tower(0.0), {"one": ROWS, "other": ROWS}, 4)
    assert not states.requires_grad
    torch.testing.assert_close(states, Tower(0.0)({"one": ROWS, "other": ROWS})[0])
