from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from real_processes import in_processes
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from jobs import guided_train
from launch.options import parse
from models import guided
from models.guided import DualEncoder
from models.guided_training import TEXT_SIDE, GuidedTrainee
from models.image_trunk import load_trunk
from models.text_tower import load_text_tower
from models.tower_inputs import TowerPairs
from training.pairs import PairSet
from training.processes import rank, size
from training.sampling import step_samples


class Given(nn.Module):
    """A dual encoder whose unit vectors are given with the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))

    def encode_images(self, batch):
        return (batch["image_vectors"] + self.nothing,)

    def encode_texts(self, batch):
        return (batch["text_vectors"],)

    score = DualEncoder.score


def batch(pairs: list[tuple[int, int]], images: torch.Tensor, texts: torch.Tensor) -> dict[str, torch.Tensor]:
    """Row p holds image and text of pair p."""
    indices = np.array(pairs)
    known = PairSet(indices, int(indices[:, 0].max()) + 1, int(indices[:, 1].max()) + 1).known(np.arange(len(pairs)))
    vectors = {"image_vectors": images[indices[:, 0]], "text_vectors": texts[indices[:, 1]]}
    return vectors | {key: torch.from_numpy(value) for key, value in known.items()}


def loss(data: dict[str, torch.Tensor], temperature: float = 1.0, symmetric: bool = False) -> float:
    return GuidedTrainee(Given(), temperature, symmetric)(data).item()


def unit(rows: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(rows, 6, generator=torch.Generator().manual_seed(seed)), dim=1)


PAIRS = [(0, 0), (0, 1), (1, 2), (2, 3)]
"""Image 0 with two captions."""


def test_the_published_loss_for_each_text_leaves_images_of_its_own_id_out():
    images, texts = unit(3, 0), unit(4, 1)
    s = (images @ texts.T).double()
    terms = []
    for image, text in PAIRS:
        others = [s[other, text].exp() for other, _ in PAIRS if other != image]
        terms.append(-torch.log(s[image, text].exp() / (s[image, text].exp() + sum(others))))
    assert loss(batch(PAIRS, images, texts)) == pytest.approx(torch.stack(terms).mean().item(), abs=1e-6)


def test_symmetric_is_the_mean_with_each_images_texts():
    images, texts = unit(3, 0), unit(4, 1)
    s = (images @ texts.T).double() / 0.07
    terms = []
    for image, text in PAIRS:
        others = [s[image, other].exp() for of, other in PAIRS if of != image]
        terms.append(-torch.log(s[image, text].exp() / (s[image, text].exp() + sum(others))))
    data = batch(PAIRS, images, texts)
    both = (loss(data, 0.07) + torch.stack(terms).mean().item()) / 2
    assert loss(data, 0.07, symmetric=True) == pytest.approx(both, abs=1e-5)


def test_without_a_temperature_the_loss_can_hardly_fall():
    """128 pairs: 4.85 when all cosines are equal, 2.90 when all are perfect, as in the original; a temperature frees it."""
    pairs = [(i, i) for i in range(128)]
    same = F.normalize(torch.ones(128, 6), dim=1)
    assert loss(batch(pairs, same, same)) == pytest.approx(4.852, abs=1e-3)
    best = math.log(1 + 127 * math.exp(-2))  # own cosine 1, all others -1, which cannot be, but bounds what can
    assert best == pytest.approx(2.90, abs=5e-3)
    apart = torch.eye(128)
    assert loss(batch(pairs, apart, apart)) > best and loss(batch(pairs, apart, apart), 0.07) < 1e-3


def test_a_chunk_changes_nothing():
    data = batch(PAIRS, unit(3, 0), unit(4, 1))
    assert GuidedTrainee(Given(), 0.1, True, chunk=3)(data).item() == pytest.approx(loss(data, 0.1, True), abs=1e-6)


OWNERS = [{text % 6} for text in range(14)] + [{0, 1}, {2, 5}]
"""Of six images: by chance many pairs of a batch are relevant."""


def gradients(kind: str, symmetric: bool, split, corpus) -> dict[str, torch.Tensor]:
    """Of this process's part of a batch, as DistributedDataParallel leaves them, with the loss."""
    torch.manual_seed(0)
    dual = DualEncoder(load_trunk("scratch", frozen=kind == "siam", size=32), load_text_tower("scratch", texts=split.texts), 16)
    model = guided.siam_over(dual, 8) if kind == "siam" else dual
    trainee = GuidedTrainee(model, 0.1, symmetric)
    pairs = TowerPairs(split, guided.with_regions(model, guided.tower_inputs(model, corpus), corpus, ""))
    part = np.split(np.array([0, 3, 4, 1, 5, 2, 17, 9]), size())[rank()]
    learner = DistributedDataParallel(trainee) if size() > 1 else trainee
    loss = learner(pairs.batch(part, np.random.default_rng(0)))
    loss.backward()
    return {name: one.grad for name, one in trainee.named_parameters() if one.requires_grad} | {"loss": loss.detach()}


@pytest.mark.parametrize("kind, symmetric", [("de", True), ("siam", True), ("siam", False)])
def test_two_processes_learn_what_one_learns(kind, symmetric, tmp_path, make_split, pictures, regions):
    given = kind, symmetric, make_split(6, OWNERS), SimpleNamespace(images=pictures, regions=lambda name: regions)

    def one_of_two() -> None:
        dist.init_process_group("gloo")
        torch.save(gradients(*given), tmp_path / f"{dist.get_rank()}.pt")

    assert in_processes(2, one_of_two) == [0, 0]
    first, second = (torch.load(tmp_path / f"{process}.pt", weights_only=True) for process in range(2))
    loss = (first.pop("loss") + second.pop("loss")) / 2  # each has that of its own texts and images
    wanted = gradients(*given)
    torch.testing.assert_close(loss, wanted.pop("loss"), atol=1e-5, rtol=0)
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in wanted.values())
    for name, gradient in wanted.items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], gradient, atol=5e-5, rtol=1e-3)


# The job's options


def options(*flags: str) -> guided_train.Config:
    return parse(guided_train.Config, guided_train.RESOURCES, flags, "guided_train", "").config


@pytest.mark.parametrize("decay", ["linear", "cosine", "none"])
def test_the_learning_rate_is_never_zero(decay):
    """The original's cosine had a period of two batches: every fourth step it was exactly 0."""
    config = options("--decay", decay, "--epochs", "3", "--batch-size", "64")
    total = config.total_steps(2000)
    rates = [config.rate(step, total) for step in range(total)]
    published = [1e-4 * (1 + math.cos(math.pi * step / 2)) / 2 for step in range(total)]
    assert min(rates) > 0 and min(published) < 1e-12
    after = rates[rates.index(max(rates)) :]
    assert after == sorted(after, reverse=True)  # and it falls once, not every four steps


def test_all_of_the_data_is_seen_once_an_epoch():
    """The original stopped after the first fifth of the images."""
    samples = np.concatenate([step_samples(1000, 64, 42, step) for step in range(math.ceil(1000 / 64))])[:1000]
    assert np.bincount(samples, minlength=1000).tolist() == [1] * 1000
    assert options("--epochs", "1").total_steps(1000) == math.ceil(1000 / options().batch_size)


def test_false_is_false(capsys):
    """The original took any word after a flag, False too, for True."""
    assert options("--no-symmetric").symmetric is False and options("--no-finetune-image").finetune_image is False
    assert options().finetune_image is False and options("--finetune-image").finetune_image is True
    with pytest.raises(SystemExit):
        options("--finetune-image", "False")


def test_false_in_a_file_is_false(tmp_path):
    file = tmp_path / "options.yaml"
    file.write_text("symmetric: false\nfinetune_image: False\n")
    config = options("--config", str(file))
    assert (config.symmetric, config.finetune_image) == (False, False)


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"batch_size": 1}, "--batch-size 1: must be 2 or more"),
        ({"accumulate": 2}, "--accumulate 2: must be 1"),
        ({"temperature": 0.0}, "--temperature 0.0: must be above 0"),
        ({"input_dropout": 1.0}, "--input-dropout 1.0: must be at least 0 and below 1"),
        ({"image_tower": "scratch"}, "--image-tower scratch: must be trained if it is new: --finetune-image"),
        ({"dual_encoder": "x", "finetune_image": True}, "--dual-encoder x: must be left out with towers that learn"),
    ],
)
def test_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        guided_train.Config(**changed)


def test_the_text_side_is_what_makes_text_vectors():
    trunk = load_trunk("scratch", frozen=False, size=32)
    tower = load_text_tower("scratch", frozen=False, texts=["a dog runs"])
    trainee = GuidedTrainee(DualEncoder(trunk, tower, 8, 0.0), 1.0, False)
    trainee.model.encode_texts(tower.tokens(["a dog", "runs"]))[0].sum().backward()
    touched = {name for name, parameter in trainee.named_parameters() if parameter.grad is not None}
    learning = {name for name, parameter in trainee.named_parameters() if parameter.requires_grad}
    assert touched == {name for name in learning if name.startswith(TEXT_SIDE)}
