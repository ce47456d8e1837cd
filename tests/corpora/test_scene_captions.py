"""Captions are true: the words are read back by a parser of their own and checked by loops against the scene."""

from __future__ import annotations

import re
from collections import Counter
from itertools import permutations

import numpy as np
import pytest

from corpora.scene_captions import Phrase, Statement, captions, vague
from corpora.scenes import COLOURS, SHAPES, Kind, Scene, Thing, sample_scene

NAMED = re.compile(rf"\b(an?) (?:(small|little|large|big) )?({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})\b")
SIZES = {"small": "small", "little": "small", "large": "large", "big": "large", "": ""}
DIRECTIONS = {"left of": (1, 0), "right of": (-1, 0), "above": (0, 1), "over": (0, 1), "below": (0, -1), "under": (0, -1)}
NUMBERS = {"two": 2, "three": 3, "four": 4}


def said(text):
    """What a caption says: things, directions from the first to a later one, (number, noun) or None, background words."""
    matches = list(NAMED.finditer(text))
    things = [(SIZES[match[2] or ""], match[3], match[4]) for match in matches]
    directions = {}
    for k in range(1, len(matches)):
        between = text[matches[k - 1].end() : matches[k].start()]
        directions |= dict([(k, way) for words, way in DIRECTIONS.items() if words in between])
    count = re.match(r"(two|three|four) (.+?)s and one of them is", text)
    only = re.search(r"is the only (.+)$", text)
    number = (NUMBERS[count[1]], re.sub("crosse$", "cross", count[2])) if count else (1, only[1]) if only else None
    background = re.search(r" on a (.+) background$", text)
    return things, directions, number, background[1].split() if background else []


def is_true(text, scene):
    things, directions, number, background = said(text)
    if number:
        count, noun = number
        words = [word for word in noun.split() if word != "shape"]
        matching = [t for t in scene.things if all(word in (t.kind.shape, t.kind.colour) for word in words)]
        if len(matching) != count:
            return False
    if not all(word in (scene.tone, scene.texture) for word in background):
        return False
    for chosen in permutations(scene.things, len(things)):
        kinds = [t.kind for t in chosen]
        if all(s in ("", k.size) and (c, f) == (k.colour, k.shape) for (s, c, f), k in zip(things, kinds, strict=True)) and all(
            (chosen[k].x - chosen[0].x) * dx + (chosen[k].y - chosen[0].y) * dy > 0.1 for k, (dx, dy) in directions.items()
        ):
            return True
    return False


@pytest.fixture(scope="module")
def told():
    rng = np.random.default_rng(5)
    scenes = [sample_scene(rng) for _ in range(400)]
    return [(scene, captions(scene, rng)) for scene in scenes]


def test_words_and_statement_are_true_of_the_scene(told):
    for scene, found in told:
        for statement, text in found:
            assert statement.holds(scene), text
            assert is_true(text, scene), text


def test_words_and_statement_agree_on_other_scenes(told):
    """Statement and parsed words must also be false together. Every caption meets 20 scenes, a few of which it happens to fit."""
    agreed = Counter()
    for k, (_, found) in enumerate(told):
        for statement, text in found:
            for scene, _ in told[k % 20 :: 20]:
                truth = is_true(text, scene)
                assert statement.holds(scene) == truth, (text, scene)
                agreed[truth] += 1
    assert agreed[True] > 100
    assert agreed[False] > 10_000


def test_three_to_seven_different_captions(told):
    counts = Counter(len(found) for _, found in told)
    assert set(counts) == {3, 4, 5, 6, 7}
    assert all(len({text for _, text in found}) == len(found) for _, found in told)


def test_every_wording_occurs_and_articles_are_right(told):
    texts = [text for _, found in told for _, text in found]
    for words in (" only ", " one of them is ", " background", " to the left of ", " under ", "there is ", ", ", "crosses"):
        assert any(words in text for text in texts), words
    for text in texts:
        assert NAMED.search(text), text
        for article, following in re.findall(r"\b(an?) (\w)", text):
            assert (article == "an") == (following in "aeiou"), text


def thing(shape, colour, size="small", x=0.5, y=0.5):
    return Thing(Kind(shape, colour, size), x, y, 0.0, 1.0)


SCENE = Scene(
    (thing("star", "red", x=0.2), thing("star", "red", "large", x=0.8), thing("ring", "blue", y=0.1)), "dark", "plain", 0
)
STAR, RED, RING = Phrase("star", "red"), Phrase(colour="red"), Phrase("ring", "blue")


@pytest.mark.parametrize(
    ("statement", "true"),
    [
        (Statement((STAR,)), True),
        (Statement((STAR, STAR)), True),
        (Statement((STAR, STAR, STAR)), False),  # three distinct things are needed
        (Statement((Phrase("star", "blue"),)), False),
        (Statement((STAR, STAR), ((0, "left of", 1),)), True),
        (Statement((Phrase("star", "red", "large"), STAR), ((0, "left of", 1),)), False),
        (Statement((RING, STAR), ((0, "above", 1),)), True),
        (Statement((RING, STAR), ((0, "below", 1),)), False),
        (Statement((RING,), counts=((RED, 2),)), True),
        (Statement((RING,), counts=((RED, 1),)), False),  # counts are exact
        (Statement((RING,), counts=((Phrase(), 3),)), True),
        (Statement((RING,), tone="dark"), True),
        (Statement((RING,), tone="light"), False),
        (Statement((RING,), texture="striped"), False),
        (Statement((RING,), tone="dark", texture="plain"), True),
    ],
)
def test_statements_by_hand(statement, true):
    assert statement.holds(SCENE) is true


def test_vague_captions_say_colour_and_shape_only():
    statement, text = vague([Kind("star", "orange", "small"), Kind("ring", "blue", "large")])
    assert text == "an orange star and a blue ring"
    assert statement == Statement((Phrase("star", "orange"), Phrase("ring", "blue")))


def test_given_captions_come_first():
    given = vague([SCENE.things[0].kind])
    assert captions(SCENE, np.random.default_rng(0), [given])[0] == given
