"""Packs hold what was put in, and join into the same images.h5 however the images were spread over them."""

from __future__ import annotations

import random

import numpy as np
import pytest

from corpora import image_packs
from corpora.image_packs import PackedImage, PackWriter, join_packs, read_index
from corpora.images import ImageStore
from corpora.store import StoreError

RNG = np.random.default_rng(1)
IMAGES = [(f"image {k} ü", RNG.bytes(3000 * (k % 4))) for k in range(12)]


def packed(path, images):
    with PackWriter(path) as writer:
        for image_id, data in images:
            writer.add(image_id, data, 4, 3)
    return path


def test_an_index_tells_what_was_added(tmp_path):
    with PackWriter(tmp_path / "pack") as writer:
        writer.add("a", b"12345", 4, 3, "", 5, 99)
        writer.add("b", b"", fault="no such file")
    first, second = read_index(tmp_path / "pack")
    assert first == PackedImage("a", 5, first.sha256, 4, 3, "", 5, 99)
    assert first.sha256.startswith("5994471abb01112a")
    assert (second.id, second.size, second.sha256, second.fault) == ("b", 0, "", "no such file")


@pytest.mark.parametrize("cuts", [(), (5,), (0, 1, 11), (3, 3, 12)])
@pytest.mark.parametrize("block", [1, 5000, 1 << 24])
def test_packs_join_to_the_same_bytes_however_they_were_cut(tmp_path, monkeypatch, cuts, block):
    monkeypatch.setattr(image_packs, "BLOCK", block)
    ends = [0, *cuts, len(IMAGES)]
    packs = [packed(tmp_path / f"{k}", IMAGES[ends[k] : ends[k + 1]]) for k in range(len(ends) - 1)]
    join_packs(tmp_path / "images.h5", packs)
    store = ImageStore(tmp_path / "images.h5")
    assert [(key, store.read(key)) for key in store.ids] == IMAGES
    join_packs(tmp_path / "whole.h5", [packed(tmp_path / "whole", IMAGES)])
    assert (tmp_path / "whole.h5").read_bytes() == (tmp_path / "images.h5").read_bytes()


def test_images_with_faults_are_passed_over(tmp_path):
    with PackWriter(tmp_path / "pack") as writer:
        writer.add("a", b"1")
        writer.add("b", b"", fault="empty file")
        writer.add("c", b"3")
    join_packs(tmp_path / "images.h5", [tmp_path / "pack"])
    assert ImageStore(tmp_path / "images.h5").ids == ["a", "c"]


def test_an_image_of_two_packs_is_refused(tmp_path):
    packs = [packed(tmp_path / "0", IMAGES[:2]), packed(tmp_path / "1", IMAGES[1:3])]
    with pytest.raises(StoreError, match="more than once, the first: image 1"):
        join_packs(tmp_path / "images.h5", packs)


def test_changed_bytes_are_noticed_when_packs_are_joined(tmp_path):
    pack = packed(tmp_path / "pack", IMAGES)
    data = bytearray(pack.read_bytes())
    data[4000] ^= 1
    pack.write_bytes(data)
    with pytest.raises(StoreError, match=r"not a whole pack of images .image 2 of it is not what was packed"):
        join_packs(tmp_path / "images.h5", [pack])


def test_two_hundred_mutants_of_a_pack(tmp_path):
    """Every one is refused: all bytes are vouched for."""
    rng = random.Random(0)
    whole = packed(tmp_path / "pack", IMAGES).read_bytes()
    for number in range(200):
        mutant = bytearray(whole[: rng.randrange(len(whole))] if number % 4 == 0 else whole)
        for _ in range(rng.choice((1, 3)) if number % 4 else 0):
            place = -rng.randrange(1, 1800) if number % 4 < 3 else rng.randrange(len(mutant))
            mutant[place] ^= rng.randrange(1, 256)
        path = tmp_path / f"mutant {number}"
        path.write_bytes(mutant)
        if bytes(mutant) != whole:
            with pytest.raises(StoreError, match="not a whole pack"):
                join_packs(path.with_suffix(".h5"), [path])


def test_a_writer_that_failed_leaves_no_index(tmp_path):
    with pytest.raises(KeyError), PackWriter(tmp_path / "pack") as writer:
        writer.add("a", b"0" * 100)
        raise KeyError
    with pytest.raises(StoreError, match="not a whole pack"):
        read_index(tmp_path / "pack")
