"""A training run small enough for tests to start, stop and kill by the dozen; also as a program of its own:

python tests/training/tiny_training.py '{"run_dir": ..., "steps": 12, ...}'
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from training.learning import Learning
from training.loop import Data, Loop, process_group
from training.losses import binary_loss
from training.pairs import PairSet
from training.supervision import Supervisor
from training.tracking import read_history

IMAGES = 15
WIDTH = 6
PAIRS = PairSet(np.stack([np.arange(2 * IMAGES) // 2, np.arange(2 * IMAGES)], axis=1), IMAGES, 2 * IMAGES)
FEATURES = np.random.default_rng(0).standard_normal((3 * IMAGES, WIDTH)).astype(np.float32)


class TinyModel(nn.Sequential):
    def __init__(self, dropout: float) -> None:
        super().__init__(
            nn.Linear(2 * WIDTH, 16), nn.LayerNorm(16), nn.Dropout(dropout), nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 1)
        )


class TinyTrainee(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return binary_loss(self.model(batch["features"]).squeeze(1).float(), batch["labels"])


def make(samples: np.ndarray, generator: np.random.Generator) -> dict[str, Tensor]:
    pairs, labels = PAIRS.paired_samples(samples, generator)
    images, texts = pairs.T
    features = np.concatenate([FEATURES[images], FEATURES[IMAGES + texts]], axis=1)
    return {"features": torch.from_numpy(features), "labels": torch.from_numpy(labels), "samples": torch.from_numpy(samples)}


class Stop(Exception):
    """A run that is stopped from within."""


def stopper(call: int, how: Callable[[], object] | None = None) -> Callable[..., dict[str, Tensor]]:
    """A batch maker that stops the process at this call."""
    calls: list[np.ndarray] = []

    def stopping(samples: np.ndarray, generator: np.random.Generator) -> dict[str, Tensor]:
        calls.append(samples)
        if len(calls) == call:
            if how:
                how()
            raise Stop
        return make(samples, generator)

    return stopping


def describe(samples: np.ndarray) -> list[str]:
    return [f"caption-{sample}" for sample in samples]


@dataclass
class Run:
    """What a tiny run is made of; tests replace parts."""

    run_dir: Path
    learning: dict[str, Any] = field(default_factory=dict)
    dropout: float = 0.2
    workers: int = 0
    make: Callable[[np.ndarray, np.random.Generator], dict[str, Tensor]] = make
    loss: Callable[[Tensor], Tensor] = lambda loss: loss
    rsum: Callable[[int, float], float] = lambda step, loss: 600 - loss
    save: Callable[[Path], None] = lambda folder: None
    """What else happens at a save, after the weights are written."""
    supervisor: Supervisor | None = None

    def loop(self) -> Loop:
        options = {"batch_size": 8, "steps": 45, "evaluate_every": 11, "save_every": 5, "learning_rate": 0.01, **self.learning}
        learning = Learning(**options)
        accelerator = process_group(learning.precision)
        torch.manual_seed(learning.seed)
        model = TinyModel(self.dropout)
        trainee = TinyTrainee(model)
        forward = trainee.forward
        trainee.forward = lambda batch: self.loss(forward(batch))  # type: ignore[method-assign]
        loop = Loop(
            trainee,
            Data(2 * IMAGES, self.make, describe, self.workers),
            learning,
            self.run_dir,
            accelerator,
            save_model=self._save_model(model),
            validate=lambda: self._validate(model, loop.state["step"]),
            supervisor=self.supervisor,
        )
        return loop

    def __call__(self) -> dict[str, Any]:
        return self.loop().run(self.learning.get("wandb", False), {})

    def _save_model(self, model: nn.Module) -> Callable[[Path], None]:
        def save(folder: Path) -> None:
            save_file(model.state_dict(), folder / "model.safetensors")
            self.save(folder)

        return save

    def _validate(self, model: nn.Module, step: int) -> dict[str, float]:
        """A figure that depends on the weights; draws from the global generators as a careless validation would."""
        torch.rand(step + 1)
        np.random.rand()  # noqa: NPY002
        assert not model.training
        batch = make(np.arange(2 * IMAGES), np.random.default_rng(0))
        loss = binary_loss(model(batch["features"]).squeeze(1), batch["labels"]).item()
        return {"rsum": self.rsum(step, loss), "loss": loss}


def weights(run_dir: Path, name: str = "last") -> dict[str, Tensor]:
    return load_file(run_dir / "checkpoints" / name / "model.safetensors")


def link(run_dir: Path, name: str) -> str:
    """The checkpoint that `last` or `best` points at."""
    return (run_dir / "checkpoints" / name).readlink().name


def history(run_dir: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what depends on the machine's speed."""
    rows = read_history(run_dir / "metrics.jsonl")
    return [{key: value for key, value in row.items() if key != "samples_per_second"} for row in rows]


def same(one: Path, other: Path) -> None:
    """Both runs ended with the same bits and the same history."""
    for name in ("last", "best"):
        assert link(one, name) == link(other, name)
        mine, yours = weights(one, name), weights(other, name)
        assert mine.keys() == yours.keys()
        for key, value in mine.items():
            assert torch.equal(value, yours[key]), f"{name}: {key} differs by {(value - yours[key]).abs().max()}"
    assert history(one) == history(other)


if __name__ == "__main__":
    torch.set_num_threads(1)
    values = json.loads(sys.argv[1])
    Run(Path(values.pop("run_dir")), **values)()
