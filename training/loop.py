"""The training loop: steps over any module that returns a loss, with resume at every step.

A stopped run that starts again sees the same samples in the same order under the same random numbers, so on a CPU its
weights equal those of an unbroken run: sample order, augmentation and dropout all depend on seed and step alone.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, fields
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader

from training import checkpoints
from training.clock import Clock
from training.learning import Learning
from training.processes import on_main, outlive_sigterm
from training.sampling import Batch, MakeBatch, Order, Share, StepData, epoch_order
from training.supervision import Nobody, Supervisor
from training.tracking import Tracker

LOG_EVERY = 20
"""Steps between rows of metrics.jsonl."""


class TrainingError(ValueError):
    """Training cannot go on; the message says at which step and why."""


@dataclass(frozen=True)
class Data:
    """What to learn from: `make(indices, generator)` builds a batch of some of the samples."""

    samples: int
    make: MakeBatch
    describe: Callable[[np.ndarray], list[str]]
    """Ids of samples, for the message when a loss is not finite."""
    workers: int = 0
    order: Order = epoch_order
    """In which order samples come."""


def process_group(precision: str) -> Accelerator:
    """accelerate's view of the processes; raises if it sees fewer of them than were started (each would train alone)."""
    cpu = not torch.cuda.is_available()
    if cpu and precision == "fp16":
        raise TrainingError("--precision fp16 needs a GPU; use bf16 or no")
    # Others wait while the main process saves or encodes the captions of a frozen encoder: NCCL's 10 minutes can be too short.
    patient = InitProcessGroupKwargs(timeout=timedelta(hours=1))
    accelerator = Accelerator(mixed_precision=precision, cpu=cpu, kwargs_handlers=[patient])
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != started:
        raise TrainingError(f"{started} processes were started and accelerate joined {accelerator.num_processes}")
    return accelerator


class Loop:
    """One training run in one run folder.

    `trainee.forward(batch)` gives the loss; `trainee.model` holds all that learns and is what is saved, resumed and ranked
    with: `save_model(folder)` must leave its weights in model.safetensors. `validate()` gives figures, of which the first chooses
    the best checkpoint. `rate(name)` is what a parameter's learning rate is multiplied with; `after_step` runs when weights have changed.
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
        supervisor: Supervisor | None = None,
        rate: Callable[[str], float] = lambda name: 1.0,
        after_step: Callable[[], None] = lambda: None,
    ) -> None:
        if data.samples < 1:
            raise TrainingError("there is nothing to learn from: the training split has no image-text pairs")
        outside = [name for name, _ in trainee.named_parameters() if not name.startswith("model.")]
        if outside:
            raise TrainingError(f"{outside[0]} is learned outside of trainee.model: it would not be saved")
        self.learning, self.data, self.accelerator, self.run_dir = learning, data, accelerator, run_dir
        self.steps = learning.total_steps(data.samples)
        share = Share(accelerator.process_index, accelerator.num_processes)
        self.batches = StepData(
            data.samples, learning.batch_size, learning.seed, share, learning.accumulate, data.make, data.order
        )
        self.save_model, self.validate, self.after_step = save_model, validate, after_step
        self.supervisor = supervisor or Nobody()
        self.model = cast(nn.Module, trainee.model)
        trainee.to(accelerator.device)
        optimizer = torch.optim.AdamW(_parameter_groups(trainee, learning.weight_decay, rate), lr=learning.learning_rate)
        self.trainee, self.optimizer = accelerator.prepare(trainee, optimizer)
        self.folder = run_dir / "checkpoints"
        self.state: dict[str, Any] = {"step": 0, "best": None, "losses": [], "plan": self._plan()}
        self._tracker: Tracker | None = None

    def run(self, wandb: bool, config: dict[str, Any]) -> dict[str, Any]:
        """Train to the end and return the best validation figures. Goes on from the newest whole checkpoint."""
        self._warm_up()
        self._resume()
        learning, main = self.learning, self.accelerator.is_main_process
        tracker = Tracker(self.run_dir, self.state["step"], wandb, config) if main else nullcontext()
        with tracker as self._tracker, Clock(self.state["step"], self.steps, main) as clock:
            for step, micro_batches in self._batches():
                self.supervisor.beat()
                loss, norm, asked = self._step(step, micro_batches)
                self.state["losses"].append(loss)
                self.state["step"] = done = step + 1
                clock.step(done, float(np.mean(self.state["losses"])))
                if done % LOG_EVERY == 0 or done == self.steps:
                    self._log(norm, clock.speed())
                validating = done % learning.validation_steps(self.data.samples) == 0 or done == self.steps
                if validating:
                    self._validate()
                if validating or asked or done % learning.save_every == 0:
                    on_main(self._save)
                if asked and done < self.steps:
                    self.supervisor.leave(asked)
                clock.go_on()
        return dict(self.state["best"])

    def _batches(self) -> Iterator[tuple[int, list[Batch]]]:
        left = range(self.state["step"], self.steps)
        loader = DataLoader(
            self.batches,
            batch_size=None,
            sampler=left,
            num_workers=self.data.workers,
            worker_init_fn=outlive_sigterm,
            pin_memory=self.accelerator.device.type == "cuda",
        )
        return zip(left, loader, strict=True)

    def _step(self, step: int, micro_batches: list[Batch]) -> tuple[float, float, int]:
        """One optimizer step. Returns the mean loss over all processes, the gradient norm, and whether any process was asked to stop."""
        learning, accelerator = self.learning, self.accelerator
        for group in self.optimizer.param_groups:
            group["lr"] = learning.rate(step, self.steps) * group["factor"]
        torch.manual_seed(int(np.random.SeedSequence([learning.seed, step, accelerator.process_index]).generate_state(1)[0]))
        self.trainee.train()
        mine = torch.empty(len(micro_batches) + 1, device=accelerator.device)
        mine[-1] = self.supervisor.asked_to_stop()
        for number, batch in enumerate(micro_batches):
            last = number == len(micro_batches) - 1
            with nullcontext() if last else accelerator.no_sync(self.trainee):
                loss = self._loss(batch)
                mine[number] = loss.detach()
                accelerator.backward(loss / len(micro_batches))
        everybodys = accelerator.gather(mine).view(-1, len(mine))
        losses = everybodys[:, :-1].flatten().tolist()
        norm = float(accelerator.clip_grad_norm_(self.trainee.parameters(), learning.clip or math.inf))
        self._check_finite(step, losses, norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.after_step()
        return sum(losses) / len(losses), norm, int(everybodys[:, -1].max())

    def _loss(self, batch: Batch) -> Tensor:
        # accelerate runs the trainee's forward under autocast.
        loss: Tensor = self.trainee({key: value.to(self.accelerator.device, non_blocking=True) for key, value in batch.items()})
        return loss

    def _check_finite(self, step: int, losses: list[float], norm: float) -> None:
        """Stop before the optimizer spoils the weights. Every process sees the same losses and norm, so all stop together."""
        bad = [number for number, loss in enumerate(losses) if not math.isfinite(loss)]
        if not bad and (math.isfinite(norm) or self.accelerator.scaler is not None):  # fp16: the scaler skips the step
            return
        parts = self.batches.parts(step)
        samples = np.concatenate([parts[number] for number in bad] if bad else parts)
        what = f"loss {losses[bad[0]]}" if bad else f"gradient norm {norm}"
        raise TrainingError(
            f"{what} at step {step + 1}, learning rate {self.learning.rate(step, self.steps):.3g}; samples: "
            f"{', '.join(self.data.describe(samples))}. The last checkpoint is whole; try a lower --learning-rate or --precision no"
        )

    def _log(self, norm: float, speed: float) -> None:
        losses, step = self.state["losses"], self.state["step"]
        self.state["losses"] = []
        row = {
            "step": step,
            "epoch": round(step * self.learning.batch_size / self.data.samples, 4),
            "loss": sum(losses) / len(losses),
            "learning_rate": self.learning.rate(step - 1, self.steps),
            "gradient_norm": norm if math.isfinite(norm) else None,
            "samples_per_second": round(speed * self.learning.batch_size, 2),
        }
        if self._tracker is not None:
            self._tracker.log(row)

    def _validate(self) -> None:
        self.trainee.eval()
        with torch.no_grad():
            figures = self.validate()
        row = {"step": self.state["step"], "validation": figures}
        name, value = next(iter(figures.items()))
        if self.state["best"] is None or value > self.state["best"]["validation"][name]:
            self.state["best"] = row
        if self._tracker is not None:
            self._tracker.log(row)
            best = self.state["best"]["validation"][name]
            print(f"step {row['step']}: validation {name} {value:.1f} (best {best:.1f})", flush=True)

    def _save(self) -> None:
        """In the main process alone: on one machine or many, the weights are the same everywhere."""
        self.supervisor.check()
        if self._tracker is not None:
            self._tracker.flush()
        step, best = self.state["step"], self._best_step()
        checkpoints.save_checkpoint(self.folder, step, self._write)
        self.supervisor.check()  # writing may have taken minutes
        checkpoints.point(self.folder, step, best)
        checkpoints.prune(self.folder, step, best)
        self.supervisor.saved(step)

    def _write(self, folder: Path) -> None:
        self.save_model(folder)
        for name, part in (("optimizer", self.optimizer), ("scaler", self.accelerator.scaler)):
            if part is not None:
                with (folder / f"{name}.pt").open("wb") as file:  # given a path, torch.save hides why it fails
                    torch.save(part.state_dict(), file)
        (folder / "training.json").write_text(json.dumps(self.state))
        self.supervisor.check()

    def _plan(self) -> dict[str, Any]:
        """What must not change between a checkpoint and its resumption: all that changes a number."""
        same = {field.name: getattr(self.learning, field.name) for field in fields(Learning)}
        del same["save_every"], same["wandb"]
        return {"samples": self.data.samples, **same}

    def _resume(self) -> None:
        found = on_main(lambda: checkpoints.newest(self.folder))
        if found is None:
            return
        state = json.loads((found / "training.json").read_text())
        now = self.state["plan"]
        differ = [f"{key} {then} there and {now.get(key)} here" for key, then in state["plan"].items() if then != now.get(key)]
        if differ:
            raise TrainingError(f"{found}: saved by a run with other options ({', '.join(differ)}); choose another --name")
        self.model.load_state_dict(load_file(found / "model.safetensors"))
        for name, part in (("optimizer", self.optimizer), ("scaler", self.accelerator.scaler)):
            if part is not None:
                part.load_state_dict(torch.load(found / f"{name}.pt", weights_only=True, map_location="cpu"))
        self.state = state
        best = self._best_step()
        if best is not None and not checkpoints.checkpoint_at(self.folder, best).exists():
            self.state["best"] = None  # it went when a newer one, damaged since, took its place
        on_main(lambda: checkpoints.point(self.folder, state["step"], self._best_step()))
        self.accelerator.print(f"going on at step {state['step']} of {self.steps} from {found}", flush=True)

    def _best_step(self) -> int | None:
        return self.state["best"] and self.state["best"]["step"]

    def _warm_up(self) -> None:
        """DDP adds gradients up in another order from its second pass on: spend one, so that a resumed run adds as the unbroken one."""
        if self.accelerator.num_processes > 1:
            self.trainee.eval()
            self.accelerator.backward(self._loss(self.batches[0][0]))
            self.optimizer.zero_grad()


def _parameter_groups(module: nn.Module, weight_decay: float, rate: Callable[[str], float]) -> list[dict[str, Any]]:
    """Weight decay for matrices only: biases and LayerNorm weights are left alone, as BERT's own training does."""
    groups: dict[tuple[bool, float], list[Tensor]] = {(True, 1.0): [], (False, 1.0): []}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((parameter.ndim >= 2, rate(name)), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": weight_decay if matrices else 0.0, "factor": factor}
        for (matrices, factor), parameters in groups.items()
    ]
