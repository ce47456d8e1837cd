"""The made-up world: scenes are laid out as promised and variants differ only where they should."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from corpora.scenes import (
    CLEAR,
    COLOURS,
    RADII,
    RELATIONS,
    SHAPES,
    TEXTURES,
    TONES,
    Kind,
    Thing,
    jittered,
    related,
    sample_scene,
    swappable,
    with_colours_swapped,
)


@pytest.fixture(scope="module")
def scenes():
    rng = np.random.default_rng(1)
    return [sample_scene(rng) for _ in range(400)]


def overlap(a, b):
    width, height = np.minimum(a.box[2:], b.box[2:]) - np.maximum(a.box[:2], b.box[:2])
    return max(width, 0) * max(height, 0)


def test_every_word_of_the_world_occurs(scenes):
    kinds = [thing.kind for scene in scenes for thing in scene.things]
    assert {kind.shape for kind in kinds} == set(SHAPES)
    assert {kind.colour for kind in kinds} == set(COLOURS)
    assert {kind.size for kind in kinds} == set(RADII)
    assert {(scene.tone, scene.texture) for scene in scenes} == {(a, b) for a in TONES for b in TEXTURES}
    assert {len(scene.things) for scene in scenes} == {2, 3, 4}


def test_things_stay_inside_and_apart_even_when_jittered(scenes):
    rng = np.random.default_rng(2)
    for scene in [*scenes, *(jittered(scene, rng) for scene in scenes)]:
        boxes = np.stack([thing.box for thing in scene.things])
        assert boxes.min() >= 0
        assert boxes.max() <= 1
        for i, a in enumerate(scene.things):
            assert (a.box[2:] - a.box[:2]).max() <= 2 * RADII[a.kind.size] + 1e-9
            assert all(overlap(a, b) == 0 for b in scene.things[:i])


def test_every_two_things_stand_in_a_relation_and_its_reverse(scenes):
    reverse = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    for scene in scenes:
        for a in scene.things:
            for b in scene.things:
                true = [relation for relation in RELATIONS if related(a, relation, b)]
                assert bool(true) == (a is not b)
                assert all(related(b, reverse[relation], a) for relation in true)


@pytest.mark.parametrize(
    ("x", "y", "true"),
    [
        (0.5 + CLEAR + 0.01, 0.5, {"left of"}),
        (0.5 - CLEAR - 0.01, 0.5, {"right of"}),
        (0.5, 0.5 + CLEAR + 0.01, {"above"}),
        (0.5, 0.5 - CLEAR - 0.01, {"below"}),
        (0.5 + CLEAR - 0.01, 0.5, set()),
        (0.9, 0.1, {"left of", "below"}),
    ],
)
def test_relations_by_hand(x, y, true):
    kind = Kind("circle", "red", "small")
    a, b = Thing(kind, 0.5, 0.5, 0, 1), Thing(kind, x, y, 0, 1)
    assert {relation for relation in RELATIONS if related(a, relation, b)} == true


def test_given_kinds_come_first():
    kinds = [Kind("star", "pink", "small"), Kind("ring", "blue", "large")]
    scene = sample_scene(np.random.default_rng(0), kinds)
    assert [thing.kind for thing in scene.things[:2]] == kinds


def test_jitter_moves_little_and_keeps_kinds(scenes):
    for scene in scenes[:50]:
        other = jittered(scene, np.random.default_rng(3))
        assert [thing.kind for thing in other.things] == [thing.kind for thing in scene.things]
        moved = [abs(a.x - b.x) + abs(a.y - b.y) for a, b in zip(scene.things, other.things, strict=True)]
        assert 0 < max(moved) < 0.04
        assert other.grain != scene.grain


def test_swapping_exchanges_two_colours_and_nothing_else(scenes):
    for scene in scenes:
        if (pair := swappable(scene)) is None:
            continue
        i, j = pair
        other = with_colours_swapped(scene, pair)
        assert other.things[i].kind.colour == scene.things[j].kind.colour != scene.things[i].kind.colour
        assert other.things[i].kind.shape == scene.things[i].kind.shape != scene.things[j].kind.shape
        assert with_colours_swapped(other, pair) == scene
        assert replace(other, things=scene.things) == scene


def test_a_scene_of_like_things_cannot_be_swapped():
    red_star, blue_star = Kind("star", "red", "small"), Kind("star", "blue", "small")
    scene = sample_scene(np.random.default_rng(0), [red_star, blue_star])
    assert swappable(replace(scene, things=scene.things[:2])) is None
