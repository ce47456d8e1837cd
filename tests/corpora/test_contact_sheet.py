"""Texts of a contact sheet stay under their picture, whatever they hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from corpora import contact_sheet
from corpora.contact_sheet import COLUMNS, FONT, FONT_SIZE, GAP, LINES, MORE, SIDE, cell, fitted, sheet

WIDE = "W" * 300


@pytest.mark.parametrize(
    ("text", "most", "lines"),
    [
        ("", 3, []),
        ("  a   dog ", 3, ["a dog"]),
        ("a dog", 0, []),
        ("a white dog is watching a black dog jump on a lawn", 3, ["a white dog is watching a black", "dog jump on a lawn"]),
        ("a white dog is watching a black dog jump on a lawn", 1, ["a white dog is watching a black d ..."]),
    ],
)
def test_lines(text, most, lines):
    assert fitted(text, most) == lines


def test_a_word_wider_than_a_picture_is_broken():
    lines = fitted(WIDE, 3)
    assert len(lines) == 3 and set("".join(lines[:2])) == {"W"} and lines[2].endswith(MORE)
    assert FONT.getlength(lines[0]) <= SIDE < FONT.getlength(lines[0] + "W")
    assert FONT.getlength(lines[2]) <= SIDE < FONT.getlength("W" + lines[2])


def test_a_letter_wider_than_a_picture_has_its_line(monkeypatch):
    monkeypatch.setattr(contact_sheet, "SIDE", 3)
    assert fitted("WW", 2) == ["W", "W"]


@settings(deadline=None, max_examples=150)
@given(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]) | st.sampled_from(" iW."), max_size=200), st.integers(1, 4)
)
def test_no_line_is_too_wide_and_no_letter_lost(text, most):
    lines = fitted(text, most)
    assert len(lines) <= most and all(0 < FONT.getlength(line) <= SIDE for line in lines if len(line) > 1)
    letters = "".join(text.split())
    shown = "".join("".join(lines).removesuffix(MORE).split())
    assert letters.startswith(shown)
    if not (lines and lines[-1].endswith(MORE)):
        assert shown == letters


def test_an_id_does_not_run_into_its_neighbour_nor_out_of_its_cell():
    cells = [cell(Image.new("RGB", (300, 100), "red"), ["image 1   0.4", WIDE], WIDE), cell(None, [], "")]
    assert all(one.size == (SIDE, SIDE + LINES * (FONT_SIZE + 3)) for one in cells)
    pixels = np.asarray(cells[0])
    assert (pixels[:, SIDE - 1] > 250).sum() > 3 * 100  # the last column is not written on
    assert (pixels[SIDE:] < 99).any() and (np.asarray(cells[1]) == 255).all()
    whole = np.asarray(sheet(cells))
    assert whole.shape[1] == 2 * (SIDE + GAP) + GAP
    assert (whole[:, GAP + SIDE :] == 255).all()


def test_rows_of_cells():
    one = cell(None, ["x"], "")
    assert sheet([one] * (COLUMNS + 1)).height - sheet([one] * COLUMNS).height == one.height + GAP
