"""The job prepares a corpus, adds regions then or later, and repeats nothing."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
from PIL import Image

from corpora.corpus import Corpus
from jobs.preprocess_karpathy import RESOURCES, Config, run


def test_prepare_then_add_regions_then_repeat(tmp_path, capsys):
    rows = [{"filename": f"{k}.png", "split": "val", "sentences": [{"raw": f"number {k}", "sentid": k}]} for k in range(3)]
    (tmp_path / "captions.json").write_text(json.dumps({"images": rows}))
    (tmp_path / "images").mkdir()
    for k in range(3):
        Image.new("RGB", (4, 4)).save(tmp_path / "images" / f"{k}.png")
    np.savez(tmp_path / "grid.npz", files=["0.png", "1.png", "2.png"], features=np.zeros((3, 2, 5)), boxes=np.zeros((3, 2, 4)))

    config = Config(tmp_path / "captions.json", tmp_path / "images", tmp_path / "corpus")
    run(config, tmp_path)
    assert capsys.readouterr().out.startswith("made: ")
    config = replace(config, regions=(tmp_path / "grid.npz",), extractor="grid")
    run(config, tmp_path)
    corpus, regions = capsys.readouterr().out.splitlines()
    assert corpus.startswith("stands already: ")
    assert regions.startswith("made: regions 'grid'")
    run(config, tmp_path)
    assert capsys.readouterr().out.count("stands already: ") == 2
    assert Corpus(config.folder).regions("grid").width == 5


def test_needs_no_gpu():
    assert RESOURCES.gpus_per_node == 0
