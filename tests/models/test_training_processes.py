"""One, two and four processes that share the same batches learn the same: tiny models in the real loop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from real_processes import in_processes
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from models import clip, lxmert
from models.clip import ClipShape
from models.clip_training import ClipPairs, ClipTrainee
from models.lxmert import Lxmert, LxmertInputs
from models.lxmert_training import LxmertPairs, LxmertTrainee, freeze
from training import loop
from training.learning import Learning
from training.loop import Data, Loop, process_group
from training.processes import rank, size
from training.sampling import step_samples
from training.tracking import read_history

STEPS = 4
OWNERS = [{text % 6} for text in range(14)] + [{0, 1}, {2, 5}]
"""Of six images: by chance many pairs of a batch are relevant."""

FREE = ("key.bias", "k_proj.bias", "cls.2.bias", "cls.3.bias")
"""What a softmax does not see, so the gradient is 0 and Adam makes steps of its rounding: the biases of keys and, where
scores are only compared, those behind the head's last nonlinearity."""

Parts = tuple[Any, Any, Callable[[Path], None]]
"""Trainee, pairs, how to save the model."""


@pytest.fixture
def build(make_split, pictures, regions, tokenizer, lxmert_config) -> Callable[..., Parts]:
    def build_clip(split, cache: Path, **options: Any) -> Parts:
        shape = ClipShape(image_size=32, patch=16, width=16, layers=1, heads=2, projection=8)
        model, inputs = clip.from_scratch(shape, pictures, tokenizer)
        return ClipTrainee(model, **options), ClipPairs(split, inputs), lambda folder: clip.save(model, inputs, folder)

    def build_lxmert(
        split, cache: Path, formulation: str, share: float | None = None, frozen: bool = False, **options: Any
    ) -> Parts:
        model, inputs = Lxmert(lxmert_config()), LxmertInputs(tokenizer, regions, 512)
        states = freeze(model, inputs, split, cache) if frozen else None
        pairs = LxmertPairs(split, inputs, states, formulation, share)
        return LxmertTrainee(model, formulation, **options), pairs, lambda folder: lxmert.save(model, inputs, folder)

    def build(system: str, cache: Path, split: Any = None, **options: Any) -> Parts:
        torch.manual_seed(0)
        split = split or make_split(6, OWNERS)
        if system == "clip":
            return build_clip(split, cache, **options)
        return build_lxmert(split, cache, system, **options)

    return build


def train(build: Callable[[Path], Parts], batch_size: int, run_dir: Path) -> None:
    """Train in this process; what it has drawn is left beside the checkpoints."""
    accelerator = process_group("no")
    loop.LOG_EVERY = 1
    trainee, pairs, save = build(run_dir / "cache")
    order = []

    def batch(samples: np.ndarray, generator: np.random.Generator) -> dict[str, Tensor]:
        order.append(samples)
        return pairs.batch(samples, generator)

    learning = Learning(batch_size=batch_size, steps=STEPS, learning_rate=1e-3, warmup=0, decay="none")
    data = Data(18, batch, pairs.describe)
    Loop(trainee, data, learning, run_dir, accelerator, save, lambda: {"rsum": 0.0}).run(False, {})
    np.save(run_dir / f"order-{rank()}.npy", np.stack(order[-STEPS:]))  # the first are those of the warm-up


@pytest.mark.parametrize(
    "system, batch, options",
    [
        ("clip", 8, {}),
        ("binary", 8, {}),
        ("binary", 8, {"share": 0.4}),
        ("contrastive", 8, {}),
        ("contrastive", 8, {"negatives": 3}),
        ("contrastive", 8, {"negatives": 3, "frozen": True}),
        ("contrastive", 8, {"negatives": 3, "chunk": 3}),
        ("contrastive", 4, {"negatives": 2}),  # one pair a process
    ],
)
def test_any_number_of_processes_learns_the_same(tmp_path, build, system: str, batch: int, options: dict[str, Any]):
    samples = [step_samples(18, batch, 42, step) for step in range(STEPS)]
    for number in (1, 2, 4):
        run_dir = tmp_path / str(number)
        action = lambda folder=run_dir: train(lambda cache: build(system, cache, **options), batch, folder)  # noqa: E731
        assert in_processes(number, action) == [0] * number
        parts = [np.load(run_dir / f"order-{process}.npy") for process in range(number)]
        np.testing.assert_array_equal(np.concatenate(parts, axis=1), samples)
        same_learning(run_dir, tmp_path / "1")


def same_learning(run_dir: Path, expected: Path) -> None:
    rows, others = (read_history(folder / "metrics.jsonl") for folder in (run_dir, expected))
    steps = [(row, other) for row, other in zip(rows, others, strict=True) if "loss" in row]
    assert len(steps) == STEPS
    for row, other in steps:
        assert row["loss"] == pytest.approx(other["loss"], abs=5e-6)
        assert row["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=2e-4)
    weights, wanted = (load_file(folder / "checkpoints/last/model.safetensors") for folder in (run_dir, expected))
    for name in [name for name in wanted if not name.endswith(FREE)]:
        # Not element by element: where a gradient is nearly 0, Adam makes a step of its rounding.
        assert (weights[name] - wanted[name]).norm() < 2e-3, name


def gradients(build: Callable[[], Parts], samples: np.ndarray, precision: str) -> dict[str, Tensor]:
    """Of this process's part of a batch, as DistributedDataParallel leaves them, with the loss."""
    trainee, pairs, _ = build()
    learner = DistributedDataParallel(trainee) if size() > 1 else trainee
    part = np.split(samples, size())[rank()]
    with torch.autocast("cpu", enabled=precision == "bf16"):
        loss = learner(pairs.batch(part, np.random.default_rng(0)))
    loss.backward()
    left = {name: parameter.grad for name, parameter in trainee.named_parameters() if parameter.requires_grad}
    return {**left, "loss": loss.detach()}


@pytest.mark.parametrize(
    "system, options, precision",
    [
        ("clip", {}, "no"),
        ("clip", {"chunk": 2}, "no"),
        ("clip", {"chunk": 2}, "bf16"),
        ("binary", {}, "no"),
        ("contrastive", {}, "no"),
        ("contrastive", {"negatives": 2, "chunk": 4}, "no"),
        ("contrastive", {"negatives": 2, "chunk": 4}, "bf16"),
        ("contrastive", {"negatives": 2, "loss": "hinge", "margin": 2.0}, "no"),
    ],
)
def test_gradients_of_two_processes_are_those_of_one(tmp_path, build, system: str, options: dict[str, Any], precision: str):
    samples = np.array([0, 3, 4, 1, 5, 2, 17, 9])
    make = lambda: build(system, tmp_path / "cache", **options)  # noqa: E731

    def one_of_two() -> None:
        dist.init_process_group("gloo")
        torch.save(gradients(make, samples, precision), tmp_path / f"{dist.get_rank()}.pt")

    assert in_processes(2, one_of_two) == [0, 0]
    first, second = (torch.load(tmp_path / f"{process}.pt", weights_only=True) for process in range(2))
    wanted = gradients(make, samples, precision)
    losses = [part.pop("loss").item() for part in (first, second, wanted)]
    assert (losses[0] + losses[1]) / 2 == pytest.approx(losses[2], abs=1e-5 if precision == "no" else 2e-2)
    assert losses[0] == losses[1] or system != "contrastive"
    largest = max(gradient.abs().max().item() for gradient in wanted.values())
    assert largest > 1e-2 and first.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert torch.equal(first[name], second[name])
        tolerance = 2e-6 if precision == "no" else 2e-2
        torch.testing.assert_close(first[name], gradient, atol=tolerance * max(1, largest), rtol=0)


@pytest.mark.parametrize("negatives, chunk", [(0, 0), (3, 0), (3, 3)])
def test_each_pair_goes_through_the_cross_layers_once(tmp_path, build, make_split, captions, negatives: int, chunk: int):
    """Over all processes; and which pairs they are does not depend on the number of processes."""
    split = make_split(8, [{text} for text in range(8)], [*captions, "a cat", "a cat on a horse"])

    def score(folder: Path) -> None:
        if folder.name != "1":
            dist.init_process_group("gloo")
        trainee, pairs, _ = build("contrastive", tmp_path, split, negatives=negatives, chunk=chunk)
        part = np.split(np.array([6, 2, 0, 3, 7, 5, 1, 4]), size())[rank()]
        np.save(folder / f"{rank()}.npy", scored_pairs(trainee, pairs, part, split))

    scored = []
    for number in (1, 2, 4):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert in_processes(number, lambda folder=folder: score(folder)) == [0] * number
        scored.append(Counter(tuple(pair) for part in folder.iterdir() for pair in np.load(part).tolist()))
    candidates = 1 + (negatives or 7)
    assert len(scored[0]) == scored[0].total() == 8 * candidates
    assert Counter(image for image, _ in scored[0]) == dict.fromkeys(range(8), candidates)
    assert scored[0] == scored[1] == scored[2]


def scored_pairs(trainee: LxmertTrainee, pairs: LxmertPairs, part: np.ndarray, split: Any) -> np.ndarray:
    """(P, 2) image and text of each pair that a part of a batch scores, told by their states."""
    model, scored, pooled = trainee.model, [], []
    model.lxmert.pooler.register_forward_hook(lambda module, given, result: pooled.append(len(result)))
    images, texts = pairs._inputs.images(split.image_ids), pairs._inputs.texts(split.texts)
    known = [encode(items)[0][:, 0].detach() for encode, items in ((model.encode_images, images), (model.encode_texts, texts))]
    score_pairs = model.score_pairs

    def noting(images: Any, texts: Any, image: Tensor, text: Tensor) -> Tensor:
        assert len(images[0]) <= len(image) and len(texts[0]) <= len(image)  # none is projected for nothing
        states = images[0][image, 0], texts[0][text, 0]
        scored.append(torch.stack([torch.cdist(state, all_).argmin(1) for state, all_ in zip(states, known, strict=True)], 1))
        return score_pairs(images, texts, image, text)

    model.score_pairs = noting
    with torch.no_grad():
        trainee(pairs.batch(part, np.random.default_rng(0)))
    assert sum(pooled) == sum(map(len, scored))
    return torch.cat(scored).numpy()
