from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from tiny_training import Run, history, link, make, weights

from training.loop import TrainingError
from training.sampling import step_samples


def test_history(unbroken):
    rows = history(unbroken)
    assert [(row["step"], *sorted(row)[:1]) for row in rows] == [
        (11, "step"),
        (20, "epoch"),
        (22, "step"),
        (33, "step"),
        (40, "epoch"),
        (44, "step"),
        (45, "epoch"),
        (45, "step"),
    ]
    last = rows[-2]
    assert last["epoch"] == 12.0
    assert last["learning_rate"] == pytest.approx(0.01 / 42)  # 3 of 45 steps of warm-up
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[-1] < losses[0] < 1


def test_a_row_holds_the_mean_loss_since_the_last_one(tmp_path):
    losses = []

    def note(loss):
        losses.append(loss.item())
        return loss

    Run(tmp_path, loss=note)()
    logged = {row["step"]: row["loss"] for row in history(tmp_path) if "loss" in row}
    assert logged == {
        20: pytest.approx(np.mean(losses[:20])),
        40: pytest.approx(np.mean(losses[20:40])),
        45: pytest.approx(np.mean(losses[40:])),
    }


def test_samples_of_every_step(tmp_path):
    """The loop feeds exactly the samples that seed and step name."""
    seen = []

    def noting(samples, generator):
        seen.append(samples)
        return make(samples, generator)

    Run(tmp_path, {"steps": 10}, make=noting)()
    np.testing.assert_array_equal(seen, [step_samples(30, 8, 42, step) for step in range(10)])


@pytest.mark.parametrize("accumulate", [2, 4])
def test_gradient_accumulation_equals_the_plain_step(tmp_path, accumulate):
    plain, parts = Run(tmp_path / "plain", dropout=0.0), Run(tmp_path / "parts", {"accumulate": accumulate}, dropout=0.0)
    plain()
    parts()
    for key, value in weights(plain.run_dir).items():
        torch.testing.assert_close(weights(parts.run_dir)[key], value, rtol=1e-4, atol=1e-5)
    for one, other in zip(history(plain.run_dir), history(parts.run_dir), strict=True):
        assert one.get("loss", 0) == pytest.approx(other.get("loss", 0), abs=1e-5)


def nan_at(call: int):
    calls = []

    def spoil(loss):
        calls.append(loss)
        return loss * math.nan if len(calls) == call else loss

    return spoil


def test_nan_loss_stops(unbroken, tmp_path):
    """It names the step, the learning rate and the samples of the part that failed; nothing of it is saved."""
    with pytest.raises(TrainingError) as caught:
        Run(tmp_path, {"accumulate": 2}, loss=nan_at(2 * 12 + 2))()
    second_half = step_samples(30, 8, 42, 12)[4:]
    rate = 0.01 * (1 - 9 / 42)
    assert str(caught.value) == (
        f"loss nan at step 13, learning rate {rate:.3g}; samples: {', '.join(f'caption-{i}' for i in second_half)}. "
        "The last checkpoint is whole; try a lower --learning-rate or --precision no"
    )
    assert all(value.isfinite().all() for value in weights(tmp_path).values())
    Run(tmp_path, {"accumulate": 2})()


def test_infinite_gradient_stops_before_the_weights_are_spoiled(tmp_path):
    """The loss is finite: clipping would turn every weight into NaN and the next checkpoint would keep them."""
    seen = []

    class Explode(torch.autograd.Function):
        @staticmethod
        def forward(context, loss):
            return loss.clone()

        @staticmethod
        def backward(context, gradient):
            return gradient * math.inf

    def spoil(loss):
        seen.append(loss)
        return Explode.apply(loss) if len(seen) == 5 else loss

    with pytest.raises(TrainingError, match=r"gradient norm (nan|inf) at step 5, .* caption-\d+, .* whole"):
        Run(tmp_path, {"save_every": 1}, loss=spoil)()
    assert all(value.isfinite().all() for value in weights(tmp_path).values())


def test_best_and_last_are_kept(tmp_path):
    figures = {11: 10.0, 22: 30.0, 33: 20.0, 44: 30.0, 45: 5.0}
    best = Run(tmp_path, rsum=lambda step, _: figures[step])()
    assert (best["step"], best["validation"]["rsum"]) == (22, 30.0)
    folder = tmp_path / "checkpoints"
    assert {path.name for path in folder.iterdir()} == {"best", "last", "step-00000022", "step-00000044", "step-00000045"}
    assert (link(tmp_path, "best"), link(tmp_path, "last")) == ("step-00000022", "step-00000045")


def test_clipping(tmp_path):
    """Plain gradient descent would show the norm in the weights; AdamW shows it in its first moment, 0.1 x gradient."""
    norms = {}
    for clip in (0.0, 0.01):
        run = Run(tmp_path / str(clip), {"clip": clip, "steps": 1}, dropout=0.0)
        run()
        state = torch.load(run.run_dir / "checkpoints" / "last" / "optimizer.pt", weights_only=True)["state"]
        norms[clip] = torch.cat([moments["exp_avg"].flatten() for moments in state.values()]).norm().item() / 0.1
    assert norms[0.01] == pytest.approx(0.01, rel=1e-3)
    assert norms[0.0] > 0.1
    assert norms[0.0] == pytest.approx(history(tmp_path / "0.0")[0]["gradient_norm"], rel=1e-3)
    assert history(tmp_path / "0.01")[0]["gradient_norm"] == history(tmp_path / "0.0")[0]["gradient_norm"]


def test_rate_and_weight_decay_reach_the_optimizer(tmp_path):
    loop = Run(tmp_path, {"steps": 4, "warmup": 0.5, "weight_decay": 0.25}).loop()
    loop.run(False, {})
    matrices, others = loop.optimizer.param_groups
    assert [len(group["params"]) for group in (matrices, others)] == [3, 5]
    assert (matrices["weight_decay"], others["weight_decay"]) == (0.25, 0.0)
    assert matrices["lr"] == others["lr"] == pytest.approx(0.01 / 2)  # the last of rates 1/2, 1, 1, 1/2


@pytest.fixture
def other_precision():
    """accelerate keeps one precision for the life of a process."""
    AcceleratorState._reset_state()
    yield
    AcceleratorState._reset_state()


def test_bf16(tmp_path, other_precision):
    seen = []

    def note(loss):
        seen.append((loss.dtype, torch.is_autocast_enabled("cpu")))
        return loss

    Run(tmp_path, {"precision": "bf16"}, loss=note)()
    assert set(seen) == {(torch.float32, True)}
    assert {value.dtype for value in weights(tmp_path).values()} == {torch.float32}
    losses = [row["loss"] for row in history(tmp_path) if "loss" in row]
    assert losses[-1] < losses[0]


def test_fp16_needs_a_gpu(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(TrainingError, match="--precision fp16 needs a GPU; use bf16 or no"):
        Run(tmp_path, {"precision": "fp16"})()


def test_weights_outside_of_the_saved_model_are_refused(tmp_path):
    run = Run(tmp_path)
    loop = run.loop()
    loop.trainee.temperature = torch.nn.Parameter(torch.ones(()))
    with pytest.raises(TrainingError, match=r"temperature is learned outside of trainee.model: it would not be saved"):
        type(loop)(loop.trainee, loop.data, loop.learning, tmp_path, loop.accelerator, loop.save_model, loop.validate)


def test_nothing_to_learn_from(tmp_path):
    loop = Run(tmp_path).loop()
    with pytest.raises(TrainingError, match="nothing to learn from: the training split has no image-text pairs"):
        type(loop)(loop.trainee, replace(loop.data, samples=0), loop.learning, tmp_path, loop.accelerator, None, None)


def test_a_batch_that_does_not_divide_is_refused_at_once(tmp_path):
    with pytest.raises(ValueError, match="--batch-size 8: must be a multiple of 1 processes x 3 accumulation steps"):
        Run(tmp_path, {"accumulate": 3}).loop()
