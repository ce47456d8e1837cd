"""Each job that makes a corpus does so from its options, says what it made, and makes nothing twice."""

from __future__ import annotations

import json
import tarfile
from importlib import import_module
from pathlib import Path

import pytest
import torch
from picture_server import picture_server
from PIL import Image

from corpora.corpus import Corpus
from preprocess.karpathy import prepare

JOBS = ["coco_ir", "lxmert", "products", "image_folder", "texts", "uniform_json"]
IMAGE = "COCO_train2014_000000000009"


@pytest.fixture
def downloads(tmp_path):
    """One image and its annotations in every layout."""
    (tmp_path / "train2014").mkdir()
    Image.new("RGB", (6, 4)).save(tmp_path / "train2014" / f"{IMAGE}.jpg")
    torch.save({9: ["A cat."]}, tmp_path / "train_captions.pt")
    (tmp_path / "l.json").write_text(json.dumps([{"img_id": IMAGE, "sentf": {"mscoco": ["A cat."]}}]))
    rows = {"9": {"image_path": f"train2014/{IMAGE}.jpg", "captions": ["A cat."]}}
    (tmp_path / "train_image_captions.json").write_text(json.dumps(rows))
    header = "image_id class_id super_class_id path\n"
    (tmp_path / "Ebay_train.txt").write_text(f"{header}1 1 1 train2014/{IMAGE}.jpg\n")
    Image.new("RGB", (5, 4)).save(tmp_path / "train2014" / "b.jpg")
    (tmp_path / "Ebay_test.txt").write_text(f"{header}2 2 1 train2014/b.jpg\n")
    (tmp_path / "texts.txt").write_text("A cat.\n")
    return tmp_path


def options(job: str, folder: Path) -> dict:
    return {
        "coco_ir": {"captions": folder, "images": folder},
        "lxmert": {"train": (folder / "l.json",), "val": (), "images": folder},
        "products": {"lists": folder, "images": folder, "validation_classes": 0},
        "image_folder": {"images": folder},
        "texts": {"texts": folder / "texts.txt", "split": "train"},
        "uniform_json": {"captions": folder, "images": folder},
    }[job]


@pytest.mark.parametrize("job", JOBS)
def test_made_once(job, downloads, tmp_path, capsys):
    module = import_module(f"jobs.preprocess_{job}")
    folder = tmp_path / "corpora" / job
    folder.parent.mkdir()
    split = "train2014" if job == "image_folder" else "train"
    config = module.Config(**options(job, downloads), folder=folder, **({} if job == "texts" else {"workers": 1}))
    module.run(config, tmp_path)
    assert "made: " in capsys.readouterr().out
    made = Corpus(folder).split(split)
    assert made.texts == (() if job in ("products", "image_folder") else ("A cat.",))
    assert job in ("texts", "products") or made.sources[0] == "coco/9"
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*.parquet")}
    module.run(config, tmp_path)
    assert "stands already: " in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in folder.glob("*.parquet")}


def test_real_photos_out_and_in_again(test_data, tmp_path, capsys):
    """flickr8k-mini's validation images: Karpathy's layout -> corpus -> uniform JSON -> corpus, with the same images and texts."""
    from jobs import export_json, preprocess_uniform_json

    source = test_data / "flickr8k-mini"
    annotations = json.loads((source / "dataset_flickr8k_mini.json").read_text())
    annotations["images"] = [row for row in annotations["images"] if row["split"] == "val"]
    (tmp_path / "val.json").write_text(json.dumps(annotations))
    with tarfile.open(source / "images.tar") as archive:
        archive.extractall(tmp_path)
    prepare(tmp_path / "val.json", tmp_path / "images", tmp_path / "first")
    export_json.run(export_json.Config(tmp_path / "first", tmp_path / "out"), tmp_path)
    config = preprocess_uniform_json.Config(captions=tmp_path / "out", images=tmp_path / "out", folder=tmp_path / "second")
    preprocess_uniform_json.run(config, tmp_path)
    first, second = Corpus(tmp_path / "first"), Corpus(tmp_path / "second")
    there, here = first.split("val"), second.split("val")
    assert (len(here.image_ids), len(here.texts)) == (300, 1500)
    assert (here.image_ids, here.texts) == (there.image_ids, there.texts)
    assert (here.pairs == there.pairs).all()
    assert all(first.images.read(image) == second.images.read(image) for image in here.image_ids)


def test_conceptual_captions_from_a_server(tmp_path, capsys):
    from jobs import preprocess_conceptual_captions as job

    with picture_server() as server:
        (tmp_path / "t.tsv").write_text(f"A cat.\t{server.url}/ok/1\nA dog.\t{server.url}/gone\n")
        config = job.Config(workers=1, train=tmp_path / "t.tsv", val=None, downloads=tmp_path / "d", folder=tmp_path / "corpus")
        job.run(config, tmp_path)
        assert "1 images fetched" in capsys.readouterr().out
        job.run(config, tmp_path)
        assert server.asked == {"/ok/1": 1, "/gone": 1}
    assert Corpus(tmp_path / "corpus").split("train").texts == ("A cat.",)
