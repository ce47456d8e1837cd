from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from corpora.corpus import Caption, Corpus, CorpusWriter, ImageRecord
from corpora.images import write_images
from corpora.leakage import note_training
from error_analysis.analysis import Analysis, Options, analyse
from error_analysis.near_duplicates import Duplicates, Leak, section
from error_analysis.section import Section
from ranking.matrix import Ranking

CAPTIONS = {
    "val": {"a": ["a dog runs", "a brown dog is running fast"], "b": ["A dog runs!"], "c": ["a cat"], "d": ["a horse"]},
    "train": {"x": ["a cat"], "y": ["a cow", "a dog runs"]},
}


def picture(seed: int, quality: int = 90) -> bytes:
    blocks = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(blocks).resize((160, 120), Image.Resampling.BICUBIC).save(file, "JPEG", quality=quality)
    return file.getvalue()


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """Image b is a again, x is c byte for byte, y is d at another quality."""
    pictures = {"a": picture(0), "b": picture(0, 50), "c": picture(1), "d": picture(2), "x": picture(1), "y": picture(2, 50)}
    with CorpusWriter(tmp_path / "corpus") as writer:
        write_images(writer.part / "images.h5", pictures.items())
        for split, images in CAPTIONS.items():
            for key, texts in images.items():
                writer.images.append(ImageRecord(key, split, 160, 120, source=f"here/{key}"))
                writer.captions += [Caption(f"{key}-{number}", text, (key,)) for number, text in enumerate(texts)]
    return Corpus(tmp_path / "corpus")


@pytest.fixture
def analysis(corpus: Corpus, make_ranking: Callable[..., Ranking]) -> Analysis:
    split = corpus.split("val")
    scores = np.random.default_rng(3).random((4, 5))
    scores[3] = scores[2]
    return analyse({"m": make_ranking(split, scores)}, corpus, Options())


def test_duplicates_of_a_split(corpus: Corpus):
    found = Duplicates.of(corpus.split("val"), corpus)
    assert found.images.pairs.tolist() == [[0, 1]]
    assert found.texts.pairs.tolist() == [[0, 2]]
    assert found.sizes.tolist() == [[160, 120]] * 4
    assert found.unseen == 0


def test_what_stands_in_another_split_too(corpus: Corpus):
    found = Duplicates.of(corpus.split("val"), corpus)
    same, alike = [leak for leak in found.leaks if leak.kind == "image"]
    assert same == Leak("image", "c", "train", "x", "same file")
    assert (alike.id, alike.split, alike.other) == ("d", "train", "y")
    assert alike.how.startswith("looks alike, pixels differ by up to ")
    assert [(leak.id, leak.other) for leak in found.leaks if leak.kind == "caption"] == [
        ("a-0", "y-1"),
        ("b-0", "y-1"),
        ("c-0", "x-0"),
    ]


def test_too_many_images_to_look_at(corpus: Corpus, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("error_analysis.near_duplicates.MOST_LOOKS", 1)
    found = Duplicates.of(corpus.split("val"), corpus)
    assert [leak.how for leak in found.leaks if leak.kind == "image"] == ["same file"]
    assert found.unseen == 2


def test_captions_of_one_image_are_no_duplicates(make_corpus: Callable[..., Corpus]):
    corpus = make_corpus({"a": ["a dog", "A dog."], "b": ["a cat"]})
    assert Duplicates.of(corpus.split("val"), corpus).texts.of == {}


def rows(found: Section, name: str) -> list[tuple[object, ...]]:
    return [row for table in found.tables if table.name == name for row in table.rows]


def test_the_section(corpus: Corpus, analysis: Analysis):
    found = section(analysis, Duplicates.of(analysis.split, corpus))
    assert found.sentences[0].startswith("2 of 4 images look like another one")
    assert found.sentences[1] == "2 of 5 captions are all but the same as a caption of another image, 2 of them word for word."
    assert "m hardly tells 1 pair of images apart; 0 of them do look alike." in found.sentences
    assert "2 images and 3 captions stand in split train too." in found.sentences
    assert rows(found, "image-look-alikes")[0][:2] == ("a", "b")
    assert rows(found, "caption-near-duplicates") == [("a-0", "b-0", 100.0)]
    assert rows(found, "one-to-model-1") == [("c", "d", 1.0)]
    assert [row[0] for row in rows(found, "leaked-images")] == ["c", "d"]
    assert len(rows(found, "leaked-captions")) == 3


def test_a_corpus_without_images(corpus: Corpus, analysis: Analysis):
    (corpus.folder / "images.h5").unlink()
    found = Duplicates.of(analysis.split, corpus)
    assert found.sizes.shape == (0, 2)
    assert found.images.of == {}
    assert section(analysis, found).sentences[0] == "The corpus folder holds no images, so look-alikes were not searched."


def test_nothing_is_alike(make_corpus: Callable[..., Corpus], make_ranking: Callable[..., Ranking]):
    corpus = make_corpus({"a": ["a dog"]})
    split = corpus.split("val")
    analysis = analyse({"m": make_ranking(split, np.ones((1, 1)))}, corpus, Options())
    found = section(analysis, Duplicates.of(split, corpus))
    assert found.sentences == (
        "None of the 1 images looks like another one of the split.",
        "0 of 1 captions are all but the same as a caption of another image.",
    )
    assert found.tables == ()


def test_what_a_checkpoint_was_trained_on(corpus: Corpus, make_ranking: Callable[..., Ranking], tmp_path: Path):
    split = corpus.split("val")
    (tmp_path / "checkpoint").mkdir()
    note_training(tmp_path / "checkpoint", split.subset({"a", "b"}), os.devnull)
    scores = np.zeros((4, 5))
    for image, text in split.pairs.tolist():
        scores[image, text] = 1 if image < 3 else -1
    ranking = make_ranking(split, scores)
    known = replace(ranking, provenance=replace(ranking.provenance, checkpoint=str(tmp_path / "checkpoint")))
    found = section(analyse({"m": known}, corpus, Options()), Duplicates.of(split, corpus))
    assert (
        found.sentences[-1]
        == "m was trained on 2 of the 4 images: a truth stands first for 100.0% of these and 50.0% of the others."
    )
