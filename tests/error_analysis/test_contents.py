from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from corpora.corpus import Corpus, Split
from error_analysis.contents import Contents, captions_of, meant
from error_analysis.language import read


@pytest.fixture
def split() -> Split:
    texts = ("a red ball", "a boy with a ball", "a dog on grass", "a blue ball", "two dogs")
    pairs = np.array([(0, 0), (0, 1), (1, 2), (1, 4), (2, 1), (2, 3)])
    return Split("val", ("x", "y", "z"), ("", "", ""), tuple("abcde"), texts, pairs)


def test_captions_of_each_image(split: Split):
    assert [texts.tolist() for texts in captions_of(split)] == [[0, 1], [2, 4], [1, 3]]
    assert [texts.tolist() for texts in Contents.of(split).captions] == [[0, 1], [2, 4], [1, 3]]


def test_an_image_says_what_its_captions_say(split: Split):
    contents = Contents.of(split)
    assert contents.said[0].objects == {"ball", "boy", "child", "person"}
    assert contents.said[1].objects == {"dog", "grass", "anim"}
    assert contents.said[2].attributes == {("blue", "ball")}


@pytest.mark.parametrize(
    ("text", "images"), [("a ball", 2), ("a red ball", 1), ("a child", 2), ("a red dog", 0), ("a unicorn", 0), ("", 3)]
)
def test_in_how_many_images_all_words_are_said(split: Split, text: str, images: int):
    contents = Contents.of(split)
    assert contents.fitting(read([text])[0].meaning) == images


def test_stems_are_spoken_as_the_most_frequent_word(split: Split):
    contents = Contents.of(split)
    assert contents.spoken({"dog", "ball"}) == "ball, dog"
    assert contents.spoken(["xyzzi"]) == "xyzzi"
    many = Split("val", ("x",), ("",), ("a", "b", "c"), ("two dogs", "dogs", "a dog"), np.array([(0, 0), (0, 1), (0, 2)]))
    assert Contents.of(many).spoken(["dog"]) == "dogs"


@pytest.fixture
def small_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("error_analysis.contents.SELDOM", 1)


@pytest.mark.usefixtures("small_is_enough")
def test_words_are_counted_in_every_split_of_the_corpus(make_corpus: Callable[..., Corpus]):
    corpus = make_corpus({"x": ["a zebra", "a dog"], "y": ["a dog", "one dog"]})
    contents = Contents.of(corpus.split("val").subset({"x"}), corpus)
    assert contents.counts["dog"] == 3
    assert contents.rare(0) == ("zebra",)
    assert contents.rare(1) == ()


@pytest.mark.parametrize(("captions", "rare"), [(599, False), (600, True)])
def test_a_word_of_few_captions_is_not_rare_where_there_are_few(captions: int, rare: bool):
    texts = ("a zebra", "the zebra", *["a dog"] * (captions - 2))
    split = Split("val", ("x",), ("",), tuple(map(str, range(captions))), texts, np.array([(0, i) for i in range(captions)]))
    assert ("zebra" in Contents.of(split).rare(0)) == rare


@pytest.mark.usefixtures("small_is_enough")
def test_rare_words_and_misspellings():
    texts = ("a giaraffe eats", *["a giraffe eats"] * 40, "a zebra eats 77")
    split = Split(
        "val", ("x",), ("",), tuple(str(i) for i in range(len(texts))), texts, np.array([(0, i) for i in range(len(texts))])
    )
    contents = Contents.of(split)
    assert contents.rare(0) == ("giaraffe (giraffe?)",)
    assert contents.misspelt(0)
    assert contents.rare(1) == ()
    assert contents.rare(41) == ("zebra",)  # a number is no rare word
    assert not contents.misspelt(41)


@pytest.mark.parametrize(
    ("word", "counts", "other"),
    [
        ("tennsi", {"tennis": 20, "tennsi": 1}, "tennis"),
        ("tennsi", {"tennis": 19, "tennsi": 1}, ""),  # not frequent enough
        ("tennsi", {"tennis": 39, "tennsi": 2}, ""),
        ("tenis", {"tennis": 500, "tenis": 1, "tents": 8, "pennies": 900}, "tennis"),  # one letter, against too few and too many
        ("toliets", {"toilets": 30, "toliets": 1}, "toilets"),
        ("dawg", {"dawn": 400, "dawg": 1}, ""),  # too short
        ("tables", {"table": 900, "tables": 1}, ""),  # known
        ("moxos", {"moxo": 900, "moxos": 1}, ""),  # a plural
        ("bycile", {"bicycle": 900, "bycile": 1}, ""),  # two letters off
    ],
)
def test_what_a_misspelling_stands_for(word: str, counts: dict[str, int], other: str):
    assert meant(word, Counter(counts)) == other


def test_a_split_without_captions():
    contents = Contents.of(Split("val", ("x", "y"), ("c", "d"), (), (), np.empty((0, 2), np.int64)))
    assert contents.readings == ()
    assert [said.content for said in contents.said] == [frozenset(), frozenset()]
