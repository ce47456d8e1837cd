"""TERN in the training loop: losses over any number of processes, frozen towers, and what an evaluation encodes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
import torch.distributed as dist
from real_processes import in_processes
from torch.nn.parallel import DistributedDataParallel

from models import tern
from models.tern import TernInputs, TernShape
from models.tern_training import TernPairs, TernTrainee, freeze_text
from models.text_tower import load_text_tower
from ranking.engine import Engine
from ranking.matrix import Provenance
from ranking.predict import validation_figures
from training.objective import Objective
from training.processes import rank, size
from training.supervision import Nobody

SHAPE = TernShape(
    "paper", width=16, vision_layers=1, text_layers=1, shared_layers=1, embedding=12, heads=2, feed_forward=24, dropout=0.0
)
OWNERS = [{text % 6} for text in range(14)] + [{0, 1}, {2, 5}]
"""Of six images: by chance many pairs of a batch are relevant."""
LOSSES = [
    {"loss": "hinge"},
    {"loss": "hinge", "top_k_violations": 0, "reduction": "mean"},
    {"loss": "infonce"},
    {"loss": "contrastive"},
    {"loss": "triplet", "margin": 1.0},
    {"loss": "nt-xent", "miner": "multi-similarity"},
]


@pytest.fixture
def build(regions, captions, make_split):
    def build(shape: TernShape = SHAPE, frozen: bool = False, **options):
        torch.manual_seed(0)
        model, inputs = tern.from_scratch(shape, regions, load_text_tower("scratch", texts=captions, frozen=frozen))
        split = make_split(6, OWNERS)
        return TernTrainee(model, Objective(**options)), TernPairs(split, inputs), inputs, split

    return build


def gradients(build, samples: np.ndarray, options: dict) -> dict[str, torch.Tensor]:
    """Of this process's part of a batch, as DistributedDataParallel leaves them, with the loss."""
    trainee, pairs, _, _ = build(**options)
    trainee.eval()  # the text tower has dropout
    learner = DistributedDataParallel(trainee) if size() > 1 else trainee
    loss = learner(pairs.batch(np.split(samples, size())[rank()], np.random.default_rng(0)))
    loss.backward()
    left = {name: parameter.grad for name, parameter in trainee.named_parameters() if parameter.requires_grad}
    return {**left, "loss": loss.detach()}


@pytest.mark.parametrize("options", LOSSES, ids=str)
def test_two_processes_learn_what_one_learns(tmp_path, build, options):
    samples = np.array([0, 3, 4, 1, 5, 2, 17, 9])

    def one_of_two() -> None:
        dist.init_process_group("gloo")
        torch.save(gradients(build, samples, options), tmp_path / f"{dist.get_rank()}.pt")

    assert in_processes(2, one_of_two) == [0, 0]
    first, second = (torch.load(tmp_path / f"{process}.pt", weights_only=True) for process in range(2))
    wanted = gradients(build, samples, options)
    assert first.keys() == wanted.keys()
    largest = max(gradient.abs().max().item() for gradient in wanted.values())
    assert largest > 1e-2
    for name, gradient in wanted.items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], gradient, atol=5e-6 * max(1, largest), rtol=0)


@pytest.mark.parametrize("options", LOSSES, ids=str)
def test_what_fits_is_no_negative(build, options):
    """Captions of one image, and one that describes two: as the loss of the vectors under what the split tells."""
    trainee, pairs, _, split = build(**options)
    samples = np.array([0, 3, 4, 1, 5, 2, 17, 9])
    images, texts = split.pairs[samples].T
    fits = torch.tensor([[image in OWNERS[text] for text in texts] for image in images])
    assert fits.sum() > len(samples)
    trainee.eval()
    batch = pairs.batch(samples, np.random.default_rng(0))
    (image_BE,), (text_BE,) = trainee.model.encode_images(batch), trainee.model.encode_texts(batch)
    wanted = trainee._loss(image_BE, text_BE, torch.from_numpy(images), fits)
    torch.testing.assert_close(trainee(batch), wanted)
    assert trainee._loss(image_BE, text_BE, torch.arange(8), torch.eye(8, dtype=torch.bool)) != wanted


@pytest.mark.parametrize("shape", [
    SHAPE,
    TernShape("flickr", "add", 16, 1, 0, 0, False, 12, 2, 24, 0.0, 2, "mean", "gru"),
    TernShape("paper", "concat", 16, 1, 1, 1, True, 12, 2, 24, 0.0, 0, "encoder", "gated"),
    TernShape("paper", "add", 16, 1, 1, 1, True, 12, 2, 24, 0.0, 0, "sum-mlp", "encoder"),
    TernShape("paper", "add", 16, 1, 1, 1, False, 12, 2, 24, 0.0, 0, "encoder", "encoder"),
    TernShape("paper", "add", 16, 1, 1, 1, False, 12, 2, 24, 0.0, 0, "sum", "encoder", "order"),
], ids=lambda shape: f"{shape.variant}-{shape.image_aggregation}-{shape.text_aggregation}")  # fmt: skip
def test_what_learns_gets_a_gradient_and_what_is_frozen_none(build, shape):
    trainee, pairs, _, _ = build(shape)
    trainee.train()(pairs.batch(np.arange(6), np.random.default_rng(0))).backward()
    learns = {name for name, parameter in trainee.named_parameters() if parameter.requires_grad}
    moved = {name for name, parameter in trainee.named_parameters() if parameter.grad is not None}
    assert learns == moved and len(learns) > 20


def test_chunks_give_the_same_gradients(build):
    found = []
    for chunk in (0, 3):
        trainee, pairs, _, _ = build()
        trainee._chunk = chunk
        trainee.eval()(pairs.batch(np.arange(8), np.random.default_rng(0))).backward()
        found.append(torch.cat([p.grad.flatten() for p in trainee.parameters() if p.grad is not None]))
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-4)


def test_one_caption_of_every_image_drawn_anew_and_the_same_in_any_process(build):
    _, pairs, inputs, split = build()
    drawn = TernPairs(split, inputs, one_caption=True)
    assert (drawn.samples, pairs.samples) == (6, 18)
    epochs = [drawn.batch(np.arange(6), np.random.default_rng([42, step])) for step in range(8)]
    for batch in epochs:
        assert batch["own_image"].tolist() == list(range(6))
        assert all(image in OWNERS[text] for image, text in enumerate(batch["own_text"].tolist()))
    assert len({tuple(batch["own_text"].tolist()) for batch in epochs}) > 4
    part = drawn.batch(np.array([4, 5]), np.random.default_rng([42, 3]))
    assert part["own_text"].tolist() == epochs[3]["own_text"].tolist()[4:]
    assert drawn.describe(np.array([2])) == ["2"] and pairs.describe(np.array([0])) == ["c0"]


# Frozen towers


def test_a_frozen_tower_is_read_once_for_the_life_of_a_run_folder(tmp_path, build, monkeypatch):
    trainee, _, inputs, split = build(frozen=True)
    model = trainee.model
    features = freeze_text(model, "scratch", [split, split], tmp_path, Nobody())
    weights = [parameter.clone() for parameter in model.text.parameters()]
    read = TernInputs(inputs.regions, features)
    live, cached = (TernPairs(split, i).batch(np.arange(8), np.random.default_rng(0)) for i in (inputs, read))
    trainee.eval()
    assert trainee(live).item() == pytest.approx(trainee(cached).item(), abs=1e-4)
    monkeypatch.setattr(model.text, "forward", lambda batch: pytest.fail("encoded again"))
    freeze_text(model, "scratch", [split, split], tmp_path, Nobody())
    optimizer = torch.optim.AdamW(trainee.parameters(), 0.1)
    trainee.train()(cached).backward()
    optimizer.step()
    assert not model.text.training
    assert all(torch.equal(*pair) for pair in zip(weights, model.text.parameters(), strict=True))


def test_features_of_other_weights_are_not_taken(tmp_path, build):
    trainee, _, _, split = build(frozen=True)
    before = freeze_text(trainee.model, "scratch", [split], tmp_path, Nobody())(split.texts[:1])["states"]
    with torch.no_grad():
        next(trainee.model.text.parameters()).add_(1)
    after = freeze_text(trainee.model, "scratch", [split], tmp_path, Nobody())(split.texts[:1])["states"]
    assert not torch.equal(before, after)


def test_a_tower_that_learns_has_no_features(tmp_path, build):
    trainee, _, _, split = build(frozen=False)
    with pytest.raises(ValueError, match="only a frozen text tower"):
        freeze_text(trainee.model, "scratch", [split], tmp_path, Nobody())


# Evaluation


@pytest.fixture
def engine(build):
    trainee, _, inputs, split = build()
    return Engine(trainee.model, inputs, split, pair_batch=1 << 20)


def test_an_evaluation_encodes_each_image_and_each_caption_once(engine, monkeypatch, make_split, regions):
    """The original encoded an image once for each of its captions."""
    seen: dict[str, Counter] = {"images": Counter(), "texts": Counter()}
    inputs, model = engine.inputs, engine.model
    for name in seen:
        plain = getattr(type(inputs), name)
        monkeypatch.setattr(type(inputs), name, lambda self, ids, n=name, f=plain: (seen[n].update(ids), f(self, ids))[1])
    rows: Counter = Counter()
    for name in ("encode_images", "encode_texts"):
        plain = getattr(model, name)
        monkeypatch.setattr(
            model, name, lambda batch, n=name, f=plain: (rows.update({n: len(next(iter(batch.values())))}), f(batch))[1]
        )
    validation_figures(engine)
    assert seen["images"] == Counter(engine.split.image_ids) and seen["texts"] == Counter(engine.split.texts)
    assert rows == {"encode_images": len(engine.split.image_ids), "encode_texts": len(engine.split.texts)}


def test_one_direction_leaves_no_trace_in_the_other(engine):
    """The re-implementation's accumulators were not reset: its text-to-image figures were those of both directions together."""
    figures = validation_figures(engine)
    again = validation_figures(engine)
    assert figures == again
    ranking = engine.rank_in_memory(Provenance("", "", "", "train", engine.split.digest, ""))
    scores = ranking.rows(0, 6)
    own = np.zeros(scores.shape, bool)
    own[tuple(engine.split.pairs.T)] = True
    for way, matrix, relevant in (("i2t", scores, own), ("t2i", scores.T, own.T)):
        best = np.where(relevant, matrix, -np.inf).max(1, keepdims=True)
        ranks = ((matrix >= best) & ~relevant).sum(1)  # 0 is the first place
        for k in (1, 5, 10):
            assert figures[f"{way}_R@{k}"] == pytest.approx(100 * np.mean(ranks < k))
    both = np.mean([figures["i2t_R@1"], figures["t2i_R@1"]])
    assert figures["t2i_R@1"] != pytest.approx(both)
