"""The report of a small corpus, worked out by hand; the check of its integrity; the sheet of its pictures."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from odd_images import BAD, COLOUR, GOOD, file_of

from corpora.contact_sheet import contact_sheet
from corpora.corpus import Caption, Corpus, CorpusError, CorpusWriter, ImageRecord
from corpora.images import FORMATS, write_images
from corpora.integrity import find_damage
from corpora.regions import write_regions
from corpora.report import as_text, describe, format_of

FILES = {
    "a": file_of(COLOUR, "JPEG"),
    "b": file_of(COLOUR.resize((30, 90)), "PNG"),
    "c": file_of(COLOUR, "JPEG"),  # the same file as a
    "d": file_of(COLOUR.rotate(90), "GIF"),
}
SPLITS = {"a": "train", "b": "train", "c": "val", "d": "val"}
SIZES = {"a": (60, 40), "b": (30, 90), "c": (60, 40), "d": (60, 40)}
TEXTS = ["one two three", "one", "one two", "A picture.", "A picture.", "six words are in this one", "one"]
OF = ["a", "a", "a", "b", "c", "d", "d"]


def make(folder, files=FILES):
    with CorpusWriter(folder, {"by": "hand"}, {"list.json": "digest"}) as writer:
        write_images(writer.part / "images.h5", files.items())
        writer.images += [
            ImageRecord(key, SPLITS[key], *SIZES[key], source="coco/1" if key == "b" else "", class_name=f"k{key}")
            for key in files
        ]
        writer.captions += [
            Caption(str(n), text, (key,)) for n, (text, key) in enumerate(zip(TEXTS, OF, strict=True)) if key in files
        ]
        writer.left_out += [{"id": "x", "path": "x.jpg", "reason": f"cannot be decoded ({n} bytes)"} for n in range(3)]
        writer.left_out.append({"id": "y", "path": "y.jpg", "reason": "no such file"})
    return Corpus(folder)


@pytest.fixture
def corpus(tmp_path):
    return make(tmp_path / "corpus")


def test_the_numbers(corpus):
    report = describe(corpus)
    json.dumps(report)
    train, val = report["splits"]["train"], report["splits"]["val"]
    assert (train["images"], train["captions"], train["classes"], train["texts_that_repeat"]) == (2, 4, 2, 0)
    assert train["captions_an_image"] == {"least": 1, "median": 2, "mean": 2, "p95": 3, "greatest": 3}
    assert (train["words_a_caption"]["median"], train["words_a_caption"]["mean"], train["words_a_caption"]["greatest"]) == (
        2,
        2,
        3,
    )
    assert val["longest_caption"] == "six words are in this one"
    images = report["images"]
    assert images["formats"] == {"JPEG": 2, "PNG": 1, "GIF": 1}
    assert images["bytes"] == sum(map(len, FILES.values()))
    assert (images["short_side"]["least"], images["short_side"]["greatest"], images["long_side"]["greatest"]) == (30, 40, 90)
    assert report["left_out"] == {"cannot be decoded": 3, "no such file": 1}
    assert report["collections"] == {"unknown": 3, "coco": 1}
    assert report["same"] == {
        "files_in_two_splits": 1,
        "examples": [["train: a", "val: c"]],
        "files_twice_in_a_split": 0,
        "texts_in_two_splits": 2,
    }


def test_the_table(corpus):
    write_regions(
        corpus.folder / "regions-grid.h5", [(key, np.ones((3, 5)), np.tile([0.0, 0.0, 1.0, 1.0], (3, 1))) for key in FILES], 4
    )
    lines = as_text(describe(corpus)).splitlines()
    assert lines[1].split() == ["train", "2", "4", "2", "1-3", "2,", "2.0,", "3,", "3"]
    assert "regions-grid.h5: 4 images x 3 regions x 5 numbers" in lines
    assert "left out    3: cannot be decoded" in lines
    assert lines[-1] == "WARNING     the same file in two splits: train: a, val: c"


def test_images_alone_and_texts_alone(tmp_path):
    with CorpusWriter(tmp_path / "products") as writer:
        write_images(writer.part / "images.h5", [("a", FILES["a"])])
        writer.images.append(ImageRecord("a", "test", 60, 40, "lamp"))
    with CorpusWriter(tmp_path / "texts") as writer:
        writer.captions.append(Caption("1", "a text", (), "all"))
    for name, row in (("products", "test 1 0 1 - -"), ("texts", "all 0 1 0 - 2, 2.0, 2, 2")):
        report = describe(Corpus(tmp_path / name))
        assert as_text(report).splitlines()[1].split() == row.split()
        assert find_damage(Corpus(tmp_path / name)) == []


@pytest.mark.parametrize("kind", FORMATS)
def test_formats_are_known_by_their_first_bytes(kind):
    names = {"WEBP": "WebP", "JPEG2000": "JPEG 2000"}
    assert format_of(file_of(COLOUR, kind)[:16]) == names.get(kind, kind)


def test_a_whole_corpus_has_no_damage(corpus):
    assert find_damage(corpus, workers=2) == []


def test_damage_is_found(corpus, tmp_path):
    changed = dict(FILES) | {"b": BAD["half and an end marker"][0], "d": GOOD["jpeg"]}
    sizes = dict(SIZES) | {"d": (61, 40)}
    other = tmp_path / "images.h5"
    write_images(other, [*changed.items(), ("e", FILES["a"])])
    with h5py.File(other, "r+") as file:
        start, end = file["offsets"][2], file["offsets"][3]
        file["bytes"][end - 10] ^= 1  # of c
        assert end - start > 10
    other.replace(corpus.folder / "images.h5")
    table = pq.read_table(corpus.folder / "images.parquet").to_pylist()
    for row in table:
        row["width"], row["height"] = sizes[row["id"]]
    pq.write_table(pa.Table.from_pylist(table), corpus.folder / "images.parquet")
    assert find_damage(Corpus(corpus.folder)) == [
        "image 'b': truncated (a JPEG whose scan ends before the picture does)",
        "image 'c': its bytes are not those that were packed",
        "image 'd': 60 x 40 pixels, recorded as 61 x 40",
        "image 'e': in images.h5 and not in images.parquet",
    ]


def test_tables_that_lost_a_row_are_an_error(corpus):
    table = pq.read_table(corpus.folder / "images.parquet")
    pq.write_table(table.slice(0, 3), corpus.folder / "images.parquet")
    with pytest.raises(CorpusError, match="should hold 2 images"):
        find_damage(Corpus(corpus.folder))


def test_a_sheet_shows_every_split_and_depends_on_the_seed_alone(corpus):
    sheet = contact_sheet(corpus, 2, seed=3)
    assert sheet.tobytes() == contact_sheet(corpus, 2, seed=3).tobytes()
    assert any(sheet.tobytes() != contact_sheet(corpus, 2, seed=seed).tobytes() for seed in range(4, 9))
    pixels = np.asarray(sheet)
    assert (pixels[:200].std(axis=2) > 0).any()  # pictures
    assert (pixels[210:] < 99).any() and (pixels[-3:] > 250).all()  # captions, on white


def test_a_sheet_of_a_corpus_of_one_picture(tmp_path):
    make(tmp_path / "one", {"b": FILES["b"]})
    assert contact_sheet(Corpus(tmp_path / "one"), 40, 0).size[0] == 216
