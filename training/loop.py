"""The training loop: steps over any module that returns a loss, with resume at every step.

A stopped run that starts again sees the same samples in the same order under the same random numbers, so on a CPU its
weights equal those of an unbroken run: sample order, augmentation and dropout all depend on seed and step alone.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from training import checkpoints
from training.learning import Learning
from training.sampling import Batch, MakeBatch, Share, StepData, step_samples
from training.tracking import Tracker


class TrainingError(ValueError):
    """Training cannot go on; the message says at which step and why."""


LOG_EVERY = 20


@dataclass(frozen=True)
class Data:
    """What to learn from: `make(indices, generator)` builds a batch of some of the samples."""

    samples: int
    make: MakeBatch
    describe: Callable[[np.ndarray], list[str]]
    """Ids of samples, for the message when a loss is not finite."""
    workers: int = 0


def process_group(precision: str) -> Accelerator:
    """accelerate's view of the processes; raises if it sees fewer of them than were started (each would train alone)."""
    cpu = not torch.cuda.is_available()
    if cpu and precision == "fp16":
        raise TrainingError("--precision fp16 needs a GPU; use bf16 or no")
    accelerator = Accelerator(mixed_precision=precision, cpu=cpu)
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != started:
        raise TrainingError(f"{started} processes were started and accelerate joined {accelerator.num_processes}")
    return accelerator


class Loop:
    """One training run in one run folder.

    `trainee.forward(batch)` gives the loss; `trainee.model` is the part that is saved, resumed and ranked with.
    """

    def __init__(
        self,
        trainee: nn.Module,
        data: Data,
        learning: Learning,
        run_dir: Path,
        accelerator: Accelerator,
        save_model: Callable[[Path], None],
        validate: Callable[[], dict[str, Any]],
    ) -> None:
        self.learning, self.data, self.accelerator, self.run_dir = learning, data, accelerator, run_dir
        self.steps = learning.total_steps(data.samples)
        self.save_model, self.validate = save_model, validate
        self.model = cast(nn.Module, trainee.model)
        trainee.to(accelerator.device)
        optimizer = torch.optim.AdamW(_parameter_groups(trainee, learning.weight_decay), lr=learning.learning_rate)
        self.trainee, self.optimizer = accelerator.prepare(trainee, optimizer)
        self.folder = run_dir / "checkpoints"
        self.state: dict[str, Any] = {"step": 0, "best": None, "losses": [], "plan": self._plan()}

    def run(self, wandb: bool, config: dict[str, Any]) -> dict[str, Any]:
        """Train to the end and return the best validation figures. Goes on from the newest whole checkpoint."""
        self._resume()
        learning, main = self.learning, self.accelerator.is_main_process
        tracker = Tracker(self.run_dir, self.state["step"], wandb, config) if main else None
        clock = _Clock(self.state["step"], self.steps, main)
        try:
            for step, micro_batches in self._batches():
                loss, norm = self._step(step, micro_batches)
                self.state["losses"].append(loss)
                self.state["step"] = done = step + 1
                if done % LOG_EVERY == 0 or done == self.steps:
                    self._log(tracker, clock, norm)
                validating = done % learning.validation_steps(self.data.samples) == 0 or done == self.steps
                if validating:
                    self._validate(tracker)
                if validating or done % learning.save_every == 0:
                    self._save()
        finally:
            if tracker is not None:
                tracker.close()
        return dict(self.state["best"])

    def _batches(self) -> Iterator[tuple[int, list[Batch]]]:
        start = self.state["step"]
        share = Share(self.accelerator.process_index, self.accelerator.num_processes)
        data = StepData(
            self.data.samples, self.learning.batch_size, self.learning.seed, share, self.learning.accumulate, self.data.make
        )
        loader = DataLoader(
            data,
            batch_size=None,
            sampler=range(start, self.steps),
            num_workers=self.data.workers,
            # An iterator without a generator of its own draws from the global one, and a resumed run then differs.
            generator=torch.Generator(),
        )
        return zip(range(start, self.steps), loader, strict=True)

    def _step(self, step: int, micro_batches: list[Batch]) -> tuple[float, float]:
        """One optimizer step. Returns the mean loss over all processes and the gradient norm."""
        learning, accelerator = self.learning, self.accelerator
        rate = learning.rate(step, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        torch.manual_seed(int(np.random.SeedSequence([learning.seed, step, accelerator.process_index]).generate_state(1)[0]))
        self.trainee.train()
        total = torch.zeros((), device=accelerator.device)
        for number, batch in enumerate(micro_batches):
            last = number == len(micro_batches) - 1
            with nullcontext() if last else accelerator.no_sync(self.trainee):
                loss = self._loss(batch) / len(micro_batches)
                accelerator.backward(loss)
            total += loss.detach()
        loss_value = float(accelerator.reduce(total, "mean"))
        if not math.isfinite(loss_value):
            self._not_finite(loss_value, step, rate)
        norm = float(accelerator.clip_grad_norm_(self.trainee.parameters(), learning.clip or math.inf))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss_value, norm

    def _loss(self, batch: Batch) -> Tensor:
        moved = {key: value.to(self.accelerator.device, non_blocking=True) for key, value in batch.items()}
        with self.accelerator.autocast():
            return self.trainee(moved)

    def _not_finite(self, loss: float, step: int, rate: float) -> None:
        share = Share(self.accelerator.process_index, self.accelerator.num_processes)
        samples = share.of(step_samples(self.data.samples, self.learning.batch_size, self.learning.seed, step))
        raise TrainingError(
            f"loss {loss} at step {step + 1}, learning rate {rate:.3g}, process {share.rank}; samples: "
            f"{', '.join(self.data.describe(samples))}. The last checkpoint is whole; try a lower --learning-rate or --precision no"
        )

    def _log(self, tracker: Tracker | None, clock: _Clock, norm: float) -> None:
        losses, step = self.state["losses"], self.state["step"]
        self.state["losses"] = []
        row = {
            "step": step,
            "epoch": round(step * self.learning.batch_size / self.data.samples, 4),
            "loss": sum(losses) / len(losses),
        }
        row |= {"learning_rate": self.learning.rate(step - 1, self.steps), "gradient_norm": norm}
        row["samples_per_second"] = round(clock.tell(step, row["loss"]) * self.learning.batch_size, 2)
        if tracker is not None:
            tracker.log(row)

    def _validate(self, tracker: Tracker | None) -> None:
        self.trainee.eval()
        with torch.no_grad():
            figures = self.validate()
        row = {"step": self.state["step"], "validation": figures}
        if self.state["best"] is None or figures["rsum"] > self.state["best"]["validation"]["rsum"]:
            self.state["best"] = row
        if tracker is not None:
            tracker.log(row)
            print(
                f"step {row['step']}: validation rsum {figures['rsum']:.1f} (best {self.state['best']['validation']['rsum']:.1f})",
                flush=True,
            )

    def _save(self) -> None:
        """The main process saves: on one machine or many, the weights are the same everywhere."""
        if self.accelerator.is_main_process:
            step = self.state["step"]
            saved = checkpoints.save_checkpoint(self.folder, step, self._write)
            if self.state["best"] is not None and self.state["best"]["step"] == step:
                checkpoints.link(self.folder, "best", saved)
            checkpoints.prune(self.folder)
        self.accelerator.wait_for_everyone()

    def _write(self, folder: Path) -> None:
        self.save_model(folder)
        torch.save(self.optimizer.state_dict(), folder / "optimizer.pt")
        if self.accelerator.scaler is not None:
            torch.save(self.accelerator.scaler.state_dict(), folder / "scaler.pt")
        (folder / "training.json").write_text(json.dumps(self.state))

    def _plan(self) -> dict[str, Any]:
        """What must not change between a checkpoint and its resumption."""
        learning = self.learning
        return {"steps": self.steps, "samples": self.data.samples, "batch_size": learning.batch_size, "seed": learning.seed}

    def _resume(self) -> None:
        found = checkpoints.newest(self.folder)
        if found is None:
            return
        state = json.loads((found / "training.json").read_text())
        if state["plan"] != self.state["plan"]:
            raise TrainingError(
                f"{found}: saved by a run with {state['plan']}, this one has {self.state['plan']}; choose another --name"
            )
        self.model.load_state_dict(load_file(found / "model.safetensors"))
        self.optimizer.load_state_dict(
            torch.load(found / "optimizer.pt", weights_only=True, map_location=self.accelerator.device)
        )
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(torch.load(found / "scaler.pt", weights_only=True))
        self.state = state
        if self.accelerator.is_main_process:
            print(f"going on at step {state['step']} of {self.steps} from {found}", flush=True)


def _parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices only: biases and LayerNorm weights are left alone, as BERT's own training does."""
    learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return [
        {"params": [parameter for parameter in learning if parameter.ndim >= 2], "weight_decay": weight_decay},
        {"params": [parameter for parameter in learning if parameter.ndim < 2], "weight_decay": 0.0},
    ]


class _Clock:
    """Progress for people: a bar on a terminal, a plain line every half minute elsewhere."""

    def __init__(self, start: int, steps: int, shown: bool) -> None:
        self._bar = tqdm(total=steps, initial=start, unit="step", disable=None if shown else True)
        self._plain = shown and self._bar.disable
        self._steps, self._step, self._time = steps, start, time.monotonic()
        self._printed = -math.inf

    def tell(self, step: int, loss: float) -> float:
        """Show a step and return the steps a second since the last call."""
        now = time.monotonic()
        speed = (step - self._step) / max(now - self._time, 1e-9)
        self._bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
        self._bar.update(step - self._step)
        if self._plain and (now - self._printed > 30 or step == self._steps):
            print(
                f"step {step} of {self._steps}, loss {loss:.4f}, {speed:.2f} steps/s, {(self._steps - step) / speed / 60:.0f} min left",
                flush=True,
            )
            self._printed = now
        self._step, self._time = step, now
        return speed
