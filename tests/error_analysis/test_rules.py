from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from corpora.corpus import Split
from error_analysis.contents import Contents
from error_analysis.language import Meaning, read
from error_analysis.likeness import Pairs
from error_analysis.mining import Direction, Retrieval
from error_analysis.near_duplicates import Duplicates
from error_analysis.rules import (
    MANY,
    RULES,
    Contradiction,
    Evidence,
    contradictions,
    detail,
    gross_error,
    ground_truth_gap,
    hub,
    near_duplicate,
    rare_words,
    under_specified,
    wrong_object,
)
from ranking.matrix import Ranking

NONE = Pairs(np.empty((0, 2), np.int64), np.empty(0))


def pairs(*found: tuple[int, int]) -> Pairs:
    return Pairs(np.array(found, np.int64).reshape(-1, 2), np.zeros(len(found)))


def meaning(*texts: str) -> Meaning:
    return Meaning.together(reading.meaning for reading in read(texts))


@pytest.fixture(autouse=True)
def _rare_words_of_small_corpora(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("error_analysis.contents.SELDOM", 1)


@pytest.fixture
def evidence(make_ranking: Callable[..., Ranking]) -> Callable[..., Evidence]:
    """evidence(captions of each image, direction, what Evidence and Duplicates hold more): scores are 0."""

    def make(
        captions: list[list[str]],
        direction: Direction = "t2i",
        scores: np.ndarray | None = None,
        images: Pairs = NONE,
        texts: Pairs = NONE,
        accepted: frozenset[tuple[int, int]] = frozenset(),
    ) -> Evidence:
        said = [text for own in captions for text in own]
        described = np.repeat(np.arange(len(captions)), [len(own) for own in captions])
        ids = tuple(f"i{i}" for i in range(len(captions)))
        split = Split(
            "val",
            ids,
            ("",) * len(ids),
            tuple(f"t{i}" for i in range(len(said))),
            tuple(said),
            np.stack([described, np.arange(len(said))], axis=1),
        )
        matrix = np.zeros((len(ids), len(said))) if scores is None else scores
        retrieval = Retrieval.of(make_ranking(split, matrix), direction)
        duplicates = Duplicates(images, texts, np.empty((0, 2), np.int64), (), 0)
        return Evidence(retrieval, retrieval.neighbours, Contents.of(split), duplicates, accepted)

    return make


def test_near_duplicates_by_looks_letters_and_the_looks_of_what_a_caption_describes(evidence: Callable[..., Evidence]):
    captions = [["a dog"], ["a cat"], ["a cow", "a pig"]]
    found = evidence(captions, "t2i", images=pairs((0, 1)))
    assert near_duplicate(found, 0, 1) == "looks like i0"
    assert near_duplicate(found, 1, 0) == "looks like i1"
    assert near_duplicate(found, 0, 2) == ""
    assert near_duplicate(found, 2, 1) == ""  # like another image, but not like the truth
    found = evidence(captions, "i2t", texts=pairs((1, 3)))
    assert near_duplicate(found, 2, 1) == "reads like t3"
    assert near_duplicate(found, 0, 1) == ""
    found = evidence(captions, "i2t", images=pairs((0, 1)))
    assert near_duplicate(found, 0, 1) == "describes i1, which looks like it"
    assert near_duplicate(found, 0, 2) == ""


def test_a_gap_of_the_truth(evidence: Callable[..., Evidence]):
    captions = [
        ["a red ball", "A red ball on grass"],
        ["the grass is green", "a ball rolls"],
        ["a Red ball!"],
        ["a blue ball, red grass"],
    ]
    found = evidence(captions)
    assert ground_truth_gap(found, 4, 0) == "the image has a caption with the same words"
    assert ground_truth_gap(found, 0, 2) == "the image has a caption with the same words"
    assert ground_truth_gap(found, 3, 0) == ""  # rolls
    assert ground_truth_gap(found, 0, 3) == ""  # red and ball are both there, but the ball is blue
    assert (
        ground_truth_gap(evidence([["a ball"], ["a ball in snow"], ["a dog"]]), 0, 1)
        == "the image's captions say all that this one says"
    )
    assert ground_truth_gap(evidence([["a ball"], ["a dog"]], accepted=frozenset({(1, 0)})), 0, 1) == "other judges hold it right"
    judged = evidence([["a ball"], ["a dog"]], "i2t", accepted=frozenset({(1, 0)}))
    assert ground_truth_gap(judged, 1, 0) == "other judges hold it right"
    assert ground_truth_gap(judged, 0, 1) == ""


@pytest.mark.parametrize(("images", "rule"), [(MANY, ground_truth_gap), (MANY + 1, under_specified)])
def test_what_fits_many_images_says_too_little(evidence: Callable[..., Evidence], images: int, rule: Callable[..., str]):
    found = evidence([[f"a ball and {number} things" for number in (i, i + 50)] for i in range(images)] + [["a dog"]])
    assert [bool(one(found, 0, 1)) for one in (ground_truth_gap, under_specified)] == [
        rule is one for one in (ground_truth_gap, under_specified)
    ]
    assert not rule(found, 0, images)


def test_a_caption_that_names_nothing(evidence: Callable[..., Evidence]):
    assert under_specified(evidence([["this is it"], ["a dog"]]), 0, 1) == "the caption names nothing"


def test_a_detail(evidence: Callable[..., Evidence]):
    captions = [["a red square and a blue ring"], ["a blue square and a red ring"], ["a square, a ring and a dog"], ["a ring"]]
    found = evidence(captions)
    assert detail(found, 0, 1) == "blue ring, there red; red square, there blue"
    assert detail(found, 0, 2) == "not said of the image: blue, red"
    assert detail(found, 0, 3) == ""
    assert detail(evidence([["running fast"], ["a dog"]]), 0, 1) == ""  # no object
    assert detail(evidence(captions, "i2t"), 1, 0) == "blue ring, there red; red square, there blue"


@pytest.mark.parametrize(
    ("text", "said", "found"),
    [
        ("a red ball", ["a blue ball"], [(("red", "ball"), ("blue",))]),
        ("a red ball", ["a blue ball", "the red ball"], []),
        ("a red ball", ["a small ball"], []),
        ("two dogs", ["three dogs", "4 dogs"], [(("2", "dog"), ("3", "4"))]),
        ("two dogs", ["2 dogs"], []),
        ("a tiny dog", ["a huge dog"], [(("small", "dog"), ("large",))]),
        ("a cat under a table", ["a cat on top of a table"], [(("tabl", "above", "cat"), ("the other way round",))]),
        ("a cat under a table", ["a table above a cat"], []),
        ("a cat left of a dog", ["a cat right of a dog"], [(("cat", "left of", "dog"), ("the other way round",))]),
        ("a cat left of a dog", ["a cat above a dog"], []),
    ],
)
def test_contradictions(text: str, said: list[str], found: list[tuple[tuple[str, ...], tuple[str, ...]]]):
    assert contradictions(meaning(text), meaning(*said)) == [Contradiction(*one) for one in found]


def test_hubs(evidence: Callable[..., Evidence]):
    """Of 40 images one stands among the first ten of all 40 captions, the others of about ten."""
    rng = np.random.default_rng(0)
    scores = rng.random((40, 40))
    scores[5] = 2
    found = evidence([[f"caption {i}"] for i in range(40)], scores=scores)
    assert found.occurrences.sum() == 400
    assert found.hub_from == pytest.approx(10 + 3 * np.std(found.occurrences))
    assert hub(found, 0, 5) == "among the first 10 of 40 queries"
    assert not any(hub(found, 0, item) for item in range(40) if item != 5)


def test_rare_words(evidence: Callable[..., Evidence]):
    captions = [["a dog runs", "a dog"], ["a dog runs", "a zebra runs"], ["a gnu", "an okapi"], ["a dog runs"]]
    found = evidence(captions)
    assert rare_words(found, 3, 0) == "zebra"
    assert rare_words(found, 0, 1) == ""
    assert rare_words(found, 5, 0) == "an, okapi"
    found = evidence(captions, "i2t")
    assert rare_words(found, 1, 0) == ""  # one of its captions has none
    assert rare_words(found, 2, 0) == "an, gnu, okapi"


def test_wrong_objects_and_gross_errors(evidence: Callable[..., Evidence]):
    found = evidence([["a dog and a ball"], ["a ball on grass"], ["a cat sleeps"], ["sleeping"]])
    assert wrong_object(found, 0, 1) == "ball, but no dog"
    assert wrong_object(found, 0, 2) == ""
    assert gross_error(found, 0, 2) == "no ball, dog"
    assert gross_error(found, 3, 0) == "the caption names no object"


def test_a_person_is_found_where_a_boy_is_named(evidence: Callable[..., Evidence]):
    found = evidence([["a person with a ball"], ["a boy with a bat"]])
    assert wrong_object(found, 0, 1) == "person, but no ball"


def test_the_last_rule_holds_always():
    assert list(RULES)[-1] == "gross error"
    assert all(said.endswith(".") for _, said in RULES.values())
