"""Any folder of images: ids, splits and classes from paths, captions from a file beside."""

from __future__ import annotations

import os

import pytest
from drawing import draw

from corpora.corpus import Corpus, CorpusError
from preprocess.image_folder import find_images, prepare, read_caption_table


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    draw(
        folder / "train" / "cat" / "1.jpg", folder / "train" / "dog" / "1.png", folder / "test" / "COCO_val2014_000000000042.JPG"
    )
    (folder / "notes.txt").write_text("no image")
    draw(folder / ".hidden" / "3.jpg", folder / "train" / "._1.jpg")
    return folder


def test_splits_classes_and_sources_from_paths(images, tmp_path):
    assert prepare(images, tmp_path / "corpus", classes=True, collection="")
    corpus = Corpus(tmp_path / "corpus")
    train, test = corpus.split("train"), corpus.split("test")
    assert (train.image_ids, train.classes) == (("train/cat/1", "train/dog/1"), ("cat", "dog"))
    assert (test.image_ids, test.classes, test.sources) == (("test/COCO_val2014_000000000042",), ("",), ("coco/42",))
    assert not prepare(images, tmp_path / "corpus", classes=True)
    draw(images / "train" / "cat" / "2.jpg")
    with pytest.raises(CorpusError, match="made otherwise"):
        prepare(images, tmp_path / "corpus", classes=True)


def test_one_split_and_a_collection(images, tmp_path):
    prepare(images, tmp_path / "corpus", split="gallery", collection="open-images")
    gallery = Corpus(tmp_path / "corpus").split("gallery")
    assert len(gallery.image_ids) == 3
    assert gallery.sources == ("open-images/COCO_val2014_000000000042", "open-images/1", "open-images/1")


def test_a_file_of_no_split(images, tmp_path):
    draw(images / "loose.jpg")
    with pytest.raises(CorpusError, match=r"loose\.jpg is in no folder that could name its split; give --split"):
        prepare(images, tmp_path / "corpus")


def test_two_files_of_one_id(images, tmp_path):
    draw(images / "train" / "cat" / "1.png")
    with pytest.raises(CorpusError, match=r"1\.jpg and 1\.png would both be image 'train/cat/1'; rename or remove one"):
        prepare(images, tmp_path / "corpus")


def test_names_that_are_no_text(images, tmp_path):
    (images / "train" / os.fsdecode(b"\xff.jpg")).write_bytes(b"")
    with pytest.raises(CorpusError, match=r"the id is 'train/.udcff'; expected"):
        prepare(images, tmp_path / "corpus")


def test_links_are_followed_but_not_for_ever(images):
    (images / "train" / "round").symlink_to(images)
    (images / "more").symlink_to(images / "train" / "cat")
    assert find_images(images) == ["more/1.jpg", "test/COCO_val2014_000000000042.JPG", "train/cat/1.jpg", "train/dog/1.png"]


def test_a_link_to_nothing_is_told(images, tmp_path):
    (images / "train" / "lost.jpg").symlink_to(images / "nowhere.jpg")
    with pytest.raises(CorpusError, match=r"1 of 4 images cannot be used.*\n.*lost\.jpg: no such file"):
        prepare(images, tmp_path / "corpus")


def test_nothing_to_find(tmp_path):
    with pytest.raises(CorpusError, match="no such folder"):
        find_images(tmp_path / "absent")
    with pytest.raises(CorpusError, match=r"holds no images; known by their suffix are \.bmp"):
        find_images(tmp_path)


TABLES = {
    "captions.csv": 'file,x,caption\ntrain/cat/1.jpg,0,"A cat, ""sitting"""\ntrain/cat/1.jpg,0, Again \ntrain/dog/1.png,1,"Über\nZeilen"\n',
    "captions.tsv": 'caption\tfile\nA cat, "sitting"\ttrain/cat/1.jpg\nAgain\ttrain/cat/1.jpg\nÜber\ttrain/dog/1.png',
    "captions.jsonl": '{"file": "train/cat/1.jpg", "caption": "A cat, \\"sitting\\""}\n{"file": "train/cat/1.jpg", "caption": "Again"}\n'
    '{"file": "train/dog/1.png", "caption": "Über"}\n',
}


@pytest.mark.parametrize("name", TABLES)
def test_captions_from_a_table(images, tmp_path, name):
    (tmp_path / name).write_text(TABLES[name], encoding="utf-8")
    prepare(images, tmp_path / "corpus", captions=tmp_path / name)
    corpus = Corpus(tmp_path / "corpus")
    train = corpus.split("train")
    assert train.texts[:2] == ('A cat, "sitting"', "Again")
    assert train.texts[2].startswith("Über")
    assert train.text_ids == ("train/cat/1#0", "train/cat/1#1", "train/dog/1#0")
    assert corpus.split("test").texts == ()
    assert name in corpus.info["sources"]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("c.xlsx", "", r"the suffix is '\.xlsx'; expected a table with the columns"),
        ("c.csv", "", "line 1: the columns are ''; expected"),
        ("c.csv", "file,caption\n", "holds no captions"),
        ("c.csv", "file,text\na.jpg,b\n", "line 1: the columns are 'file, text'"),
        ("c.csv", "file,caption,file\na.jpg,b,c\n", "line 1: the columns are"),
        ("c.csv", "file,caption\na.jpg\n", "line 2: 1 columns where line 1 has 2"),
        ("c.csv", 'file,caption\na.jpg,"b\n', "line 2: no CSV"),
        ("c.csv", "file,caption\na.jpg, \n", "line 2: the caption is empty"),
        ("c.tsv", "file\tcaption\na.jpg\tb\tc\n", "line 2: 3 columns"),
        ("c.tsv", b"file\tcaption\na.jpg\t\xff\n", "line 2: no UTF-8 text"),
        ("c.jsonl", '{"file": "a.jpg"}\n', "line 1: no caption; expected"),
        ("c.jsonl", '{"file": "a.jpg", "caption": "b"}\n\n', "line 2: cannot be read as JSON"),
        ("c.jsonl", '["a.jpg"]\n', "line 1: .* is no object"),
        ("c.jsonl", '{"file": "a", "file": "b", "caption": "c"}', "the key 'file' stands twice"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path, name, text, words):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(CorpusError, match=words) as caught:
        read_caption_table(tmp_path / name)
    assert name in str(caught.value)


def test_captions_of_unknown_files_and_images_without(images, tmp_path):
    table = tmp_path / "c.tsv"
    table.write_text("file\tcaption\ntrain/cat/1.jpg\ta\nb.jpg\tx\n")
    with pytest.raises(CorpusError, match=r"c\.tsv: names 1 files that are not in .*, the first: b\.jpg"):
        prepare(images, tmp_path / "corpus", captions=table)
    table.write_text("file\tcaption\ntrain/cat/1.jpg\ta\n")
    with pytest.raises(CorpusError, match="1 images have no caption while others of their split have, the first: train/dog/1"):
        prepare(images, tmp_path / "corpus", captions=table)
