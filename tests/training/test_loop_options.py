"""What a job can tell the loop beside the options: an order, rates by parameter, what follows a step, what is best."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import save_file
from tiny_training import IMAGES, TinyModel, TinyTrainee, describe, history, link, make

from training.learning import Learning
from training.loop import Data, Loop, process_group


def run(folder, figures=lambda step: {"rsum": 1.0}, data: dict[str, Any] | None = None, **options) -> TinyModel:
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.manual_seed(0)
    model = TinyModel(0.0)
    learning = Learning(batch_size=6, steps=6, evaluate_every=2, learning_rate=0.01, warmup=0)
    loop = Loop(
        TinyTrainee(model),
        Data(2 * IMAGES, **{"make": make, "describe": describe, **(data or {})}),
        learning,
        folder,
        process_group("no"),
        save_model=lambda place: save_file(model.state_dict(), place / "model.safetensors"),
        validate=lambda: figures(loop.state["step"]),
        **options,
    )
    loop.run(False, {})
    return model


def test_samples_come_in_the_order_given(tmp_path):
    seen = []

    def noting(samples, generator):
        seen.append(samples.tolist())
        return make(samples, generator)

    def order(samples: int, seed: int, epoch: int) -> np.ndarray:
        return np.arange(samples)[::-1] if epoch else np.arange(samples)

    run(tmp_path, data={"make": noting, "order": order})
    assert np.concatenate(seen).tolist() == [*range(30), *range(29, 23, -1)]


def test_each_parameter_learns_at_its_own_rate(tmp_path):
    """A layer of rate 0 stands still; what is named faster goes further in a first step of AdamW."""
    torch.manual_seed(0)
    before = TinyModel(0.0).state_dict()
    rates = {"model.0.weight": 0.0, "model.3.weight": 0.1}
    after = run(tmp_path, rate=lambda name: rates.get(name, 1.0)).state_dict()
    moved = {name: (after[name] - value).abs().max().item() for name, value in before.items()}
    assert moved["0.weight"] == 0 and 0 < moved["3.weight"] < 0.2 * moved["5.weight"] and moved["0.bias"] > 0
    AcceleratorState._reset_state(reset_partial_state=True)


def test_something_follows_every_step_when_weights_have_changed(tmp_path):
    calls = []
    run(tmp_path, after_step=lambda: calls.append(1))
    assert len(calls) == 6


def test_the_first_figure_chooses_the_best_checkpoint(tmp_path):
    run(tmp_path, lambda step: {"R@1": {2: 30.0, 4: 50.0, 6: 50.0}[step], "rsum": float(step)})
    assert link(tmp_path, "best") == "step-00000004"
    assert [row["validation"]["R@1"] for row in history(tmp_path) if "validation" in row] == [30.0, 50.0, 50.0]
