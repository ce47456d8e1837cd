"""TERN from end to end, on scenes: text features, training, ranking, ROUGE-L relevance."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from starting import start

from corpora.corpus import Corpus
from corpora.synthetic import make_scenes
from jobs import tern_train
from launch.options import parse
from launch.resources import Resources
from ranking.relevance import read_relevance
from ranking.rouge import RougeL
from training.learning import Learning

REPOSITORY = Path(tern_train.__file__).parent.parent
SMALL = "--text scratch --width 64 --heads 4 --feed-forward 128 --vision-layers 1 --embedding 64 --batch-size 64 --name tern"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("user")
    make_scenes(folder / "data/scenes", {"train": 400, "val": 100, "test": 60}, size=32)
    return folder


@pytest.fixture
def here(scenes, monkeypatch):
    monkeypatch.chdir(scenes)
    return scenes


@pytest.fixture(scope="module")
def best(scenes):
    """Folder of a checkpoint that has learned the scenes, below the user's folder."""
    learn = "--preset flickr --loss infonce --learning-rate 3e-3 --steps 90 --warmup 0.1 --decay cosine --evaluate-every 45"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(scenes)
        assert start("tern_train", *SMALL.split(), *learn.split()) == 0
    return "runs/tern_train/tern/checkpoints/best"


def test_it_learns_scenes(here, best):
    """Recall at 1 at least twenty times that of chance, in both directions, on pictures it has not seen."""
    assert start("tern_predict", "--checkpoint", best, "--split", "val", "--name", "tern") == 0
    figures = json.loads((here / "runs/tern_predict/tern/metrics.json").read_text())["figures"]
    assert figures["t2i"]["R@1"] >= 20 * 100 / figures["t2i"]["items"]
    assert figures["i2t"]["R@1"] >= 20 * 100 * 5 / figures["i2t"]["items"]


def test_rouge_relevance_by_two_jobs_then_in_the_table(here, best, capsys, monkeypatch):
    split = Corpus("data/scenes").split("val")
    monkeypatch.setattr("jobs.rouge_relevance.PIECE", 100)
    path = here / "data/scenes/relevance-val-rouge-l.h5"
    assert start("rouge_relevance", "--split", "val", "--part", "2/2") == 0
    assert "this share is done" in capsys.readouterr().out and not path.exists()
    assert start("rouge_relevance", "--split", "val", "--part", "1/2") == 0
    assert str(path.relative_to(here)) in capsys.readouterr().out
    assert not path.with_suffix(".pieces").exists()
    read, rouge = read_relevance(path, split), RougeL(split.texts, split.pairs, 100)
    assert read.method == "rouge-l"
    assert np.array_equal(read.values, np.stack([rouge.against_images(text) for text in split.texts]))
    assert (read.values[split.pairs[:, 1], split.pairs[:, 0]] == 1).all()
    rank = ("tern_predict", "--checkpoint", best, "--split", "val", "--name", "tern")
    assert start(*rank) == 0
    assert "NDCG@25" not in capsys.readouterr().out
    assert start(*rank, "--relevance", path) == 0  # the ranking file stands
    assert "NDCG@25 rouge-l" in capsys.readouterr().out
    figures = json.loads((here / "runs/tern_predict/tern/metrics.json").read_text())["figures"]
    assert 50 < figures["t2i"]["NDCG@25 rouge-l"] <= 100


@pytest.fixture(scope="module")
def bert(scenes) -> str:
    """A small BERT as a checkpoint folder."""
    from models.text_tower import load_text_tower

    tower = load_text_tower("scratch", texts=Corpus(scenes / "data/scenes").split("train").texts)
    tower.model.save_pretrained(scenes / "bert")
    tower.tokens.tokenizer.save_pretrained(scenes / "bert")
    return "bert"


def test_training_on_text_features_and_ranking_with_them(here, bert, capsys):
    extract = ("extract_texts", "--text", bert, "--folder", "data/scenes/texts")
    assert start(*extract) == 0 and start(*extract) == 0  # the second leaves it alone
    assert "text features of data/scenes/texts: bert, weights" in capsys.readouterr().out
    assert "choose another --folder" in str(start(*extract, "--text-depth", 1))
    options = "--preset flickr --steps 2 --width 16 --heads 2 --vision-layers 1 --text-features data/scenes/texts --batch-size 8"
    assert start("tern_train", *options.split(), "--name", "pre") == 0
    rank = ("tern_predict", "--checkpoint", "runs/tern_train/pre/checkpoints/best", "--name", "pre")
    assert "give --text-features" in str(start(*rank))
    assert start(*rank, "--text-features", "data/scenes/texts") == 0
    assert start("tern_train", *options.split(), "--freeze-text", "--name", "both") == 0  # a preset's, which features overrule
    assert not (here / "runs/tern_train/both/cache").exists()


def test_a_frozen_tower_learns_the_paper_preset(here, bert):
    options = f"--text {bert} --text-depth 1 --freeze-text --steps 3 --width 16 --embedding 16 --heads 2 --batch-size 8"
    assert start("tern_train", *options.split(), "--vision-layers", 1, "--one-caption", "--relative", 4, "--name", "paper") == 0
    assert list((here / "runs/tern_train/paper/cache").glob("text-features-*"))


def test_the_default_is_the_paper_and_the_preset_the_re_implementation():
    """Parameters over 2,048 wide features and a text tower 768 wide, which they leave out."""

    def parameters(*flags: str) -> tuple[tern_train.Config, int]:
        from models.tern import Tern

        config = parse(tern_train.Config, Resources(), flags, "tern_train", "").config
        with torch.device("meta"):
            model = Tern(tern_train._shape(config), 2048, 768, None)
        return config, sum(parameter.numel() for parameter in model.parameters())

    paper, count = parameters()
    assert count == 198_674_176 - 66_955_008
    assert (paper.loss, paper.text, paper.text_depth, paper.freeze_text) == ("hinge", "bert-base-uncased", 6, False)
    flickr, count = parameters("--config", str(REPOSITORY / "jobs/presets/tern_flickr.yaml"))
    assert count == 26_393_344
    assert (flickr.loss, flickr.text, flickr.text_depth, flickr.freeze_text) == (
        "contrastive",
        "distilbert-base-uncased",
        0,
        True,
    )
    assert parameters("--config", str(REPOSITORY / "jobs/presets/tern_flickr.yaml"), "--width", "64")[1] < 10_000_000
    with pytest.raises(SystemExit):  # never true
        parameters("--separate", "False")


def test_the_learning_rate_reaches_zero_nowhere():
    """The re-implementation's cosine was stepped past its period."""
    for decay in ("linear", "cosine", "none"):
        for total in (1, 7, 100):
            learning = Learning(decay=decay, learning_rate=1e-3)
            assert min(learning.rate(step, total) for step in range(total)) > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 1}, "--batch-size 1: must be 2 or more"),
        ({"accumulate": 2}, "--accumulate 2: must be 1: negatives come from the whole batch"),
        ({"measure": "order", "loss": "infonce"}, "--measure order: must be cosine for any --loss but hinge"),
        ({"input_dropout": 1.0}, "--input-dropout 1.0: must be at least 0 and below 1"),
        ({"learning_rate": 0.0}, "--learning-rate 0.0: must be above 0"),
        ({"margin": -1.0}, "--margin -1.0: must be 0 or more"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        tern_train.Config(**options)
