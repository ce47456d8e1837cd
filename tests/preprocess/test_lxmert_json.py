"""LXMERT's sentence files become a corpus; which file goes where and which sentences are kept is said by options."""

from __future__ import annotations

import json

import pytest
from drawing import draw

from corpora.corpus import Corpus, CorpusError
from preprocess.lxmert_json import prepare

TRAIN = [
    {"img_id": "COCO_train2014_000000000009", "labelf": {}, "sentf": {"mscoco": ["A cat. ", "Two cats"], "vqa": ["How many?"]}},
    {"img_id": "COCO_train2014_000000000025", "sentf": {"mscoco": ["A giraffe"]}},
]
MINIVAL = [{"img_id": "COCO_val2014_000000391895", "sentf": {"mscoco": ["A man"]}}]
GENOME = [{"img_id": 2370799, "sentf": {"vg": ["the clock is green"]}}, {"img_id": "2370800", "sentf": {"vqa": ["Is it?"]}}]


@pytest.fixture
def download(tmp_path):
    for name, rows in (("train", TRAIN), ("minival", MINIVAL), ("vgnococo", GENOME)):
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    images = tmp_path / "images"
    draw(*(images / "train2014" / f"{row['img_id']}.jpg" for row in TRAIN))
    draw(images / "val2014" / f"{MINIVAL[0]['img_id']}.jpg", images / "VG_100K_2" / "2370799.jpg", images / "2370800.jpg")
    return tmp_path


def made(download, train=("train",), val=("minival",), categories=("mscoco",)):
    splits = {"train": [download / f"{name}.json" for name in train], "val": [download / f"{name}.json" for name in val]}
    return prepare(splits, download / "images", download / "corpus", categories)


def test_captions_of_coco(download):
    assert made(download)
    corpus = Corpus(download / "corpus")
    train, val = corpus.split("train"), corpus.split("val")
    assert train.image_ids == ("COCO_train2014_000000000009", "COCO_train2014_000000000025")
    assert train.texts == ("A cat.", "Two cats", "A giraffe")
    assert train.text_ids[1] == "COCO_train2014_000000000009:mscoco:1"
    assert (train.sources, val.sources) == (("coco/9", "coco/25"), ("coco/391895",))
    assert not made(download)


def test_other_sentences_and_visual_genome(download, capsys):
    assert made(download, ("train", "vgnococo"), categories=("mscoco", "vg"))
    train = Corpus(download / "corpus").split("train")
    assert train.image_ids[-1] == "2370799"
    assert train.sources[-1] == "visual-genome/2370799"
    assert train.texts[-1] == "the clock is green"
    assert "1 of 5 images have no sentences of mscoco, vg" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([*TRAIN, TRAIN[0]], "1 image ids stand there more than once, the first: COCO_train2014_000000000009"),
        ([*TRAIN, MINIVAL[0]], "more than once, the first: COCO_val2014_000000391895"),
        ([{"sentf": {"mscoco": ["a"]}}], "image 0: the id is 'None'"),
        ([{"img_id": "dog", "sentf": {"mscoco": ["a"]}}], "img_id 'dog' is neither a COCO file name"),
        ([{"img_id": 1.5, "sentf": {"mscoco": ["a"]}}], "the id is '1.5'"),
        ([{"img_id": 3}], r"image 0 is damaged: {'img_id': 3}; expected LXMERT's layout"),
        ([{"img_id": 3, "sentf": {"mscoco": "a"}}], "image 0 is damaged"),
        ([{"img_id": 3, "sentf": {"mscoco": [""]}}], "mscoco 0: the caption is empty"),
        ([{"img_id": 3, "sentf": {"mscoco": [None]}}], "the caption is 'None'; expected a text"),
        ([3], "image 0 is damaged: 3"),
        ([{"img_id": 3, "sentf": {"vg": ["a"]}}], None),
        ({}, "holds no list of images"),
        ([], "holds no list of images"),
    ],
)
def test_inconsistent_files(download, rows, words):
    (download / "train.json").write_text(json.dumps(rows))
    if words is None:
        assert made(download)
        return
    with pytest.raises(CorpusError, match=words) as caught:
        made(download)
    assert "train.json" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "cannot be read as JSON"),
        ('[{"img_id": 3, "img_id": 4, "sentf": {}}]', "the key 'img_id' stands twice in one object"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("[NaN]", "NaN is no JSON"),
        ("[" + "1" * 5000 + "]", "cannot be read as JSON"),
        ('[{"img_id": 3, "sentf": {"mscoco": ["\\ud800"]}}]', "half a character"),
        ("\ufeff[]", "holds no list"),
    ],
)
def test_text_that_is_no_json_of_this_layout(download, text, words):
    (download / "train.json").write_text(text)
    with pytest.raises(CorpusError, match=words):
        made(download)


def test_a_category_that_no_image_has_is_refused(download):
    with pytest.raises(CorpusError, match="no image has sentences of caption; --categories may name mscoco, vqa"):
        made(download, categories=("mscoco", "caption"))


def test_a_file_can_be_named_once(download):
    with pytest.raises(CorpusError, match="a file is named twice"):
        made(download, ("train",), ("train",))


def test_missing_file(download):
    with pytest.raises(CorpusError, match=r"nothing\.json: cannot be read \(No such file"):
        made(download, ("nothing",))
