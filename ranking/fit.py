"""Trains a model whose checkpoints are compared by how well they rank a validation split."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

from accelerate import Accelerator
from torch import nn

from ranking.engine import Engine
from ranking.matrix import config_json
from ranking.predict import validation_figures
from training.learning import Learning
from training.loop import Data, Loop


def fit(
    trainee: nn.Module,
    data: Data,
    validation: Engine,
    config: Learning,
    run_dir: Path,
    accelerator: Accelerator,
    save: Callable[[Path], None],
    rate: Callable[[str], float] = lambda name: 1.0,
) -> None:
    """Train to the end, keep the checkpoint of the best rsum, and say where it is. `save(folder)` writes the model.

    `validation` holds the same model as the trainee, and the split that it ranks between epochs. `rate(name)` is what a parameter's
    learning rate is multiplied with.
    """
    figures, supervisor = partial(validation_figures, validation), validation.supervisor
    loop = Loop(trainee, data, config, run_dir, accelerator, save, figures, supervisor, rate)
    best = loop.run(config.wandb, json.loads(config_json(config)))
    if accelerator.is_main_process:
        print(f"best validation rsum {best['validation']['rsum']:.1f} at step {best['step']}: {run_dir / 'checkpoints' / 'best'}")
