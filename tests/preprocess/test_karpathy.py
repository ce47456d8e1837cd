"""Karpathy's caption files, hand-made and real, become corpus folders; what is wrong is told once and clearly."""

from __future__ import annotations

import json
import random
import shutil
import tarfile

import numpy as np
import pytest
from PIL import Image

from corpora.corpus import Corpus, CorpusError
from corpora.store import StoreError
from preprocess.karpathy import prepare
from preprocess.packing import Packing


def entry(number, split, captions, **more):
    sentences = [
        {"raw": raw, "tokens": raw.lower().split(), "imgid": number, "sentid": 10 * number + k} for k, raw in enumerate(captions)
    ]
    return {
        "filename": f"COCO_{number:012d}.jpg",
        "imgid": number,
        "split": split,
        "sentids": [s["sentid"] for s in sentences],
        "sentences": sentences,
        **more,
    }


ENTRIES = [
    entry(1, "train", ["A cat.", " Two Cats ,  on a mat . \n"], cocoid=501, filepath="train2014"),
    entry(2, "restval", [f"Caption {k}" for k in range(7)], cocoid=502, filepath="val2014"),
    entry(3, "test", ["“Straße”"], cocoid=503, filepath="val2014"),
]


@pytest.fixture
def download(tmp_path):
    """Writes a caption file and its images, one of them outside its `filepath`."""

    def write(entries=ENTRIES):
        for k, row in enumerate(entries):
            place = tmp_path / "images" / (row.get("filepath", "") if k != 2 else "")
            place.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (5 + k, 4), (k, 0, 0)).save(place / row["filename"])
        (tmp_path / "captions.json").write_text(json.dumps({"images": entries, "dataset": "tiny"}), encoding="utf-8")
        return tmp_path / "captions.json", tmp_path / "images", tmp_path / "corpus"

    return write


def test_hand_made_corpus(download):
    annotations, images, folder = download()
    assert prepare(annotations, images, folder)
    corpus = Corpus(folder)
    assert str(corpus).endswith("train 2 images and 9 captions, test 1 images and 1 captions")
    train = corpus.split("train")
    assert train.image_ids == ("501", "502")
    assert train.texts[:2] == ("A cat.", "Two Cats ,  on a mat .")
    assert train.text_ids == ("10", "11", "20", "21", "22", "23", "24", "25", "26")
    assert train.pairs[:, 0].tolist() == [0, 0] + [1] * 7
    assert corpus.split("test").texts == ("“Straße”",)
    assert corpus.images.read("502") == (images / "val2014" / "COCO_000000000002.jpg").read_bytes()
    assert corpus.images.picture("503").size == (7, 4)
    assert list(corpus.info["sources"]) == ["captions.json"]


def test_restval_can_stay_a_split(download):
    annotations, images, folder = download()
    prepare(annotations, images, folder, restval="keep")
    assert set(Corpus(folder).info["splits"]) == {"train", "restval", "test"}


def test_restval_can_be_dropped(download):
    annotations, images, folder = download()
    (images / "val2014" / "COCO_000000000002.jpg").unlink()  # its images are not needed then
    prepare(annotations, images, folder, restval="drop")
    assert str(Corpus(folder)).endswith("train 1 images and 2 captions, test 1 images and 1 captions")


def test_the_first_captions_can_be_kept_alone(download):
    annotations, images, folder = download()
    prepare(annotations, images, folder, captions_an_image=5)
    train = Corpus(folder).split("train")
    assert train.text_ids == ("10", "11", "20", "21", "22", "23", "24")
    with pytest.raises(CorpusError, match="--captions-an-image -1"):
        prepare(annotations, images, folder, captions_an_image=-1)


def test_pictures_are_known_by_the_collection_they_come_from(download):
    annotations, images, folder = download()
    prepare(annotations, images, folder)
    assert Corpus(folder).split("train").sources == ("coco/501", "coco/502")


@pytest.mark.parametrize(
    ("dataset", "name", "source"),
    [
        ("flickr30k", "1000092795.jpg", "flickr/1000092795"),
        ("flickr8k", "1000268201_693b08cb0e.jpg", "flickr/1000268201"),
        ("flickr8k", "portrait.jpg", ""),
        ("mine", "1000092795.jpg", ""),
        ("mine", "COCO_val2014_000000000042.jpg", "coco/42"),
    ],
)
def test_sources_by_file_name(download, dataset, name, source):
    annotations, images, folder = download([entry(1, "val", ["x"], filename=name)])
    annotations.write_text(annotations.read_text().replace('"tiny"', f'"{dataset}"'))
    prepare(annotations, images, folder)
    assert Corpus(folder).split("val").sources == (source,)


def test_three_hundred_mutants_of_an_annotation_file(download):
    """Each is one clear error, or a corpus of the captions that the mutant holds."""
    annotations, images, folder = download()
    rng, text, refused = random.Random(0), annotations.read_text(), 0
    for _ in range(300):
        annotations.write_text(mutated(text, rng))
        try:
            prepare(annotations, images, folder, packing=Packing("skip"))
        except (CorpusError, StoreError) as error:
            refused += 1
            assert len(str(error)) > 20
        else:
            held = [s["raw"].strip() for row in json.loads(annotations.read_text())["images"] for s in row["sentences"]]
            kept = [text for name in Corpus(folder).info["splits"] for text in Corpus(folder).split(name).texts]
            left = {row["id"] for row in Corpus(folder).info["left_out"]}
            assert sorted(held) == sorted(kept) or (left and set(kept) < set(held))
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(folder.with_name(".corpus.pieces"), ignore_errors=True)
    assert refused > 150


def mutated(text: str, rng: random.Random) -> str:
    kind = rng.randrange(5)
    if kind == 0:
        return text[: rng.randrange(len(text))]
    if kind == 1:
        place = rng.randrange(len(text))
        return text[:place] + chr(rng.choice((0, 34, 44, 57, 92, 125, 955))) + text[place + 1 :]
    content = json.loads(text)
    rows = content["images"]
    row = rng.choice(rows)
    if kind == 2:
        rows.insert(rng.randrange(3), rng.choice([row, row["sentences"], None, 3]))
    elif kind == 3:
        place = rng.choice([row, rng.choice(row["sentences"])])
        place[rng.choice(sorted(place))] = rng.choice(
            [None, 1, -1, 2.5, "", "x", [], {}, True, "501", "a\0b", "\ud800", "../x", "e" * 300]
        )
    else:
        place = rng.choice([content, row, rng.choice(row["sentences"])])
        del place[rng.choice(sorted(place))]
    return json.dumps(content)


def test_flickr_ids_are_file_stems(download):
    annotations, images, folder = download([entry(1, "val", ["x"], filename="1000_a.b.jpg")])
    prepare(annotations, images, folder)
    assert Corpus(folder).split("val").image_ids == ("1000_a.b",)


def test_the_same_corpus_is_left_and_another_refused(download):
    annotations, images, folder = download()
    assert prepare(annotations, images, folder)
    assert not prepare(annotations, images, folder)
    with pytest.raises(CorpusError, match="restval train there and keep here"):
        prepare(annotations, images, folder, restval="keep")
    annotations.write_text(annotations.read_text() + "\n")
    with pytest.raises(CorpusError, match=r"made otherwise \(captions\.json"):
        prepare(annotations, images, folder)


def spoil(images):
    (images / "train2014" / "COCO_000000000001.jpg").unlink()
    (images / "COCO_000000000003.jpg").write_bytes(b"<html>404</html>")


def test_bad_images_stop_with_all_of_them_and_leave_nothing(download):
    annotations, images, folder = download()
    spoil(images)
    with pytest.raises(CorpusError, match="2 of 3 images cannot be used") as caught:
        prepare(annotations, images, folder)
    assert "train2014/COCO_000000000001.jpg: no such file" in str(caught.value)
    assert "COCO_000000000003.jpg: not a whole image of a kind that is decoded here" in str(caught.value)
    assert sorted(path.name for path in folder.parent.iterdir()) == [".corpus.pieces", "captions.json", "images"]


def test_bad_images_can_be_left_out_and_are_recorded(download):
    annotations, images, folder = download()
    spoil(images)
    prepare(annotations, images, folder, packing=Packing("skip"))
    corpus = Corpus(folder)
    assert [(row["id"], row["reason"][:17]) for row in corpus.info["left_out"]] == [
        ("501", "no such file"),
        ("503", "not a whole image"),
    ]
    assert str(corpus).endswith("train 1 images and 7 captions; 2 images left out")


def without(row, key):
    return {name: value for name, value in row.items() if name != key}


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([*ENTRIES, ENTRIES[0]], "1 image ids stand there more than once, the first: 501"),
        ([ENTRIES[0], {**entry(1, "val", ["again"]), "cocoid": 7}], "1 caption ids stand there more than once, the first: 10"),
        ([*ENTRIES, entry(9, "val", [])], "1 images have no caption, the first: COCO_000000000009"),
        ([entry(9, "val", ["good", "  "])], "image 0, caption 91: the caption is empty"),
        ([{**entry(9, "val", ["x"]), "imgid": 8}], "caption 90 stands under image COCO_000000000009 and names another imgid"),
        ([without(ENTRIES[0], "split")], r"image 0 is damaged \(KeyError: 'split'\); expected Karpathy's layout"),
        ([*ENTRIES, without(ENTRIES[0], "sentences")], "image 3 is damaged"),
        (
            [{**ENTRIES[0], "sentences": [{"raw": None, "sentid": 1}]}],
            "image 0, caption 1: the caption is 'None'; expected a text",
        ),
        ([{**ENTRIES[0], "sentences": ["A cat."]}], "image 0 is damaged"),
    ],
)
def test_inconsistent_annotations(download, entries, words):
    annotations, images, folder = download(entries)
    with pytest.raises((CorpusError, StoreError), match=words) as caught:
        prepare(annotations, images, folder)
    assert "captions.json" in str(caught.value)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("filename", "../../secret.jpg"),
        ("filename", "/secret.jpg"),
        ("filepath", "/etc"),
        ("filepath", ".."),
        ("filename", 3),
        ("filename", "e" * 300),
        ("filename", "a\0b.jpg"),
        ("filename", "\ud800.jpg"),
        ("filepath", None),
    ],
)
def test_files_outside_the_folder_are_not_read(download, key, value):
    annotations, images, folder = download()
    annotations.write_text(json.dumps({"images": [{**ENTRIES[0], key: value}]}))
    with pytest.raises(CorpusError, match=r"captions\.json: image 0: the file is .*; expected a name below the images' folder"):
        prepare(annotations, images, folder)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"images": {}}', '{"images": []}', '{"annotations": []}', '{"images": 3}', "null"]
)
def test_json_of_another_layout_says_what_was_expected(download, text):
    annotations, images, folder = download()
    annotations.write_text(text)
    with pytest.raises(CorpusError, match=r"captions\.json: .*expected Karpathy's layout"):
        prepare(annotations, images, folder)


def test_missing_places(download):
    annotations, images, folder = download()
    with pytest.raises(CorpusError, match=r"other\.json: cannot be read \(No such file"):
        prepare(annotations.with_name("other.json"), images, folder)
    with pytest.raises(CorpusError, match="nowhere: no such folder of images"):
        prepare(annotations, images / "nowhere", folder)


def test_twenty_real_photos(test_data, tmp_path):
    source = test_data / "flickr8k-mini"
    rows = json.loads((source / "dataset_flickr8k_mini.json").read_text())["images"]
    few = [*rows[:15], *[row for row in rows if row["split"] == "val"][:5]]
    (tmp_path / "few.json").write_text(json.dumps({"images": few}))
    (tmp_path / "images").mkdir()
    with tarfile.open(source / "images.tar") as archive:
        for row in few:
            member = archive.extractfile(f"images/{row['filename']}")
            (tmp_path / "images" / row["filename"]).write_bytes(member.read())
    prepare(tmp_path / "few.json", tmp_path / "images", tmp_path / "corpus")
    corpus = Corpus(tmp_path / "corpus")
    train, val = corpus.split("train"), corpus.split("val")
    assert (len(train.image_ids), len(train.texts), len(val.image_ids), len(val.texts)) == (15, 75, 5, 25)
    for row in few:
        split = corpus.split(row["split"])
        image = split.image_ids.index(row["filename"].removesuffix(".jpg"))
        mine = [split.texts[j] for i, j in split.pairs if i == image]
        assert mine == [sentence["raw"].strip() for sentence in row["sentences"]]
        stored = np.asarray(corpus.images.picture(split.image_ids[image]))
        np.testing.assert_array_equal(stored, np.asarray(Image.open(tmp_path / "images" / row["filename"])))
