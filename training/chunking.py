"""Batches too large for memory, computed in chunks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def in_chunks(
    compute: Callable[[dict[str, Tensor]], tuple[Tensor, ...]], rows: dict[str, Tensor], chunk: int
) -> tuple[Tensor, ...]:
    """What `compute` gives for all rows, `chunk` of them at a time; 0 = all at once.

    Of a chunk only the results are kept; its activations are computed again, under the same dropout, when the backward
    pass comes to it. A loss over all results is then exact at the memory of one chunk: GradCache (Gao et al. 2021).
    """
    count = len(next(iter(rows.values())))
    if not 0 < chunk < count:
        return compute(rows)
    starts = range(0, count, chunk)
    # The rows go through as arguments: dropout is repeated only on devices that `checkpoint` sees there.
    parts = [checkpoint(compute, {key: value[i : i + chunk] for key, value in rows.items()}, use_reentrant=False) for i in starts]
    return tuple(torch.cat(part) for part in zip(*parts, strict=True))
