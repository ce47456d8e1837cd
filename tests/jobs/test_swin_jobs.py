"""Metric learning and image-to-image search from end to end, as a user starts them."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file
from starting import start, tool

from corpora.corpus import CorpusWriter, ImageRecord
from corpora.images import write_images
from jobs import swin_metric_learning, swin_predict
from launch.results import results_of
from ranking.vectors import read_vectors

TRAIN = "--backbone scratch --image-size 24 --images-per-class 2 --batch-size 6 --steps 6 --evaluate-every 3 --learning-rate 1e-3"
RUN = Path("runs/swin_metric_learning")
BEST = RUN / "tiny/checkpoints/best"


def make_products(folder: Path) -> None:
    """Three classes a split, two super-classes: a class is a colour, with noise."""
    random = np.random.default_rng(0)
    with CorpusWriter(folder) as corpus:
        files = []
        for split, hues in (("train", (0, 80, 160)), ("val", (40, 120, 200)), ("test", (20, 100, 180))):
            for number, hue in enumerate(hues):
                for shot in range(5):
                    name, pixels = f"{split}/{hue}-{shot}", random.normal(0, 25, (20, 26, 3)) + np.array([hue, 200 - hue, 90])
                    file = io.BytesIO()
                    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "PNG")
                    files.append((name, file.getvalue()))
                    corpus.images.append(
                        ImageRecord(name, split, 26, 20, f"{'warm' if number else 'cold'}/{hue}", f"colours/{name}")
                    )
        write_images(corpus.part / "images.h5", files)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("user")
    make_products(folder / "data/products")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert start("swin_metric_learning", *TRAIN.split(), "--projection", 8, "--average", 0.5, "--name", "tiny") == 0
        assert start("swin_predict", "--checkpoint", BEST, "--published-map", "--name", "tiny") == 0
    return folder


@pytest.fixture(autouse=True)
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)


def test_a_run_leaves_a_checkpoint_chosen_by_recall():
    results = results_of(RUN / "tiny")
    rows = [json.loads(line) for line in (RUN / "tiny/metrics.jsonl").read_text().splitlines()]
    validations = [row["validation"] for row in rows if "validation" in row]
    assert list(validations[0]) == ["R@1", "R@10", "R-precision", "MAP@R", "MRR"] and len(validations) == 2
    assert results.figures["R@1"] == max(one["R@1"] for one in validations)
    assert results.figures["R@1"] == json.loads((BEST / "training.json").read_text())["best"]["validation"]["R@1"]
    assert {"encoder.head.weight", "average.head.weight"} < load_file(BEST / "model.safetensors").keys()
    assert len((BEST / "trained-on.txt").read_text().splitlines()) == 15


def test_a_search_leaves_vectors_and_figures():
    vectors = read_vectors("runs/swin_predict/tiny/vectors-test")
    assert (len(vectors), vectors.dimension, vectors.made_by.measure) == (15, 8, "ip")
    np.testing.assert_allclose(np.linalg.norm(vectors.rows, axis=1), 1, atol=1e-5)
    result = json.loads(Path("runs/swin_predict/tiny/metrics.json").read_text())
    assert result["protocol"] == {"name": "leave one out", "queries": 15, "items": 15, "without_relevant": 0}
    assert {"R@1", "MAP as published"} < result["figures"].keys() and result["super_classes"].keys() == {"cold", "warm"}
    assert results_of(Path("runs/swin_predict/tiny")).figures == result["figures"]


def test_queries_against_a_gallery():
    Path("q.txt").write_text("test/20-0\ntest/100-3\n")
    Path("g.txt").write_text("\n".join(f"test/{hue}-{shot}" for hue in (20, 100, 180) for shot in (1, 2, 4)))
    assert start("swin_predict", "--checkpoint", BEST, "--queries", "q.txt", "--gallery", "g.txt", "--name", "lists") == 0
    result = json.loads(Path("runs/swin_predict/lists/metrics.json").read_text())
    assert result["protocol"] == {"name": "query and gallery", "queries": 2, "items": 9, "without_relevant": 0}


def test_what_was_trained_on_is_refused():
    assert "were trained on" in str(start("swin_predict", "--checkpoint", BEST, "--split", "train"))
    assert start("swin_predict", "--checkpoint", BEST, "--split", "train", "--allow-leakage", "--name", "seen") == 0
    assert "15 of the 15" in json.loads(Path("runs/swin_predict/seen/metrics.json").read_text())["leakage"]


def test_a_backbone_as_it_comes():
    assert start("swin_predict", "--checkpoint", "scratch", "--image-size", 32, "--no-normalise", "--name", "bare") == 0
    assert read_vectors("runs/swin_predict/bare/vectors-test").made_by.measure == "l2"


@pytest.mark.parametrize(
    "options",
    [
        "--sampler triplets --mining none --no-normalise --augmentation flip",
        "--loss multi-similarity --mining multi-similarity --memory 8 --average 0.5 --layer-decay 0.7",
        "--loss arcface --mining none --sampler super-class --classes-per-super-class 2 --augmentation crop-colour",
    ],
)
def test_a_run_that_was_stopped_ends_as_an_unbroken_one(options):
    """The points of the loss, the memory and the average are in the checkpoint too."""
    words = [*TRAIN.split(), *options.split()]
    shutil.rmtree(RUN / "whole", ignore_errors=True)
    shutil.rmtree(RUN / "again", ignore_errors=True)
    assert start("swin_metric_learning", *words, "--name", "whole") == 0
    shutil.copytree(RUN / "whole", RUN / "again", symlinks=True)
    for part in ("checkpoints/step-00000006", "checkpoints/last", "checkpoints/best", "attempts"):
        path = RUN / "again" / part
        path.unlink() if path.is_symlink() else shutil.rmtree(path)
    assert start("swin_metric_learning", *words, "--name", "again") == 0
    one, other = (load_file(RUN / name / "checkpoints/last/model.safetensors") for name in ("whole", "again"))
    assert one.keys() == other.keys()
    for key, value in one.items():
        np.testing.assert_array_equal(value, other[key], key)


def test_going_on_from_a_checkpoint_with_feedback(capsys):
    """Users' judgements of test images: one query in five is measured with, and the images count as trained on."""
    ids = [f"test/{hue}-{shot}" for hue in (20, 100, 180) for shot in range(5)]
    rows = [{"query": q, "item": i, "relevant": q[:-1] == i[:-1]} for q in ids for i in ids if q != i]
    Path("feedback.jsonl").write_text("\n".join(map(json.dumps, rows)))
    more = "--images-per-class 2 --batch-size 6 --steps 2 --feedback feedback.jsonl --feedback-triplets 2 --name taught"
    assert start("swin_metric_learning", "--checkpoint", BEST, *more.split()) == 0
    out = capsys.readouterr().out
    assert "queries to learn from" in out and "before: {'R@1'" in out
    assert 0 <= results_of(RUN / "taught").figures["feedback"] <= 100
    assert len((RUN / "taught/checkpoints/last/trained-on.txt").read_text().splitlines()) == 30
    assert "were trained on" in str(start("swin_predict", "--checkpoint", RUN / "taught/checkpoints/last"))


def test_less_memory_where_the_backbone_can():
    words = ("--checkpoint", BEST, "--steps", 1, "--images-per-class", 2, "--batch-size", 6)
    assert "--gradient-checkpointing is for models" in str(start("swin_metric_learning", *words, "--gradient-checkpointing"))


def test_a_sweep_compares_by_recall(capsys):
    words = [word for word in TRAIN.split() if word != "--cluster"]
    over = ("--over", "mining=hard,none", "--metric", "R@1", "--cluster", "local", "--name", "mining")
    assert tool("sweep", "swin_metric_learning", *over, *words, "--steps", "1") == 0
    assert "mean R@1" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options, message",
    [
        ({"accumulate": 2}, "--accumulate 2: must be 1: images are compared with the whole batch"),
        ({"image_size": -1}, "--image-size -1: must be 0 or more"),
        ({"projection": -1}, "--projection -1: must be 0 or more"),
        ({"layer_decay": 0}, "--layer-decay 0: must be above 0, at most 1"),
        ({"average": 1.0}, "--average 1.0: must be at least 0 and below 1"),
        ({"feedback_triplets": 0}, "--feedback-triplets 0: must be 1 or more"),
        ({"learning_rate": 0}, "--learning-rate 0: must be above 0"),
        ({"loss": "arcface"}, "--mining hard: must be none for --loss arcface"),
    ],
)
def test_refused(options, message):
    with pytest.raises(ValueError, match=message):
        swin_metric_learning.Config(**options)


def test_a_list_alone_is_refused():
    with pytest.raises(ValueError, match=r"--queries q\.txt: must be given with --gallery"):
        swin_predict.Config(queries=Path("q.txt"))
