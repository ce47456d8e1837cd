"""Which samples make up which step: a pure function of seed and step, whatever the number of processes or restarts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from torch.utils.data import Dataset

Batch = dict[str, Any]
MakeBatch = Callable[[np.ndarray, np.random.Generator], Batch]
"""Sample indices and the step's generator -> the tensors of a batch. Runs in loader workers.

Every process gets the same generator: what is drawn for a sample must not depend on the others of its part, or another
number of processes would learn from other data (`training.pairs` shows how).
"""


Order = Callable[[int, int, int], np.ndarray]
"""(samples, seed, epoch) -> the samples of an epoch in their order, so many of them (`training.class_sampling` has others)."""


@lru_cache(maxsize=2)
def epoch_order(samples: int, seed: int, epoch: int) -> np.ndarray:
    """A new permutation of all samples for every epoch."""
    return np.random.default_rng([seed, epoch]).permutation(samples)


def step_samples(samples: int, batch: int, seed: int, step: int, order: Order = epoch_order) -> np.ndarray:
    """Sample indices of one global step. Epochs follow each other without a gap, so every sample comes once an epoch."""
    places = np.arange(step * batch, (step + 1) * batch)
    return np.array([order(samples, seed, place // samples)[place % samples] for place in places.tolist()])


@dataclass(frozen=True)
class Share:
    """This process's part of every global batch."""

    rank: int = 0
    size: int = 1


class StepData(Dataset[list[Batch]]):
    """Item `step` is this process's part of the step's batch, cut into micro-batches for gradient accumulation.

    A batch that does not divide evenly among processes and accumulation steps raises ValueError.
    """

    def __init__(
        self, samples: int, batch: int, seed: int, share: Share, accumulate: int, make: MakeBatch, order: Order = epoch_order
    ) -> None:
        if batch % (share.size * accumulate):
            raise ValueError(
                f"--batch-size {batch}: must be a multiple of {share.size} processes x {accumulate} accumulation steps"
            )
        self._plan, self._order = (samples, batch, seed), order
        self._share, self._accumulate, self._make = share, accumulate, make

    def parts(self, step: int) -> list[np.ndarray]:
        """The step's samples in the parts in which they are computed: those of process 0, of process 1 and so on."""
        return np.split(step_samples(*self._plan, step, self._order), self._share.size * self._accumulate)

    def __getitem__(self, step: int) -> list[Batch]:
        _, _, seed = self._plan
        first = self._share.rank * self._accumulate
        mine = self.parts(step)[first : first + self._accumulate]
        return [self._make(part, np.random.default_rng([seed, step])) for part in mine]
