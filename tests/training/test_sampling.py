from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.sampling import Share, StepData, epoch_order, step_samples

ALONE = Share()


def make(samples: np.ndarray, generator: np.random.Generator) -> dict[str, object]:
    return {"samples": samples, "drawn": generator.random()}


def data(share: Share = ALONE, accumulate: int = 1) -> StepData:
    return StepData(20, 8, 5, share, accumulate, make)


@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 2**32), st.integers(1, 3))
def test_every_sample_once_an_epoch(samples, batch, seed, epochs):
    """Epochs need not end where a batch ends."""
    steps = -(-epochs * samples // batch)
    seen = np.concatenate([step_samples(samples, batch, seed, step) for step in range(steps)])
    for epoch in range(epochs):
        assert sorted(seen[epoch * samples : (epoch + 1) * samples]) == list(range(samples))


def test_epochs_and_seeds_differ_in_order():
    orders = {tuple(epoch_order(30, seed, epoch)) for seed in range(3) for epoch in range(4)}
    assert len(orders) == 12


def test_a_step_depends_on_seed_and_step_alone():
    forwards = [step_samples(20, 8, 1, step).tolist() for step in range(10)]
    epoch_order.cache_clear()
    assert [step_samples(20, 8, 1, step).tolist() for step in reversed(range(10))] == forwards[::-1]


@pytest.mark.parametrize("size, accumulate", [(1, 1), (2, 1), (4, 1), (1, 4), (2, 2)])
def test_shares_together_are_the_global_batch_in_order(size, accumulate):
    for step in (0, 3, 11):
        parts = [part["samples"] for rank in range(size) for part in data(Share(rank, size), accumulate)[step]]
        assert len(parts) == size * accumulate
        assert np.concatenate(parts).tolist() == step_samples(20, 8, 5, step).tolist()
        for mine, named in zip(parts, data(Share(0, size), accumulate).parts(step), strict=True):
            assert mine.tolist() == named.tolist()


def test_every_part_of_a_step_gets_the_same_generator():
    drawn = {part["drawn"] for rank in range(2) for part in data(Share(rank, 2), 2)[4]}
    assert len(drawn) == 1
    assert drawn != {data()[5][0]["drawn"]}


@pytest.mark.parametrize("size, accumulate", [(3, 1), (1, 3), (4, 4)])
def test_a_batch_that_does_not_divide(size, accumulate):
    with pytest.raises(ValueError, match=f"--batch-size 8: must be a multiple of {size} processes x {accumulate} accum"):
        data(Share(0, size), accumulate)
