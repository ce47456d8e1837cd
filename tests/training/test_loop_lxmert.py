"""The loop with a real model: a tiny LXMERT on made-up scenes, through its job."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_training import history, same

from corpora.corpus import Corpus
from corpora.synthetic import make_scenes
from jobs.lxmert_finetune import Config, run

TINY = {"checkpoint": "scratch", "width": 16, "heads": 2, "language_layers": 1, "vision_layers": 1, "cross_layers": 2}
LEARNING = {"batch_size": 4, "steps": 9, "evaluate_every": 4, "save_every": 3, "learning_rate": 0.003, "warmup": 0.0}
FORMULATIONS = {
    "binary": {},
    "contrastive": {"formulation": "contrastive", "negatives": 2, "loss": "hinge", "freeze_language": True},
}


class Stop(Exception):
    """A run that is stopped from within."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "scenes"
    make_scenes(folder, {"train": 8, "val": 4}, size=32)
    return folder


@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_stopped_and_started_again(corpus, tmp_path, formulation, monkeypatch):
    from models.lxmert_training import LxmertPairs

    config = Config(corpus=corpus, **TINY, **LEARNING, **FORMULATIONS[formulation])  # type: ignore[arg-type]
    run(config, tmp_path / "unbroken")
    batch, calls = LxmertPairs.batch, []

    def stopping(self, samples, generator):
        calls.append(samples)
        if len(calls) == 6:
            raise Stop
        return batch(self, samples, generator)

    monkeypatch.setattr(LxmertPairs, "batch", stopping)
    with pytest.raises(Stop):
        run(config, tmp_path / "broken")
    run(config, tmp_path / "broken")
    assert len(calls) == 6 + 5  # it went on after step 4
    same(tmp_path / "broken", tmp_path / "unbroken")
    rows = history(tmp_path / "broken")
    assert [row["step"] for row in rows] == [4, 8, 9, 9]
    assert set(rows[0]["validation"]) == {"rsum", *(f"{way}_R@{k}" for way in ("i2t", "t2i") for k in (1, 5, 10))}


def test_the_best_checkpoint_loads_as_a_model(corpus, tmp_path):
    from models import lxmert

    run(Config(corpus=corpus, **TINY, **LEARNING), tmp_path)  # type: ignore[arg-type]
    best = tmp_path / "checkpoints" / "best"
    model, inputs = lxmert.load(str(best), Corpus(corpus).regions())
    for name, value in load_file(best / "model.safetensors").items():
        assert torch.equal(model.state_dict()[name], value)
    assert inputs.texts(["a red square"])["input_ids"].shape[0] == 1
    assert json.loads((best / "training.json").read_text())["best"]["step"] in (4, 8, 9)
