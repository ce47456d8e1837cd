"""The original's uniform JSON comes in and goes out, and what went out comes in the same."""

from __future__ import annotations

import json

import pytest
from drawing import draw, jpeg

from corpora.corpus import Caption, Corpus, CorpusError, CorpusWriter, ImageRecord
from corpora.images import write_images
from preprocess.uniform_json import export, prepare

TRAIN = {
    "9": {"image_path": "datasets/coco/train2014/COCO_train2014_000000000009.jpg", "captions": [" A cat.", "Zwei Straßen"]},
    "1000_a": {"image_path": "/somewhere/else/1000_a.jpg", "captions": ["A dog"]},
}
VAL = {"7": {"image_path": "7.jpg", "captions": ["A man"]}}


@pytest.fixture
def download(tmp_path):
    (tmp_path / "train_image_captions.json").write_text(json.dumps(TRAIN))
    (tmp_path / "val_image_captions.json").write_text(json.dumps(VAL))
    images = tmp_path / "images"
    draw(images / TRAIN["9"]["image_path"], images / "1000_a.jpg", images / "7.jpg")
    return tmp_path, images, tmp_path / "corpus"


def test_in(download):
    assert prepare(*download, collection="flickr30k")
    corpus = Corpus(download[2])
    train = corpus.split("train")
    assert (train.image_ids, train.texts) == (("9", "1000_a"), ("A cat.", "Zwei Straßen", "A dog"))
    assert train.sources == ("coco/9", "flickr30k/1000_a")
    assert corpus.split("val").text_ids == ("7#0",)
    assert not prepare(*download, collection="flickr30k")


def test_splits_that_number_anew(download):
    (download[0] / "val_image_captions.json").write_text(json.dumps({"9": VAL["7"]}))
    with pytest.raises(
        CorpusError, match="image '9' is in split train too; if every split numbers its images anew, give --split-in-ids"
    ):
        prepare(*download)
    prepare(*download, split_in_ids=True)
    assert Corpus(download[2]).split("val").image_ids == ("val/9",)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "holds no images; expected"),
        ({}, "holds no images; expected"),
        ({"7": 3}, "image '7' is damaged: 3; expected"),
        ({"7": {"image_path": "7.jpg"}}, "image '7' is damaged"),
        ({"7": {"image_path": 7, "captions": ["a"]}}, "image '7' is damaged"),
        ({"7": {"image_path": "", "captions": ["a"]}}, "image '7' is damaged"),
        ({"7": {"image_path": "a\0b", "captions": ["a"]}}, "image '7' is damaged"),
        ({"7": {"image_path": "7.jpg", "captions": "a"}}, "image '7' is damaged"),
        ({"7": {"image_path": "7.jpg", "captions": [" "]}}, "image '7': the caption is empty"),
        ({" 7": {"image_path": "7.jpg", "captions": ["a"]}}, "the id is ' 7'"),
        (
            {"7": VAL["7"], "8": {"image_path": "8.jpg", "captions": []}},
            "1 images have no caption while others of their split have",
        ),
        ({"7": TRAIN["9"]}, "is image 9 of split train and image 7 of split val; leave one out"),
    ],
)
def test_inconsistent_files(download, rows, words):
    (download[0] / "val_image_captions.json").write_text(json.dumps(rows))
    with pytest.raises(CorpusError, match=words):
        prepare(*download)


def test_no_files(tmp_path):
    with pytest.raises(CorpusError, match=r"holds no <split>_image_captions\.json"):
        prepare(tmp_path, tmp_path, tmp_path / "corpus")


def make_corpus(folder, splits=("train", "test")):
    with CorpusWriter(folder) as corpus:
        names = ["../x", "b.c", "3", "ä"]
        corpus.images += [ImageRecord(name, splits[k % 2], 6, 4) for k, name in enumerate(names)]
        corpus.captions += [Caption(f"c{k}", f"Text {k} ö", (names[k % 4],)) for k in range(9)]
        corpus.captions.append(Caption("two", "both", ("../x", "3")))
        write_images(corpus.part / "images.h5", [(name, jpeg(k)) for k, name in enumerate(names)])
    return Corpus(folder)


def test_out_and_in_again(tmp_path):
    first = make_corpus(tmp_path / "first")
    assert export(first, tmp_path / "out")
    assert not (tmp_path / "x.jpg").exists()
    rows = json.loads((tmp_path / "out" / "train_image_captions.json").read_text(encoding="utf-8"))
    assert rows["../x"] == {"image_path": "images/train/0000000.jpg", "captions": ["Text 0 ö", "Text 4 ö", "Text 8 ö", "both"]}
    assert prepare(tmp_path / "out", tmp_path / "out", tmp_path / "second")
    second = Corpus(tmp_path / "second")
    for name in ("train", "test"):
        there, here = first.split(name), second.split(name)
        assert here.image_ids == there.image_ids
        for image, image_id in enumerate(here.image_ids):
            assert second.images.read(image_id) == first.images.read(image_id)
            texts = [sorted(split.texts[j] for i, j in split.pairs if i == image) for split in (here, there)]
            assert texts[0] == texts[1]


def test_out_twice_and_over_something_else(tmp_path):
    corpus = make_corpus(tmp_path / "first")
    assert export(corpus, tmp_path / "out")
    assert not export(corpus, tmp_path / "out")
    (tmp_path / "else").mkdir()
    with pytest.raises(CorpusError, match="exists already and holds something else"):
        export(corpus, tmp_path / "else")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["else", "first", "out"]


def test_a_split_whose_name_is_no_file_name(tmp_path):
    with pytest.raises(CorpusError, match="split 'a/b' has no images, or a name that cannot be part of a file name"):
        export(make_corpus(tmp_path / "first", ("a/b", "test")), tmp_path / "out")
    assert not (tmp_path / "out").exists()
