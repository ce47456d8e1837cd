"""The job prepares a corpus, alone or with others, and repeats nothing."""

from __future__ import annotations

import json
from dataclasses import replace

from PIL import Image

from corpora.corpus import Corpus
from jobs.preprocess_karpathy import RESOURCES, Config, run
from preprocess import image_packing


def test_prepare_then_repeat(tmp_path, capsys):
    rows = [{"filename": f"{k}.png", "split": "val", "sentences": [{"raw": f"number {k}", "sentid": k}]} for k in range(3)]
    (tmp_path / "captions.json").write_text(json.dumps({"images": rows}))
    (tmp_path / "images").mkdir()
    for k in range(3):
        Image.new("RGB", (4, 4)).save(tmp_path / "images" / f"{k}.png")

    config = Config(annotations=tmp_path / "captions.json", images=tmp_path / "images", folder=tmp_path / "corpus")
    run(config, tmp_path)
    assert capsys.readouterr().out.startswith("made: ")
    run(config, tmp_path)
    assert capsys.readouterr().out.startswith("stands already: ")
    assert Corpus(config.folder).split("val").image_ids == tuple("012")


def test_parts_of_an_array(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(image_packing, "IMAGES_A_PIECE", 2)
    rows = [{"filename": f"{k}.png", "split": "val", "sentences": [{"raw": f"number {k}", "sentid": k}]} for k in range(5)]
    (tmp_path / "captions.json").write_text(json.dumps({"images": rows}))
    for k in range(5):
        Image.new("RGB", (4, 4)).save(tmp_path / f"{k}.png")
    config = Config(annotations=tmp_path / "captions.json", images=tmp_path, folder=tmp_path / "corpus")
    run(replace(config, part="2/2"), tmp_path)
    assert capsys.readouterr().out == f"{tmp_path}/corpus: 2 of 3 pieces are still to come from other parts\n"
    run(replace(config, part="1/2"), tmp_path)
    assert capsys.readouterr().out.startswith("made: ")
    assert Corpus(config.folder).split("val").image_ids == tuple("01234")


def test_needs_no_gpu():
    assert RESOURCES.gpus_per_node == 0
