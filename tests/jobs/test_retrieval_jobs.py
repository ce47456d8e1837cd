"""From a file of dialogues and a collection of images to JSON lines, as a user does it: preprocess_texts, encode, retrieve_corpus."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from starting import TINY, start

from corpora.corpus import Corpus
from corpora.planting import Shares
from corpora.synthetic import make_scenes
from jobs.retrieve_corpus import Config
from ranking.matrix import read_ranking
from ranking.vectors import read_vectors

CLIP = "runs/clip_finetune/tiny/checkpoints/best"
DIALOGUES = ["a red ring\tover a blue star\tI see", "", "two green squares\tyes"] * 7


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Scenes, a tiny CLIP, a corpus of dialogues, and the vectors of all."""
    folder = tmp_path_factory.mktemp("user")
    make_scenes(folder / "data/scenes", {"train": 16, "val": 8, "test": 12}, size=32, planted=Shares(0, 0, 0))
    (folder / "reddit.tsv").write_text("\n".join(DIALOGUES))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        made = "--steps", 3, "--learning-rate", "1e-2", "--name", "tiny", *TINY["clip_finetune"].split()
        assert start("clip_finetune", *made) == 0
        assert start("preprocess_texts", "--texts", "reddit.tsv", "--layout", "contexts", "--folder", "data/reddit") == 0
        for corpus, kind in (("scenes", "images"), ("scenes", "texts"), ("reddit", "texts")):
            assert encode(corpus, kind, f"vectors/{corpus}-{kind}") == 0
    return folder


@pytest.fixture(autouse=True)
def here(folder, monkeypatch) -> None:
    monkeypatch.chdir(folder)


def encode(corpus: str, kind: str, folder: str, *more: object) -> int | str | None:
    return start("encode", "--corpus", f"data/{corpus}", "--kind", kind, "--checkpoint", CLIP, "--folder", folder, *more)


def retrieve(texts: str, folder: str, *more: object) -> int | str | None:
    return start(
        "retrieve_corpus", "--texts", f"vectors/{texts}", "--collection", "vectors/scenes-images", "--folder", folder, *more
    )


def test_every_dialogue_finds_images(capsys):
    assert retrieve("reddit-texts", "retrieved/reddit", "--top", 3) == 0
    said = capsys.readouterr().out
    assert "14 texts over 12 images, the best 3 of each" in said and "R@" not in said
    lines = [json.loads(line) for line in Path("retrieved/reddit/retrieved.jsonl").read_text().splitlines()]
    assert [(line["id"], line["text"]) for line in lines[:2]] == [
        ("1", "a red ring over a blue star"),
        ("3", "two green squares"),
    ]
    known = set(Corpus("data/scenes").split("test").image_ids)
    assert len(lines) == 14 and all(len({*line["images"]} & known) == 3 for line in lines)


def test_recall_is_that_of_the_ranking_file(capsys):
    assert start("clip_zero_shot", "--checkpoint", CLIP, "--name", "tiny") == 0
    assert retrieve("scenes-texts", "retrieved/scenes", "--top", 10) == 0
    assert "random 8.33" in capsys.readouterr().out  # 1 of 12
    ranking = read_ranking("runs/clip_zero_shot/tiny/ranking-test.h5").by("text")
    for number, line in enumerate(map(json.loads, Path("retrieved/scenes/retrieved.jsonl").read_text().splitlines())):
        row = ranking.rows(number, number + 1)[0]
        assert line["images"] == [ranking.items.ids[place] for place in np.argsort(-row, kind="stable")[:10]]
    figures = json.loads(Path("runs/clip_zero_shot/tiny/metrics.json").read_text())["figures"]["t2i"]
    recall = json.loads(Path("retrieved/scenes/retrieval.json").read_text())["statistics"]["recall"]
    assert {name: row["found"] for name, row in recall.items()} == pytest.approx({k: figures[k] for k in ("R@1", "R@5", "R@10")})


def test_parts_of_an_array_make_the_same(capsys):
    for number in (2, 1):
        assert encode("scenes", "texts", "vectors/shared", "--part", f"{number}/2") == 0
    assert np.array_equal(read_vectors("vectors/shared").rows, read_vectors("vectors/scenes-texts").rows)
    retrieve("scenes-texts", "retrieved/alone")
    for number in (2, 1):
        assert retrieve("shared", "retrieved/shared", "--part", f"{number}/2") == 0
    for name in ("retrieved.jsonl", "retrieval.json"):
        assert Path("retrieved/shared", name).read_bytes() == Path("retrieved/alone", name).read_bytes()
    assert "retrieved: retrieved/shared/retrieved.jsonl" in capsys.readouterr().out


def test_half_precision_takes_half_of_the_room():
    assert encode("scenes", "images", "vectors/half", "--store-as", "float16") == 0
    assert read_vectors("vectors/half").rows.dtype == np.float16


def test_what_is_refused():
    assert "vectors/nothing: no vectors here" in str(retrieve("nothing", "retrieved/x"))
    assert "are of images; give those of texts" in str(retrieve("scenes-images", "retrieved/x"))
    assert "split test has no images" in str(encode("reddit", "images", "vectors/x"))
    assert "data/scenes: split test is not the one" in str(retrieve("reddit-texts", "retrieved/x", "--corpus", "data/scenes"))
    assert not Path("retrieved/x").exists()
    with pytest.raises(ValueError, match="--top 0: must be 1 or more"):
        Config(top=0)
