"""Planted pairs are what they are called, and the list of further fitting images is complete."""

from __future__ import annotations

from collections import Counter

import pytest

from corpora.corpus import CorpusError
from corpora.planting import Shares, also_fits, scene_images


@pytest.fixture(scope="module")
def images():
    return scene_images("val", 200, 3, Shares(0.2, 0.2, 0.2))


def twins(images, role):
    by_id = {image.id: image for image in images}
    return [(by_id[image.twin_of], image) for image in images if image.role == role and image.twin_of]


def test_image_k_is_the_same_whatever_the_size(images):
    assert scene_images("val", 7, 3, Shares(0.2, 0.2, 0.2)) == images[:7]


def test_splits_and_seeds_differ(images):
    scenes = {image.scene for image in images}
    for split, seed in (("train", 3), ("val", 4)):
        assert not scenes & {image.scene for image in scene_images(split, 200, seed, Shares(0.2, 0.2, 0.2))}


def test_shares_are_met(images):
    counts = Counter(image.role for image in scene_images("train", 2000, 0, Shares(0.1, 0.2, 0)))
    assert counts["near_duplicates"] / 2000 == pytest.approx(0.1, abs=0.03)
    assert counts["shared_captions"] / 2000 == pytest.approx(0.2, abs=0.03)
    assert counts["swapped_attributes"] == 0


@pytest.mark.parametrize("shares", [(-0.1, 0, 0), (0.5, 0.5, 0.1), (float("nan"), 0, 0)])
def test_impossible_shares_are_refused(shares):
    with pytest.raises(CorpusError, match="each must be at least 0 and their sum at most 1"):
        Shares(*shares)


def test_near_duplicates_look_alike(images):
    pairs = twins(images, "near_duplicates")
    assert pairs
    for a, b in pairs:
        assert [t.kind for t in a.scene.things] == [t.kind for t in b.scene.things]
        assert (a.scene.tone, a.scene.texture) == (b.scene.tone, b.scene.texture)
        assert max(abs(s.x - t.x) + abs(s.y - t.y) for s, t in zip(a.scene.things, b.scene.things, strict=True)) < 0.04


def test_shared_captions_fit_both(images):
    found = also_fits(images)
    pairs = twins(images, "shared_captions")
    assert pairs
    for a, b in pairs:
        assert b.id in found[a.caption_id(0)]
        assert a.scene != b.scene


def test_swapped_pairs_tell_each_other_apart_by_colour_alone(images):
    pairs = twins(images, "swapped_attributes")
    assert pairs
    for a, b in pairs:
        (first, text), (second, other) = a.captions[0], b.captions[0]
        assert sorted(text.replace("an ", "a ").split()) == sorted(other.replace("an ", "a ").split())
        assert text != other
        changed = [(s.kind, t.kind) for s, t in zip(a.scene.things, b.scene.things, strict=True) if s != t]
        assert len(changed) == 2
        assert Counter(s.colour for s, _ in changed) == Counter(t.colour for _, t in changed)
        assert all((s.shape, s.size) == (t.shape, t.size) for s, t in changed)
        assert first.holds(a.scene)
        assert second.holds(b.scene)


def test_also_fits_agrees_with_checking_everything():
    images = [image for split in ("train", "val") for image in scene_images(split, 60, 1, Shares())]
    expected = {}
    for image in images:
        for number, (statement, _) in enumerate(image.captions):
            others = [o.id for o in images if o.split == image.split and o.id != image.id and statement.holds(o.scene)]
            if others:
                expected[image.caption_id(number)] = others
    assert also_fits(images) == expected
    assert expected
