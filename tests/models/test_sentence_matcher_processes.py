"""Two processes that share a batch compute the gradients of one, with towers that learn and with frozen ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from real_processes import in_processes
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from models import sentence_matcher
from models.image_trunk import load_trunk
from models.sentence_matcher import HeadShape
from models.sentence_matcher_training import SentenceMatcherTrainee
from models.text_tower import load_text_tower
from models.tower_inputs import TowerPairs, frozen_inputs
from training.processes import rank, size

SAMPLES = np.array([0, 3, 4, 1, 5, 2, 17, 9])


@pytest.mark.parametrize(
    "frozen, options",
    [
        (False, {"loss": "softmax"}),
        (False, {"loss": "hinge", "margin": 2.0, "chunk": 2}),
        (True, {"loss": "softmax"}),
        (True, {"loss": "partner", "margin": 2.0}),
    ],
)
def test_gradients_of_two_processes_are_those_of_one(
    tmp_path: Path, make_split, pictures, captions, frozen: bool, options: dict[str, Any]
):
    split = make_split(6, [{text % 6} for text in range(14)] + [{0, 1}, {2, 5}])

    def gradients(cache: Path) -> dict[str, Tensor]:
        torch.manual_seed(0)
        towers = load_trunk("scratch", frozen, 32), load_text_tower("scratch", frozen=frozen, texts=captions)
        model, live = sentence_matcher.from_scratch(*towers, HeadShape((24,), 16, 0.0), pictures)
        for part in model.modules():
            part.p = 0.0 if isinstance(part, nn.Dropout) else getattr(part, "p", None)
        pairs = TowerPairs(split, frozen_inputs(live, *towers, (split,), cache))
        trainee = SentenceMatcherTrainee(model, **options)
        learner = DistributedDataParallel(trainee) if size() > 1 else trainee
        loss = learner(pairs.batch(np.split(SAMPLES, size())[rank()], np.random.default_rng(0)))
        loss.backward()
        left = {name: one.grad for name, one in trainee.named_parameters() if one.requires_grad}
        return {**left, "loss": loss.detach()}

    def one_of_two() -> None:
        dist.init_process_group("gloo")
        torch.save(gradients(tmp_path / "two"), tmp_path / f"{dist.get_rank()}.pt")

    assert in_processes(2, one_of_two) == [0, 0]
    first, second = (torch.load(tmp_path / f"{process}.pt", weights_only=True) for process in range(2))
    wanted = gradients(tmp_path / "one")
    losses = [one.pop("loss").item() for one in (first, second, wanted)]
    assert (losses[0] + losses[1]) / 2 == pytest.approx(losses[2], abs=1e-5)
    largest = max(one.abs().max().item() for one in wanted.values())
    assert largest > 1e-3 and first.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], gradient, atol=5e-6 * max(1, largest), rtol=0)
