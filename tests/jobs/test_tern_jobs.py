"""TERN from end to end, on scenes: text features, training, ranking, ROUGE-L relevance."""

from __future__ import annotations

import json

import numpy as np
import pytest
from starting import start

from corpora.corpus import Corpus
from corpora.synthetic import make_scenes
from jobs import tern_train
from ranking.relevance import read_relevance
from ranking.rouge import RougeL
from training.learning import Learning

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


def test_it_learns_scenes(here, capsys):
    """Recall at 1 at least twenty times that of chance, in both directions, on pictures it has not seen."""
    learn = "--preset flickr --loss infonce --learning-rate 3e-3 --steps 90 --decay cosine --evaluate-every 45"
    assert start("tern_train", *SMALL.split(), *learn.split()) == 0
    assert "best validation rsum" in capsys.readouterr().out
    best = "runs/tern_train/tern/checkpoints/best"
    assert start("tern_predict", "--checkpoint", best, "--split", "val", "--name", "tern") == 0
    figures = json.loads((here / "runs/tern_predict/tern/metrics.json").read_text())["figures"]
    assert figures["t2i"]["R@1"] >= 20 * 100 / figures["t2i"]["items"]
    assert figures["i2t"]["R@1"] >= 20 * 100 * 5 / figures["i2t"]["items"]


def test_rouge_relevance_by_two_jobs_then_in_the_table(here, capsys, monkeypatch):
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
    capsys.readouterr()

    best = "runs/tern_train/tern/checkpoints/best"
    rank = ("tern_predict", "--checkpoint", best, "--split", "val", "--name", "tern", "--relevance", path)
    assert start(*rank) == 0  # the ranking file stands
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


def test_a_frozen_tower_learns_the_paper_preset(here, bert):
    options = f"--text {bert} --text-depth 1 --freeze-text --steps 3 --width 16 --embedding 16 --heads 2 --batch-size 8"
    assert start("tern_train", *options.split(), "--vision-layers", 1, "--one-caption", "--relative", 4, "--name", "paper") == 0
    assert list((here / "runs/tern_train/paper/cache").glob("text-features-*"))


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
        ({"text_features": "x", "freeze_text": True}, "--freeze-text True: must be left out with --text-features"),
        ({"input_dropout": 1.0}, "--input-dropout 1.0: must be at least 0 and below 1"),
        ({"learning_rate": 0.0}, "--learning-rate 0.0: must be above 0"),
        ({"margin": -1.0}, "--margin -1.0: must be 0 or more"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        tern_train.Config(**options)
