"""Image files are kept byte for byte or shrunk; faults come as values."""

from __future__ import annotations

import io
import os

import numpy as np
import pytest
from odd_images import BAD, COLOUR, GOOD, SIDEWAYS, file_of
from PIL import Image

from corpora.image_packs import read_index
from corpora.images import decode
from preprocess.image_files import pack_files, read_image_file, unchanged


@pytest.mark.parametrize("name", [*GOOD, *SIDEWAYS])
def test_whole_files_are_kept_byte_for_byte(tmp_path, name):
    data = (GOOD | SIDEWAYS)[name]
    path = tmp_path / "a.wrong_suffix"
    path.write_bytes(data)
    file = read_image_file(path)
    assert (file.data, file.fault) == (data, "")
    assert (file.width, file.height) == ((60, 40) if name in GOOD else (40, 60))
    assert file.file_size == len(data)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("short_side", [0, 8])
def test_damaged_files_have_a_reason_and_no_bytes(tmp_path, name, short_side):
    data, reason = BAD[name]
    (tmp_path / "a.jpg").write_bytes(data)
    file = read_image_file(tmp_path / "a.jpg", short_side)
    assert file.fault.startswith(reason)
    assert (file.data, file.width, file.height) == (b"", 0, 0)


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert read_image_file(tmp_path / "none.jpg").fault == "no such file"
    assert read_image_file(tmp_path).fault == "not a file"
    assert read_image_file(tmp_path / "pipe").fault == "not a file"
    assert read_image_file(tmp_path / "a\0b").fault.startswith("cannot be read (")
    assert read_image_file(tmp_path / ("a" * 300)).fault == "cannot be read (File name too long)"


@pytest.mark.parametrize("name", [*GOOD, *SIDEWAYS])
def test_shrinking_gives_an_upright_jpeg_of_that_short_side(tmp_path, name):
    (tmp_path / "a").write_bytes((GOOD | SIDEWAYS)[name])
    file = read_image_file(tmp_path / "a", 20)
    assert (file.width, file.height) == ((30, 20) if name in GOOD else (20, 30))
    with Image.open(io.BytesIO(file.data)) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (file.width, file.height))
        assert not image.getexif()
        assert "icc_profile" not in image.info
        wanted = decode((GOOD | SIDEWAYS)[name]).resize(image.size, Image.Resampling.BICUBIC)
        assert np.abs(np.asarray(image).astype(int) - np.asarray(wanted)).mean() < 8


def test_a_profile_is_dropped_and_the_pixels_stay_those_of_the_file(tmp_path):
    (tmp_path / "a").write_bytes(file_of(COLOUR, "PNG", icc_profile=b"\0" * 200))
    file = read_image_file(tmp_path / "a", 39)
    assert b"ICC_PROFILE" not in file.data


def test_smaller_images_are_not_touched_and_none_is_lost_to_rounding(tmp_path):
    for size in ((20, 30), (20, 20)):
        Image.new("RGB", size).save(tmp_path / "a.png")
        assert read_image_file(tmp_path / "a.png", 20).data == (tmp_path / "a.png").read_bytes()
    Image.new("RGB", (3, 4000)).save(tmp_path / "a.png")
    assert read_image_file(tmp_path / "a.png", 1)[1:3] == (1, 1333)


def test_large_jpegs_are_decoded_small_and_come_out_alike(tmp_path):
    large = COLOUR.resize((1200, 800), Image.Resampling.BILINEAR)
    (tmp_path / "a").write_bytes(file_of(large, "JPEG", quality=95))
    file = read_image_file(tmp_path / "a", 50)
    assert (file.width, file.height) == (75, 50)
    wanted = large.resize((75, 50), Image.Resampling.BICUBIC)
    assert np.abs(np.asarray(decode(file.data)).astype(int) - np.asarray(wanted)).mean() < 4


def test_a_pack_knows_whether_its_files_have_changed(tmp_path):
    files = [(str(k), tmp_path / f"{k}.png") for k in range(3)]
    for k in range(2):
        Image.new("RGB", (4, 4 + k)).save(files[k][1])
    pack_files(files, tmp_path / "pack")
    rows = read_index(tmp_path / "pack")
    assert [row.fault for row in rows] == ["", "", "no such file"]
    assert unchanged(files, rows)
    Image.new("RGB", (4, 4)).save(files[2][1])
    assert not unchanged(files, rows)
    files[2][1].unlink()
    assert unchanged(files, rows)
    os.utime(files[0][1], ns=(0, 0))
    assert not unchanged(files, rows)
