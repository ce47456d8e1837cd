"""The sentence matcher's jobs from end to end, and the options they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from starting import start

from corpora.synthetic import make_scenes
from jobs import sentence_matcher_train
from ranking.matrix import read_ranking

TRAIN = (
    "--image-tower scratch --finetune-image --image-size 24 --text-tower scratch --layers -1 --finetune-text --projection 8 "
    "--batch-size 8 --steps 4 --evaluate-every 2 --name tiny --hidden"
)
BEST = "runs/sentence_matcher_train/tiny/checkpoints/best"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("user")
    make_scenes(folder / "data/scenes", {"train": 20, "val": 8, "test": 10}, size=32)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert start("sentence_matcher_train", *TRAIN.split()) == 0
        assert start("sentence_matcher_predict", "--checkpoint", BEST, "--name", "tiny") == 0
    return folder


def test_a_run_leaves_a_checkpoint_and_a_ranking(folder):
    rows = [json.loads(line) for line in (folder / "runs/sentence_matcher_train/tiny/metrics.jsonl").read_text().splitlines()]
    validations = [row["validation"]["rsum"] for row in rows if "validation" in row]
    assert [row["step"] for row in rows if "validation" in row] == [2, 4]
    best = json.loads((folder / BEST / "training.json").read_text())["best"]["validation"]["rsum"]
    assert best == max(validations)  # the original kept the lowest loss within batches
    ranked = read_ranking(folder / "runs/sentence_matcher_predict/tiny/ranking-test.h5")
    assert len(ranked.queries.ids) == 10 and ranked.provenance.score_meaning == "cosine"
    figures = json.loads((folder / "runs/sentence_matcher_predict/tiny/metrics.json").read_text())["figures"]
    assert {"i2t", "t2i", "rsum"} <= figures.keys()


def test_what_was_trained_on_is_refused(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert "were trained on" in str(start("sentence_matcher_predict", "--checkpoint", BEST, "--split", "train"))


def test_heads_go_on_over_the_frozen_towers_of_a_checkpoint(folder, monkeypatch):
    monkeypatch.chdir(folder)
    more = "--batch-size 8 --steps 2 --loss partner --name more"
    assert start("sentence_matcher_train", "--checkpoint", BEST, *more.split()) == 0
    before, after = (load_file(folder / place / "model.safetensors") for place in (BEST, BEST.replace("tiny", "more")))
    changed = {name.split(".")[0] for name, value in after.items() if not value.equal(before[name])}
    assert changed == {"image_head", "text_head"}
    kinds = {path.name.split("-")[0] for path in (folder / "runs/sentence_matcher_train/more/cache").iterdir()}
    assert kinds == {"images", "texts"}


@pytest.mark.parametrize(
    "options, message",
    [
        ({"batch_size": 1}, "--batch-size 1: must be 2 or more"),
        ({"accumulate": 4}, "--accumulate 4: must be 1: negatives come from the whole batch"),
        ({"image_tower": "scratch"}, "--image-tower scratch: must be trained if it is new: --finetune-image"),
        ({"text_tower": "scratch"}, "--text-tower scratch: must be trained if it is new: --finetune-text"),
        ({"hidden": (64, 0)}, r"--hidden \(64, 0\): must be widths of 1 or more"),
        ({"input_dropout": 1.0}, "--input-dropout 1.0: must be at least 0 and below 1"),
        ({"temperature": 0}, "--temperature 0: must be above 0"),
        ({"top_k_violations": 2}, "--top-k-violations 2: must be 0 without --loss hinge"),
    ],
)
def test_refused(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        sentence_matcher_train.Config(**options)


def test_a_flag_that_says_false_is_refused(folder, monkeypatch, capsys):
    """In guided-image-retrieval `--flag False` turned the option on."""
    monkeypatch.chdir(folder)
    assert start("sentence_matcher_train", "--finetune-image", "False") not in (0, None)
    assert "False" in capsys.readouterr().err
