"""Pixels and regions of made-up scenes show what the scene says."""

from __future__ import annotations

import numpy as np
import pytest

from corpora.images import decode
from corpora.scene_pictures import CELLS, FEATURE_WIDTH, MIXING, REGIONS, WORDS, encoded, regions, render
from corpora.scenes import COLOURS, Kind, Scene, Thing, sample_scene

SIZE = 96


@pytest.fixture(scope="module")
def scenes():
    rng = np.random.default_rng(7)
    return [sample_scene(rng) for _ in range(200)]


def near(pixels, thing):
    """Where the picture has the thing's colour."""
    return np.abs(pixels - np.array(COLOURS[thing.kind.colour]) * thing.shade).max(axis=2) < 40


@pytest.mark.parametrize("file", [False, True])
def test_boxes_hold_their_things_colour_and_fit_it_tightly(scenes, file):
    for scene in scenes[:60]:
        picture = render(scene, SIZE)
        pixels = np.asarray(decode(encoded(picture)) if file else picture).astype(float)
        assert pixels.shape == (SIZE, SIZE, 3)
        for thing in scene.things:
            if sum(other.kind.colour == thing.kind.colour for other in scene.things) > 1:
                continue
            x1, y1, x2, y2 = thing.box * SIZE
            there = near(pixels, thing)
            inside = there[round(y1) : round(y2), round(x1) : round(x2)]
            assert inside.mean() > 0.15
            grown = np.zeros_like(there)
            grown[max(int(y1) - 1, 0) : int(y2) + 2, max(int(x1) - 1, 0) : int(x2) + 2] = True
            rows, columns = np.nonzero(there & grown)
            np.testing.assert_allclose([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], [x1, y1, x2, y2], atol=3)


def test_a_ring_shows_the_background_through_its_hole():
    scene = Scene(
        (Thing(Kind("ring", "red", "large"), 0.5, 0.5, 0, 1), Thing(Kind("circle", "red", "small"), 0.2, 0.2, 0, 1)),
        "light",
        "plain",
        0,
    )
    pixels = np.asarray(render(scene, SIZE)).astype(int)
    assert np.ptp(pixels[48, 48]) < 20
    assert np.ptp(pixels[19, 19]) > 100


@pytest.mark.parametrize("size", [32, 96, 150])
def test_rendering_is_deterministic_at_any_size(scenes, size):
    assert render(scenes[0], size).size == (size, size)
    assert encoded(render(scenes[0], size)) == encoded(render(scenes[0], size))


def test_textures_and_tones_differ(scenes):
    things = scenes[0].things
    tones = {tone: np.asarray(render(Scene(things, tone, "plain", 1), SIZE)).mean() for tone in ("light", "dark")}
    assert tones["light"] > tones["dark"] + 80
    rough = {t: np.asarray(render(Scene(things, "dark", t, 1), SIZE)).std() for t in ("plain", "striped", "speckled")}
    assert rough["striped"] > rough["plain"]
    assert rough["speckled"] > rough["plain"]


def test_regions_are_things_first_then_cells(scenes):
    for scene in scenes:
        features, boxes = regions(scene)
        count = len(scene.things)
        assert (features.shape, boxes.shape) == ((REGIONS, FEATURE_WIDTH), (REGIONS, 4))
        assert (boxes.min(), boxes.max()) >= (0, 0)
        assert boxes.max() <= 1
        np.testing.assert_allclose(boxes[:count], [thing.box for thing in scene.things], rtol=1e-6)
        np.testing.assert_allclose(boxes[count:], CELLS[: REGIONS - count])


def test_a_linear_layer_reads_the_truth_from_features(scenes):
    def table(some):
        features = np.concatenate([regions(scene)[0][: len(scene.things)] for scene in some])
        kinds = [thing.kind for scene in some for thing in scene.things]
        return features, np.array([[word in (k.shape, k.colour, k.size) for word in WORDS] for k in kinds], float)

    features, words = table(scenes[:150])
    weights = np.linalg.lstsq(features, words, rcond=None)[0]
    features, words = table(scenes[150:])
    assert ((features @ weights > 0.5) == words.astype(bool)).mean() > 0.99


def test_a_cell_is_the_average_of_what_lies_in_it():
    things = (
        Thing(Kind("square", "red", "large"), 0.25, 0.25, 0, 1),
        Thing(Kind("star", "blue", "small"), 0.8, 0.8, 0, 1),
    )
    noisy = [regions(Scene(things, "dark", "plain", grain))[0][2] for grain in range(300)]  # the first quadrant
    words = dict(zip(WORDS, np.mean(noisy, axis=0) @ np.linalg.pinv(MIXING), strict=True))
    share = (2 * 0.16 * 0.84) ** 2 / 0.25  # of the quadrant's area
    expected = dict.fromkeys(("square", "red", "large"), share) | dict.fromkeys(("dark", "plain"), 1 - share)
    for word, value in words.items():
        assert value == pytest.approx(expected.get(word, 0), abs=0.03), word
