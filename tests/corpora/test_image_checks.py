"""Whole files pass, whatever their kind; what is not whole is told apart, also where decoders say nothing."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
from odd_images import BAD, COLOUR, GOOD, JPEG, SIDEWAYS
from PIL import Image

from corpora.image_checks import verified
from corpora.images import decode


@pytest.mark.parametrize("name", GOOD)
def test_whole_files_of_every_kind(name):
    picture = verified(GOOD[name])
    assert (picture.width, picture.height, picture.pixels.mode) == (60, 40, "RGB")
    assert decode(GOOD[name]).size == (60, 40)


@pytest.mark.parametrize("name", SIDEWAYS)
def test_turned_pictures_have_the_size_that_is_seen(name):
    assert verified(SIDEWAYS[name])[1:] == (40, 60) == decode(SIDEWAYS[name]).size


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", BAD)
def test_what_is_not_whole_has_a_reason(name):
    data, reason = BAD[name]
    with pytest.raises(ValueError) as caught:
        verified(data)
    assert str(caught.value).startswith(reason)


def test_a_decoder_would_have_let_it_pass():
    """What the checks beyond decoding are for: half of the picture is there, the rest is grey."""
    pixels = np.asarray(decode(BAD["half and an end marker"][0]))
    assert (pixels[-1, -1] == 128).all()
    assert np.abs(pixels[:8, :16].astype(int) - np.asarray(COLOUR)[:8, :16]).mean() < 15


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (7, 3), (8, 8), (9, 17), (641, 479)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_sizes(size, kind):
    file = io.BytesIO()
    Image.new("RGB", size, (9, 99, 199)).save(file, kind)
    assert verified(file.getvalue())[1:] == size


def test_a_jpeg_cut_anywhere_is_noticed():
    for length in range(2, len(JPEG) - 1, 7):
        for end in (b"", b"\xff\xd9"):
            if len(JPEG) - length < 65 and end:
                continue  # within the last block, of which nobody knows that it was another
            with pytest.raises(ValueError, match=r"truncated|cannot be decoded|not a whole image"):
                verified(JPEG[:length] + end)


def test_mutants_are_refused_or_decoded():
    """600 of them: truncated, bytes flipped, pieces dropped or doubled. A reason in words, or a picture that every reader gets."""
    rng = random.Random(4)
    files = [data for name, data in {**GOOD, **SIDEWAYS}.items() if name not in ("tiff", "bmp", "16 bit")]
    refused = 0
    for _ in range(600):
        mutant = mutated(rng.choice(files), rng)
        try:
            picture = verified(mutant)
        except ValueError as error:
            refused += 1
            assert str(error).split(" (")[0] in (
                *("truncated", "cannot be decoded", "not a whole image of a kind that is decoded here", "empty file"),
                *("nothing but zero bytes", "HEIC, which Pillow does not decode; convert it to JPEG"),
            )
            assert "object at 0x" not in str(error)
        else:
            assert decode(mutant).size == (picture.width, picture.height)
    assert refused > 200


def mutated(data: bytes, rng: random.Random) -> bytes:
    start, end = sorted((rng.randrange(len(data)), rng.randrange(len(data))))
    kind = rng.randrange(5)
    if kind == 0:
        return data[:start]
    if kind == 1:
        return data[:start] + data[end:]
    if kind == 2:
        return data[:end] + data[start:]
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 3, 20))):
        changed[rng.randrange(len(data) if kind == 3 else min(len(data), 200))] = rng.randrange(256)
    return bytes(changed)
