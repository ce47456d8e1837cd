from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from real_processes import in_processes

from training.gathering import gathered

ROWS = torch.arange(24.0).view(6, 2, 2)


def test_one_process_has_all_rows():
    assert gathered(ROWS) is ROWS


@pytest.mark.parametrize("size", [2, 3])
def test_rows_come_by_rank_and_gradients_go_back(tmp_path: Path, size: int):
    """The loss of process r is the sum over rows of (1 + r) * place * values: row p's gradient is the sum of all those factors."""

    def gather() -> None:
        dist.init_process_group("gloo")
        mine = ROWS.chunk(size)[dist.get_rank()].clone().requires_grad_()
        everyone = gathered(mine)
        places = torch.arange(1.0, 7)[:, None, None]
        ((1 + dist.get_rank()) * places * everyone).sum().backward()
        numbers = gathered(mine.detach().long()), gathered(mine.detach().bfloat16())
        torch.save([everyone.detach(), mine.grad, *numbers], tmp_path / f"{dist.get_rank()}.pt")

    assert in_processes(size, gather) == [0] * size
    factor = size * (size + 1) / 2
    for rank in range(size):
        everyone, gradient, whole, rounded = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert torch.equal(everyone, ROWS) and torch.equal(whole, ROWS.long()) and torch.equal(rounded, ROWS.bfloat16())
        places = torch.arange(1.0, 7).chunk(size)[rank][:, None, None]
        assert torch.equal(gradient, (factor * places).expand_as(gradient))


def test_a_gradient_that_is_used_twice_stays_whole(tmp_path: Path):
    """The sum hands one and the same gradient to both its terms."""

    def gather() -> None:
        dist.init_process_group("gloo")
        rows, other = torch.ones(2, 3, requires_grad=True), torch.ones(4, 3, requires_grad=True)
        (gathered(rows) + other).square().sum().backward()
        assert torch.equal(other.grad, torch.full((4, 3), 4.0)) and torch.equal(rows.grad, torch.full((2, 3), 8.0))

    assert in_processes(2, gather) == [0, 0]
