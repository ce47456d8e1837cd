"""Batches, gradients over processes, the moving average, feedback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from real_processes import in_processes
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from corpora.corpus import Corpus
from corpora.synthetic import make_scenes
from models import swin
from models.image_trunk import load_trunk
from models.swin import Shape
from models.swin_feedback import FeedbackBatches, open_feedback
from models.swin_training import ClassBatches, Learner, SwinTrainee
from training.class_losses import ClassLoss
from training.class_objective import ClassObjective
from training.feedback import FeedbackError, FeedbackTriplets
from training.processes import rank, size
from training.sampling import Share

IDS = [str(i) for i in range(6)]
LABELS = np.array([0, 0, 1, 1, 2, 2])
SAMPLES = np.array([0, 1, 2, 3, 5, 4, 1, 0, 3, 3, 4, 5])
FEEDBACK = FeedbackTriplets({"0": {"1": True, "2": False}, "3": {"5": True, "4": False}}, dict(zip(IDS, "aabbcc", strict=True)))


def batches(pictures, how: str = "crop") -> ClassBatches:
    return ClassBatches(IDS, LABELS, pictures, load_trunk("scratch", False, 24).prepare, how)


def learner(pictures, average: float = 0.0, **options: Any) -> Learner:
    torch.manual_seed(0)
    encoder, _ = swin.from_trunk(load_trunk("scratch", False, 24), Shape(projection=8), pictures)
    return Learner(encoder, ClassLoss(ClassObjective(**options), 8, 3, True), average)


def test_a_picture_is_changed_alike_whatever_its_company(pictures):
    make = batches(pictures)
    whole = make.batch(SAMPLES, np.random.default_rng(4))
    half = make.batch(SAMPLES[6:], np.random.default_rng(4))
    assert torch.equal(whole["pixel_values"][6:], half["pixel_values"])
    assert whole["labels"].tolist() == LABELS[SAMPLES].tolist() and whole["images"].tolist() == SAMPLES.tolist()
    assert torch.equal(whole["pixel_values"][0], whole["pixel_values"][7])  # image 0 twice in a step
    other = make.batch(SAMPLES, np.random.default_rng(5))
    assert not torch.equal(whole["pixel_values"], other["pixel_values"])
    assert make.describe(SAMPLES[:2]) == ["0", "1"]


def test_unchanged_pictures_are_those_of_the_store(pictures):
    trunk = load_trunk("scratch", False, 24)
    made = batches(pictures, "none").batch(np.array([4]), np.random.default_rng(0))["pixel_values"]
    assert torch.equal(made, trunk.prepare([pictures.picture("4")]))


@pytest.mark.parametrize(
    "options",
    [
        {"mining": "hard", "margin": 1.0},
        {"sampler": "triplets", "mining": "none", "margin": 1.0},
        {"loss": "multi-similarity", "mining": "multi-similarity", "memory": 20},
        {"loss": "proxy-anchor", "mining": "none"},
        {"loss": "arcface", "mining": "none"},
    ],
)
def test_two_processes_learn_what_one_learns(tmp_path: Path, pictures, options):
    """Two steps' losses and gradients, with feedback; the second step sees the memory of the first."""

    def gradients() -> dict[str, Tensor]:
        trainee = SwinTrainee(learner(pictures, **options))
        share = Share(rank(), size())
        make = FeedbackBatches(batches(pictures), FEEDBACK, 4, share)
        ready = DistributedDataParallel(trainee) if size() > 1 else trainee
        for step in range(2):
            loss = ready(make.batch(np.split(SAMPLES, size())[rank()], np.random.default_rng([1, step])))
            loss.backward()
        left = {name: one.grad for name, one in trainee.named_parameters() if one.grad is not None}
        return {**left, "loss": loss.detach()}

    def one_of_two() -> None:
        dist.init_process_group("gloo")
        torch.save(gradients(), tmp_path / f"{dist.get_rank()}.pt")

    assert in_processes(2, one_of_two) == [0, 0]
    first, second = (torch.load(tmp_path / f"{process}.pt", weights_only=True) for process in range(2))
    wanted = gradients()
    largest = max(one.abs().max().item() for one in wanted.values())
    assert largest > 1e-3 and first.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(first[name], second[name], atol=1e-6, rtol=0)
        torch.testing.assert_close(first[name], gradient, atol=5e-6 * max(1, largest), rtol=1e-5)


def test_the_feedback_is_added_as_triplets(pictures):
    """One forward pass; its loss is that of the classes plus that of the triplets."""
    model, make = learner(pictures, margin=0.7), batches(pictures, "none")
    both = FeedbackBatches(make, FEEDBACK, 4, Share()).batch(SAMPLES, np.random.default_rng(2))
    assert both["pixel_values"].shape[0] == len(SAMPLES) + 12 and len(both["labels"]) == len(SAMPLES)
    alone = make.batch(SAMPLES, np.random.default_rng(2))
    model.eval()
    with torch.no_grad():
        (vectors,) = model.encoder.encode_images({"pixel_values": both["pixel_values"][len(SAMPLES) :]})
        query, good, bad = vectors[0::3], vectors[1::3], vectors[2::3]
        hinge = ((query - good).norm(dim=1) - (query - bad).norm(dim=1) + 0.7).clamp(min=0).mean()
        added = SwinTrainee(model).eval()(both) - SwinTrainee(model).eval()(alone)
    assert hinge > 0 and added.item() == pytest.approx(hinge.item(), abs=1e-4)


def test_feedback_must_divide_among_processes(pictures):
    with pytest.raises(ValueError, match="--feedback-triplets 5: must be a multiple of the 2 processes"):
        FeedbackBatches(batches(pictures), FEEDBACK, 5, Share(0, 2))


def test_the_average_follows_the_weights(pictures):
    model = learner(pictures, average=0.75)
    before = model.encoder.head.weight.detach().clone()
    with torch.no_grad():
        model.encoder.head.weight += 1
    model.follow()
    torch.testing.assert_close(model.average.head.weight, before + 0.25)
    model.follow()
    torch.testing.assert_close(model.average.head.weight, before + 0.25 + 0.75 * 0.25)
    assert model.searched is model.average and not model.average.head.weight.requires_grad
    assert learner(pictures).searched is not None


def test_rates_are_named_as_the_loop_names_them(pictures):
    model = learner(pictures, loss="arcface", mining="none")
    rates = model.rates(0.5, 30.0)
    names = {name for name, _ in SwinTrainee(model).named_parameters()}
    assert rates.keys() <= names
    assert (
        {name for name, rate in rates.items() if rate == 30}
        == {name for name in names if name.startswith("model.loss.")}
        != set()
    )
    assert {name for name in names if name not in rates} == {"model.encoder.head.weight", "model.encoder.head.bias"}
    assert min(rates.values()) < 0.5


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    folder = tmp_path_factory.mktemp("corpus") / "scenes"
    make_scenes(folder, {"train": 4, "val": 2, "test": 4}, size=32)
    return Corpus(folder)


def write(path: Path, pairs: list[tuple[str, str, bool]]) -> Path:
    path.write_text("\n".join(json.dumps({"query": q, "item": i, "relevant": r}) for q, i, r in pairs))
    return path


def test_feedback_of_any_split_but_the_validation_split(tmp_path, corpus):
    train, test, val = (corpus.split(name) for name in ("train", "test", "val"))
    pairs = [(one, other, n % 2 == 0) for one in test.image_ids for n, other in enumerate(train.image_ids)]
    feedback = open_feedback(write(tmp_path / "f.jsonl", pairs), corpus, train, "val")
    assert set(feedback.judged.image_ids) == {*train.image_ids, *test.image_ids}
    sources = dict(zip((*train.image_ids, *test.image_ids), (*train.sources, *test.sources), strict=True))
    assert dict(zip(feedback.judged.image_ids, feedback.judged.sources, strict=True)) == sources
    assert feedback.triplets.queries + len(feedback.held_out) == 4 and f"{len(feedback.held_out)} held out" in str(feedback)
    with pytest.raises(FeedbackError, match=f"1 of 2 images are not in .* outside of split val, the first: '{val.image_ids[0]}'"):
        open_feedback(write(tmp_path / "g.jsonl", [(test.image_ids[0], val.image_ids[0], True)]), corpus, train, "val")
