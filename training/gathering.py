"""The rows of all processes as one tensor, with gradients: what a loss over the whole batch is computed from."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from training.processes import size


def gathered(rows: Tensor) -> Tensor:
    """(B, ...) rows of this process -> (processes x B, ...) of all, by rank; every process brings as many.

    A row's gradient is the sum of what the losses of all processes make of it; DistributedDataParallel then takes the mean.
    """
    everyone: Tensor = _Gather.apply(rows) if size() > 1 else rows
    return everyone


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, rows: Tensor) -> Tensor:
        everyone = rows.new_empty(size() * len(rows), *rows.shape[1:])
        dist.all_gather_single(everyone, rows.contiguous())
        return everyone

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        everyone = gradients[0].contiguous()
        mine = everyone.new_empty(len(everyone) // size(), *everyone.shape[1:])
        dist.reduce_scatter_single(mine, everyone)
        return mine
