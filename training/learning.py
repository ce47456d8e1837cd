"""How long and how fast to learn: the options that every training job shares."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal


def require(options: object, *rules: tuple[str, bool, str]) -> None:
    """Rules of (option, whether it holds, what is allowed); the first that does not hold raises ValueError."""
    for name, holds, allowed in rules:
        if not holds:
            raise ValueError(f"--{name.replace('_', '-')} {getattr(options, name)}: must be {allowed}")


@dataclass(frozen=True)
class Learning:
    """Training options; a job's Config inherits them and sets its own defaults."""

    epochs: float = 10
    """Times every training caption is seen."""
    steps: int = 0
    """Optimizer steps; if given, epochs are ignored."""
    batch_size: int = 256
    """Samples of one optimizer step, over all processes and accumulation steps together."""
    learning_rate: float = 1e-5
    """Peak learning rate (AdamW)."""
    weight_decay: float = 1e-4
    """Weight decay of matrices; biases and LayerNorms have none."""
    warmup: float = 0.05
    """Share of the steps in which the learning rate rises from zero."""
    decay: Literal["linear", "cosine", "none"] = "linear"
    """How the learning rate falls to zero after the warm-up."""
    clip: float = 1.0
    """Largest gradient norm; 0 = no clipping."""
    accumulate: int = 1
    """Parts in which each process computes its share of a batch, to save memory; for losses without in-batch negatives (those have --chunk)."""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """Mixed precision."""
    seed: int = 42
    """Seed of initial weights, sample order, negatives and dropout."""
    evaluate_every: int = 0
    """Steps between validations; 0 = once an epoch. There is always one at the end."""
    save_every: int = 500
    """Steps between checkpoints; there is one at every validation too."""
    wandb: bool = field(default=False, metadata={"identity": False})
    """Also log to Weights & Biases (WANDB_MODE=offline works)."""

    def __post_init__(self) -> None:
        require(
            self,
            ("epochs", 0 < self.epochs < math.inf, "above 0"),
            ("steps", self.steps >= 0, "0 or more"),
            ("batch_size", self.batch_size > 0, "1 or more"),
            ("learning_rate", 0 < self.learning_rate < math.inf, "above 0"),
            ("weight_decay", 0 <= self.weight_decay < math.inf, "0 or more"),
            ("warmup", 0 <= self.warmup < 1, "at least 0 and below 1"),
            ("clip", 0 <= self.clip < math.inf, "0 or more"),
            ("accumulate", self.accumulate > 0, "1 or more"),
            ("seed", self.seed >= 0, "0 or more"),
            ("evaluate_every", self.evaluate_every >= 0, "0 or more"),
            ("save_every", self.save_every > 0, "1 or more"),
        )

    def total_steps(self, samples: int) -> int:
        """Optimizer steps of the whole run."""
        return self.steps or math.ceil(self.epochs * samples / self.batch_size)

    def validation_steps(self, samples: int) -> int:
        """Steps between validations."""
        return self.evaluate_every or math.ceil(samples / self.batch_size)

    def rate(self, step: int, total: int) -> float:
        """Learning rate of a 0-based step."""
        warm = math.ceil(self.warmup * total)
        if step < warm:
            return self.learning_rate * (step + 1) / warm
        progress = (step - warm) / max(1, total - warm)
        factor = {"linear": 1 - progress, "cosine": (1 + math.cos(math.pi * progress)) / 2, "none": 1.0}[self.decay]
        return self.learning_rate * factor
