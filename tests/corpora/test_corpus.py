"""Corpus folders: round trip, refusals, and writing that leaves all or nothing."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpora.corpus import Caption, Corpus, CorpusError, CorpusWriter, ImageRecord, Split, already_made
from corpora.images import write_images
from corpora.regions import write_regions
from corpora.store import StoreError

IMAGES = [ImageRecord("a", "train", 4, 3), ImageRecord("b", "train", 2, 2, "cat"), ImageRecord("c", "val", 1, 1)]
CAPTIONS = [
    Caption("1", "both, “quoted” ü", ("a", "b")),
    Caption("2", "only b", ("b",)),
    Caption("3", "c", ("c",)),
    Caption("4", "c again", ("c",)),
]


def write(folder, images=IMAGES, captions=CAPTIONS, stored=None):
    with CorpusWriter(folder, {"seed": 3}, {"x.json": "abc"}) as corpus:
        write_images(corpus.part / "images.h5", [(key, key.encode()) for key in stored or [image.id for image in images]])
        corpus.images += images
        corpus.captions += captions
    return Corpus(folder)


def test_round_trip(tmp_path):
    corpus = write(tmp_path / "tiny")
    train = corpus.split("train")
    assert (train.image_ids, train.classes) == (("a", "b"), ("", "cat"))
    assert train.texts == ("both, “quoted” ü", "only b")
    assert train.pairs.tolist() == [[0, 0], [1, 0], [1, 1]]
    assert corpus.split("val").text_ids == ("3", "4")
    assert corpus.images.read("b") == b"b"
    assert str(corpus).endswith("tiny: train 2 images and 2 captions, val 1 images and 2 captions")
    assert not list(tmp_path.glob(".*"))


def test_same_content_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        write(tmp_path / name / "tiny")
    for path in (tmp_path / "one" / "tiny").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / "tiny" / path.name).read_bytes(), path.name


def test_a_corpus_of_texts_alone_is_a_gallery(tmp_path):
    with CorpusWriter(tmp_path / "texts") as corpus:
        corpus.captions += [Caption("1", "a dog", split="test"), Caption("2", "a cat", split="test")]
    opened = Corpus(tmp_path / "texts")
    test = opened.split("test")
    assert (test.texts, test.image_ids, test.pairs.shape) == (("a dog", "a cat"), (), (0, 2))
    assert str(opened).endswith("test 0 images and 2 captions")


def test_the_same_picture_in_two_splits_is_refused(tmp_path):
    known = [replace(image, source=f"coco/{i // 2}") for i, image in enumerate(IMAGES)]
    assert write(tmp_path / "one", known).split("train").sources == ("coco/0", "coco/0")
    with pytest.raises(CorpusError, match="b in split train and c in split val are the same picture, coco/9"):
        write(tmp_path / "two", [known[0], *(replace(image, source="coco/9") for image in IMAGES[1:])])
    assert not (tmp_path / "two").exists()


def test_a_corpus_without_texts_is_metric_learning(tmp_path):
    train = write(tmp_path / "products", captions=[]).split("train")
    assert train.texts == ()
    assert train.pairs.shape == (0, 2)


@pytest.mark.parametrize(
    ("images", "captions", "words"),
    [
        (IMAGES, CAPTIONS[1:], "1 of 2 images have no caption, the first: a"),
        (IMAGES, [*CAPTIONS, Caption("9", "lost", ("zebra",))], r"caption 9 \('lost'\) describes zebra: no such image"),
        (IMAGES, [*CAPTIONS, Caption("9", "lost", ())], "describes no image"),
        (IMAGES, [*CAPTIONS, Caption("9", "wide", ("a", "c"))], "several splits: train, val"),
        (IMAGES, [*CAPTIONS, CAPTIONS[0]], "caption ids stand there more than once, the first: 1"),
        ([*IMAGES, IMAGES[1]], CAPTIONS, "image ids stand there more than once, the first: b"),
    ],
)
def test_inconsistent_corpora_are_refused_and_leave_nothing(tmp_path, images, captions, words):
    with pytest.raises((CorpusError, StoreError), match=words):
        write(tmp_path / "bad", images, captions, ["a", "b", "c"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stored", [["a", "b"], ["a", "b", "c", "d"], ["a", "b", "d"]])
def test_stored_images_must_be_the_records(tmp_path, stored):
    with pytest.raises(CorpusError, match="images stored for 3 records"):
        write(tmp_path / "bad", stored=stored)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_interrupted_write_leaves_no_folder(tmp_path, error):
    with pytest.raises(error), CorpusWriter(tmp_path / "x") as corpus:
        (corpus.part / "images.h5").write_text("half")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_job_left_is_cleared_away(tmp_path):
    left = CorpusWriter(tmp_path / "tiny").part
    left.mkdir()
    (left / "regions-old.h5").write_text("half")
    with pytest.raises(CorpusError, match="no corpus here"):
        Corpus(tmp_path / "tiny")
    write(tmp_path / "tiny")
    assert not list((tmp_path / "tiny").glob("regions*"))


def test_an_existing_folder_is_never_overwritten(tmp_path):
    write(tmp_path / "tiny")
    before = (tmp_path / "tiny" / "corpus.json").read_bytes()
    with pytest.raises(CorpusError, match="exists already"):
        write(tmp_path / "tiny")
    assert (tmp_path / "tiny" / "corpus.json").read_bytes() == before


def test_wrong_split_suggests_the_nearest(tmp_path):
    with pytest.raises(CorpusError, match=r"no split 'tran'; it has train, val; did you mean 'train'\?"):
        write(tmp_path / "tiny").split("tran")


def test_missing_corpus_suggests_its_neighbours_or_how_to_make_one(tmp_path):
    with pytest.raises(CorpusError, match=r"make one first, for example: python jobs/make_scenes\.py"):
        Corpus(tmp_path / "tiny")
    write(tmp_path / "tiny")
    with pytest.raises(CorpusError, match="corpora beside it: tiny"):
        Corpus(tmp_path / "tny")


def test_regions_are_named_or_the_only_ones(tmp_path):
    corpus = write(tmp_path / "tiny")
    with pytest.raises(CorpusError, match="the corpus has none"):
        corpus.regions()
    write_regions(corpus.folder / "regions-grid.h5", [(key, np.zeros((1, 2)), np.zeros((1, 4))) for key in "abc"], 3)
    assert corpus.regions().path == corpus.regions("grid").path
    with pytest.raises(CorpusError, match=r"no region features .truth. .* one of: grid"):
        corpus.regions("truth")
    write_regions(corpus.folder / "regions-yolo.h5", [(key, np.zeros((1, 2)), np.zeros((1, 4))) for key in "abc"], 3)
    with pytest.raises(CorpusError, match="one of: grid, yolo"):
        corpus.regions()


def test_other_schema_and_broken_json(tmp_path):
    path = write(tmp_path / "tiny").folder / "corpus.json"
    info = json.loads(path.read_text())
    path.write_text(json.dumps({**info, "schema": 99}))
    with pytest.raises(CorpusError, match="schema 99, this version reads 2"):
        Corpus(tmp_path / "tiny")
    path.write_text("{")
    with pytest.raises(CorpusError, match=r"corpus\.json: cannot be read"):
        Corpus(tmp_path / "tiny")


@pytest.mark.parametrize("table", ["images.parquet", "captions.parquet"])
def test_missing_cut_or_stale_tables(tmp_path, table):
    corpus = write(tmp_path / "tiny")
    path = corpus.folder / table
    data = path.read_bytes()
    path.write_bytes(data[:-20])
    with pytest.raises(CorpusError, match=f"{table}: cannot be read"):
        corpus.split("train")
    path.unlink()
    with pytest.raises(CorpusError, match=f"{table}: no such file"):
        corpus.split("train")


def test_counts_that_disagree_with_the_tables(tmp_path):
    corpus = write(tmp_path / "tiny")
    corpus.info["splits"]["train"]["captions"] = 7
    with pytest.raises(CorpusError, match="should hold 2 images and 7 captions"):
        corpus.split("train")


def test_already_made_compares_options_and_sources(tmp_path):
    folder = tmp_path / "tiny"
    assert not already_made(folder, {"seed": 3}, {"x.json": "abc"})
    write(folder)
    assert already_made(folder, {"seed": 3}, {"x.json": "abc"})
    with pytest.raises(CorpusError, match=r"seed 3 there and 4 here\); remove it or choose another folder"):
        already_made(folder, {"seed": 4}, {"x.json": "abc"})
    with pytest.raises(CorpusError, match=r"x\.json abc there and unknown here; y\.json unknown there and d here"):
        already_made(folder, {"seed": 3}, {"y.json": "d"})


def test_subset_keeps_pairs_and_order(tmp_path):
    train = write(tmp_path / "tiny").split("train")
    only_b = train.subset(["b"])
    assert (only_b.image_ids, only_b.text_ids, only_b.classes) == (("b",), ("1", "2"), ("cat",))
    assert only_b.pairs.tolist() == [[0, 0], [0, 1]]
    assert train.subset(["b", "a"]).digest == train.digest
    with pytest.raises(CorpusError, match="1 of the listed images are not in it, the first: z"):
        train.subset(["a", "z"])


@given(st.data())
def test_subset_agrees_with_a_loop(data):
    images = [f"i{k}" for k in range(data.draw(st.integers(1, 6)))]
    related = [data.draw(st.sets(st.sampled_from(images), min_size=1)) for _ in range(data.draw(st.integers(1, 8)))]
    related += [{image} for image in images]  # every image has a text
    pairs = sorted((images.index(image), j) for j, group in enumerate(related) for image in group)
    texts = tuple(f"t{j}" for j in range(len(related)))
    split = Split("s", tuple(images), ("",) * len(images), texts, texts, np.array(pairs))
    wanted = data.draw(st.sets(st.sampled_from(images), min_size=1))
    small = split.subset(wanted)
    by_id = {(small.image_ids[i], small.text_ids[j]) for i, j in small.pairs}
    assert by_id == {(image, texts[j]) for j, group in enumerate(related) for image in group & wanted}
    assert set(small.image_ids) == wanted


def test_digest_tells_texts_ids_and_pairs_apart(tmp_path):
    split = write(tmp_path / "tiny").split("train")
    others = [
        replace(split, texts=("x", "only b")),
        replace(split, image_ids=("a", "z")),
        replace(split, pairs=np.array([[0, 0], [1, 1]])),
    ]
    assert len({split.digest, *(other.digest for other in others)}) == 4
