from __future__ import annotations

import math

import pytest

from training.learning import Learning


def rates(total: int, **options: object) -> list[float]:
    learning = Learning(learning_rate=1.0, **options)  # type: ignore[arg-type]
    return [learning.rate(step, total) for step in range(total)]


def test_linear_schedule_by_hand():
    assert rates(10, warmup=0.2) == pytest.approx([0.5, 1, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])


def test_cosine_schedule_by_hand():
    expected = [1 / 2, 1, 1, *((1 + math.cos(math.pi * done / 4)) / 2 for done in (1, 2, 3))]
    assert rates(6, warmup=0.2, decay="cosine") == pytest.approx(expected)


def test_no_decay():
    assert rates(5, warmup=0.5, decay="none") == pytest.approx([1 / 3, 2 / 3, 1, 1, 1])


def test_no_warmup():
    assert rates(4, warmup=0.0) == pytest.approx([1, 0.75, 0.5, 0.25])


@pytest.mark.parametrize("decay", ["linear", "cosine", "none"])
def test_the_rate_is_never_zero_nor_above_its_peak(decay):
    for total in (1, 2, 7):
        for warmup in (0.0, 0.3, 0.99):
            assert all(0 < rate <= 1 for rate in rates(total, warmup=warmup, decay=decay))


def test_steps():
    assert Learning(epochs=3, batch_size=8).total_steps(20) == 8  # 60 samples in batches of 8
    assert Learning(epochs=0.5, batch_size=8).total_steps(20) == 2
    assert Learning(epochs=3, batch_size=8, steps=5).total_steps(20) == 5
    assert Learning(batch_size=8).validation_steps(20) == 3
    assert Learning(batch_size=8, evaluate_every=7).validation_steps(20) == 7


@pytest.mark.parametrize(
    "option, value",
    [
        ("epochs", 0),
        ("epochs", math.inf),
        ("steps", -1),
        ("batch_size", 0),
        ("learning_rate", 0.0),
        ("learning_rate", math.nan),
        ("weight_decay", -1e-4),
        ("weight_decay", math.nan),
        ("warmup", 1.0),
        ("warmup", -0.1),
        ("clip", -1.0),
        ("clip", math.nan),
        ("accumulate", 0),
        ("seed", -1),
        ("evaluate_every", -1),
        ("save_every", 0),
    ],
)
def test_options_out_of_range(option, value):
    with pytest.raises(ValueError, match=f"^--{option.replace('_', '-')} {value}: must be "):
        Learning(**{option: value})
