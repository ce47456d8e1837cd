"""Encoded images go in and the same uint8 pixels come out, whatever the file's mode."""

from __future__ import annotations

import contextlib
import hashlib
import io
import random

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from corpora import images
from corpora.images import ImageStore, decode, decode_from, write_images
from corpora.store import StoreError

RNG = np.random.default_rng(0)
COLOUR = Image.fromarray(RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8))


def file_of(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


FILES = {
    "jpeg": file_of(COLOUR, "JPEG", quality=90),
    "png": file_of(COLOUR, "PNG"),
    "grey jpeg": file_of(COLOUR.convert("L"), "JPEG"),
    "grey png": file_of(COLOUR.convert("L"), "PNG"),
    "black and white": file_of(COLOUR.convert("1"), "PNG"),
    "cmyk": file_of(COLOUR.convert("CMYK"), "JPEG"),
    "palette": file_of(COLOUR.convert("P"), "PNG"),
    "gif": file_of(COLOUR, "GIF"),
    "alpha": file_of(COLOUR.convert("RGBA"), "PNG"),
    "grey and alpha": file_of(COLOUR.convert("LA"), "PNG"),
    "webp": file_of(COLOUR, "WEBP"),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "images.h5"
    write_images(path, FILES.items())
    return ImageStore(path)


@pytest.mark.parametrize("name", FILES)
def test_stored_image_equals_the_file(store, name):
    assert store.read(name) == FILES[name]
    pixels = np.asarray(store.picture(name))
    assert pixels.dtype == np.uint8
    assert pixels.shape == (20, 30, 3)
    np.testing.assert_array_equal(pixels, np.asarray(Image.open(io.BytesIO(FILES[name])).convert("RGB")))


def test_png_is_lossless(store):
    np.testing.assert_array_equal(np.asarray(store.picture("png")), np.asarray(COLOUR))


def test_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    np.testing.assert_array_equal(np.asarray(decode(file_of(COLOUR, "PNG", exif=exif))), np.rot90(np.asarray(COLOUR), -1))


def test_sixteen_bit_grey_is_scaled_and_not_clipped_to_white():
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    pixels = np.asarray(decode(file_of(Image.fromarray(ramp), "PNG")))
    np.testing.assert_array_equal(pixels[:, :, 0], (ramp >> 8).astype(np.uint8))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(FILES)), st.integers(0, 10_000), st.binary(min_size=1, max_size=8), st.booleans())
def test_damaged_files_raise_only_the_documented_errors(name, position, patch, cut):
    data = FILES[name]
    position %= len(data)
    damaged = data[:position] if cut else data[:position] + patch + data[position + len(patch) :]
    with contextlib.suppress(OSError, ValueError):
        assert decode(damaged).mode == "RGB"


def test_decompression_bomb_is_a_value_error(monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 599)
    with pytest.raises(ValueError, match="huge: more than 599 pixels"):
        decode(FILES["png"])
    monkeypatch.setattr(images, "MAX_PIXELS", 600)
    assert decode(FILES["png"]).size == (30, 20)


def test_a_jpeg_can_be_decoded_smaller():
    picture = decode_from(file_of(COLOUR.resize((333, 161)), "JPEG"), 40)
    assert picture.pixels.size == (84, 41)
    assert (picture.width, picture.height) == (333, 161)
    assert decode_from(FILES["png"], 1).pixels.size == (30, 20)


def test_pixels_of_unknown_range_are_refused():
    with pytest.raises(ValueError, match="32 bits"):
        decode(file_of(Image.new("I", (4, 4), 70_000), "TIFF"))


def test_many_bytes_are_written_in_order(tmp_path):
    files = [(str(k), RNG.bytes(9 << 20)) for k in range(4)]  # over the 16 MiB block
    write_images(tmp_path / "images.h5", files)
    store = ImageStore(tmp_path / "images.h5")
    assert all(store.read(key) == data for key, data in files)


def test_digests_are_stored_and_computed_for_older_files(tmp_path):
    files = {"a": b"12", "b": b"", "c": b"345"}
    wanted = [hashlib.sha256(data).digest() for data in files.values()]
    write_images(tmp_path / "images.h5", files.items())
    store = ImageStore(tmp_path / "images.h5")
    assert store.digests() == wanted
    assert (store.head(0), store.head(1), store.sizes.tolist()) == (b"12", b"", [2, 0, 3])
    store.file.close()
    with h5py.File(tmp_path / "images.h5", "r+") as file:
        del file["sha256"]
    assert ImageStore(tmp_path / "images.h5").digests() == wanted


def test_duplicate_ids_are_refused(tmp_path):
    with pytest.raises(StoreError, match="more than once, the first: a"):
        write_images(tmp_path / "images.h5", [("a", b"1"), ("a", b"2")])


def test_offsets_that_disagree_with_the_bytes_are_damage(tmp_path):
    path = tmp_path / "images.h5"
    write_images(path, [("a", b"12"), ("b", b"3")])
    with h5py.File(path, "r+") as file:
        file["offsets"][-1] = 99
    with pytest.raises(StoreError, match="offsets and bytes disagree"):
        ImageStore(path)


def test_five_hundred_mutants_of_a_store_raise_or_are_read_right(tmp_path):
    """Bytes of the pictures that changed are told by their sha256; all else is an error or the truth."""
    rng = random.Random(0)
    files = {str(k): bytes([k]) * (20 + k) for k in range(30)}
    write_images(tmp_path / "images.h5", files.items())
    whole = (tmp_path / "images.h5").read_bytes()
    path, noticed = tmp_path / "mutant.h5", 0
    for number in range(500):
        mutant = bytearray(whole[: rng.randrange(len(whole))] if number % 5 == 0 else whole)
        for _ in range(rng.choice((1, 4, 50)) if number % 5 else 0):
            mutant[rng.randrange(len(mutant))] = rng.randrange(256)
        path.write_bytes(mutant)
        try:
            store = ImageStore(path)
            digests = dict(zip(store.ids, store.digests(), strict=True))
            read = {key: store.read(key) for key in store.ids}
        except StoreError:
            noticed += 1
            continue
        changed = [key for key, data in read.items() if hashlib.sha256(data).digest() != digests[key]]
        assert (
            changed or read == files or set(read) != set(files)
        )  # ids have no checksum: the tables beside tell that they changed
        noticed += read != files
    assert noticed > 150


def test_a_picture_that_went_bad_in_the_store_is_named(tmp_path):
    write_images(tmp_path / "images.h5", [("empty", b""), ("bad", b"no picture")])
    with pytest.raises(StoreError, match=r"image 'bad' cannot be decoded"):
        ImageStore(tmp_path / "images.h5").picture("bad")
    with pytest.raises(StoreError, match=r"holds no image 'other'"):
        ImageStore(tmp_path / "images.h5").picture("other")
