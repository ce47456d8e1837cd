"""Captions saved by torch, of either kind, become splits, and key files lists; pickles of strangers run nothing."""

from __future__ import annotations

import json
import pickle

import pytest
import torch
from drawing import draw

from corpora.corpus import Corpus, CorpusError
from preprocess.coco_ir import prepare, read_captions
from preprocess.packing import Packing

TRAIN = {9: ["A cat.", " Two cats "], 25: ["A giraffe"]}
TEST = {"391895": json.dumps(["A man", "Ein Straßenbahnzug"]), "60623": json.dumps(["a girl"])}


@pytest.fixture
def download(tmp_path):
    """(captions, images, corpus) folders with two splits, a list and COCO's two image folders."""
    captions, images = tmp_path / "coco_ir", tmp_path / "coco"
    captions.mkdir()
    torch.save(TRAIN, captions / "train_captions.pt")
    torch.save(TEST, captions / "test_captions.pt", _use_new_zipfile_serialization=False)
    (captions / "test_img_keys_1k.tsv").write_text("391895\n")
    train, val = images / "train2014", images / "val2014"
    draw(
        train / "COCO_train2014_000000000009.jpg",
        train / "COCO_train2014_000000000025.jpg",
        val / "COCO_val2014_000000391895.jpg",
        images / "60623.jpg",
    )
    return captions, images, tmp_path / "corpus"


def test_both_kinds_of_file_and_the_list(download, capsys):
    assert prepare(*download)
    corpus = Corpus(download[2])
    train, test = corpus.split("train"), corpus.split("test")
    assert (train.image_ids, train.texts) == (("9", "25"), ("A cat.", "Two cats", "A giraffe"))
    assert (test.image_ids, test.texts) == (("391895", "60623"), ("A man", "Ein Straßenbahnzug", "a girl"))
    assert test.text_ids == ("391895#0", "391895#1", "60623#0")
    assert test.sources == ("coco/391895", "coco/60623")
    assert (download[2] / "test_img_keys_1k.txt").read_text() == "391895\n"
    assert "test_img_keys_1k.txt: 1 images\n" in capsys.readouterr().out
    assert len(test.subset(["391895"]).texts) == 2
    assert not prepare(*download)


def test_minival_is_a_list_or_a_split(download):
    captions, _, folder = download
    torch.save({9: ["A cat."]}, captions / "minival_captions.pt")
    prepare(*download)
    assert (folder / "minival.txt").read_text() == "9\n"
    assert list(Corpus(folder).info["splits"]) == ["train", "test"]


def test_a_minival_of_its_own_is_a_split(download):
    captions, images, folder = download
    draw(images / "30.jpg")
    torch.save({30: ["A bus."]}, captions / "minival_captions.pt")
    prepare(*download)
    assert Corpus(folder).split("minival").image_ids == ("30",)
    assert not (folder / "minival.txt").exists()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("val_captions.pt", {9: ["again"]}, "1 of its images are in split train too, the first: 9; remove one"),
        ("val_captions.pt", {}, "holds nothing; expected a dictionary of COCO image numbers"),
        ("val_captions.pt", [1], "holds a list; expected"),
        ("val_captions.pt", {"x9": ["a"]}, "the image 'x9' is no COCO image number"),
        ("val_captions.pt", {True: ["a"]}, "the image 'True' is no COCO"),
        ("val_captions.pt", {7: ["a"], "7": ["b"]}, "1 image ids stand there more than once, the first: 7"),
        ("val_captions.pt", {7: "no json"}, "image 7: the captions are neither a list nor JSON"),
        ("val_captions.pt", {7: '{"a": 1}'}, "image 7: the captions are"),
        ("val_captions.pt", {7: []}, "image 7: the captions are '\\[\\]'"),
        ("val_captions.pt", {7: ["a", " "]}, "image 7: the caption is empty"),
        ("val_captions.pt", {7: ["a", 3]}, "image 7: the caption is '3'; expected a text"),
        ("val_captions.pt", {7: ["\ud800"]}, "half a character"),
        ("minival_captions.pt", {9: ["a"], 30: ["b"]}, "1 of 2 images are in no split, the first: 30"),
    ],
)
def test_inconsistent_files(download, name, content, words):
    (download[0] / name).write_bytes(b"")
    torch.save(content, download[0] / name)
    with pytest.raises(CorpusError, match=words) as caught:
        prepare(*download)
    assert name in str(caught.value)
    assert not download[2].exists()


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ("9\n391895\n", "lists images of several splits: test, train"),
        ("1\n", "in no split, the first: 1"),
        ("391895\n391895\n", "more than once"),
        ("\n", "holds no image ids"),
    ],
)
def test_lists_that_do_not_fit(download, keys, words):
    (download[0] / "test_img_keys.tsv").write_text(keys)
    with pytest.raises(CorpusError, match=words):
        prepare(*download)


class Evil:
    def __reduce__(self):
        return (open, ("evil", "w"))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_pickle_runs_no_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "train_captions.pt"
    for save in (lambda: torch.save({9: Evil()}, path), lambda: path.write_bytes(pickle.dumps({9: Evil()}))):
        save()
        with pytest.raises(CorpusError, match="is damaged, or holds more than texts"):
            read_captions(path)
    assert not (tmp_path / "evil").exists()


def test_no_files(tmp_path):
    with pytest.raises(CorpusError, match=r"holds none of train_captions\.pt"):
        prepare(tmp_path, tmp_path, tmp_path / "corpus")


def test_images_left_out_leave_the_list(download, capsys):
    (download[1] / "val2014" / "COCO_val2014_000000391895.jpg").write_bytes(b"x")
    (download[0] / "test_img_keys.tsv").write_text("391895\n60623\n")
    prepare(*download, Packing(bad_images="skip"))
    assert (download[2] / "test_img_keys.txt").read_text() == "60623\n"
    assert "1 images (1 were left out)" in capsys.readouterr().out


def test_a_flipped_bit_is_noticed(tmp_path):
    """In the middle of a caption, where torch itself looks at nothing."""
    path = tmp_path / "train_captions.pt"
    torch.save(TRAIN, path)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"A cat.", b"A bat."))
    with pytest.raises(CorpusError, match="does not have its checksum"):
        read_captions(path)
