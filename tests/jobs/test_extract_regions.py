"""The job over a corpus of drawn scenes, with a grid of a small backbone; parts give the file of one job."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from starting import start
from transformers import ViTConfig, ViTImageProcessorPil, ViTModel

from corpora.corpus import Corpus
from corpora.synthetic import make_scenes
from jobs.extract_regions import RESOURCES, Config, run
from models import region_extraction


@pytest.fixture
def config(tmp_path, monkeypatch) -> Config:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(region_extraction, "PIECE", 2)
    make_scenes(tmp_path / "scenes", {"train": 4, "val": 3, "test": 2}, size=32)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    ViTModel(ViTConfig(image_size=32, patch_size=8, **sizes)).save_pretrained(tmp_path / "vit")
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "vit")
    return Config(tmp_path / "scenes", "grid", str(tmp_path / "vit"), regions=4)


def test_parts_and_the_whole(config, tmp_path, capsys):
    run(config, tmp_path)
    regions = Corpus(config.corpus).regions("grid")
    assert (regions.ids, regions.regions, regions.width) == (Corpus(config.corpus).images.ids, 4, 16)
    assert capsys.readouterr().out == f"regions of 9 images: {config.corpus}/regions-grid.h5\n"
    run(replace(config, store_as="vit", part="2/2"), tmp_path)
    assert capsys.readouterr().out.startswith("this share is done; ")
    run(replace(config, store_as="vit", part="1/2"), tmp_path)
    assert (config.corpus / "regions-vit.h5").read_bytes() == (config.corpus / "regions-grid.h5").read_bytes()


def test_one_clear_error(config, tmp_path):
    options = ("--corpus", config.corpus, "--extractor", "grid", "--checkpoint", config.checkpoint)
    assert "--part 3: expected a number and a count" in str(start("extract_regions", *options, "--part", "3"))
    assert "a grid has N x N cells" in str(start("extract_regions", *options, "--regions", "5"))
    assert "cannot be read" in str(start("extract_regions", *options[:-1], str(tmp_path)))
    assert "--batch-size 0: must be at least 1" in str(start("extract_regions", *options, "--regions", "4", "--batch-size", "0"))
    assert "--store-as a/b: use letters" in str(start("extract_regions", *options, "--regions", "4", "--store-as", "a/b"))
    assert "objects_vocab.txt: cannot be read" in str(start("extract_regions", *options, "--vocabulary", str(tmp_path)))
    assert "no corpus here" in str(start("extract_regions", "--corpus", str(tmp_path / "none"), *options[2:]))


def test_needs_a_gpu():
    assert RESOURCES.gpus_per_node == 1
