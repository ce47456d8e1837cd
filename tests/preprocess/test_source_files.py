"""Reading of source files: what is passed on, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpora.corpus import CorpusError
from preprocess.coco_names import coco_source, find_coco_image
from preprocess.entries import Entry
from preprocess.source_files import check_entries, checked_id, checked_text, numbered, read_json, read_lines, sha256_of, shown


@given(st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=("Cs",)), max_size=20)))
def test_lines_are_those_that_were_written(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("lines") / "x.txt"
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())
    read = [line for _, line in read_lines(path)]
    assert read == [line.removeprefix("\ufeff") if k == 0 else line for k, line in enumerate(lines)]


@given(st.text())
def test_texts_are_kept_but_for_outer_spaces(text):
    whole = text.strip() and not any("\ud800" <= letter <= "\udfff" for letter in text)
    try:
        assert checked_text(text, "here") == text.strip()
    except CorpusError:
        assert not whole
    else:
        assert whole


@pytest.mark.parametrize(("value", "text"), [(9, "9"), ("a b/ü", "a b/ü"), (-1, "-1")])
def test_ids(value, text):
    assert checked_id(value, "here") == text


@pytest.mark.parametrize("value", ["", " a", "a\n", "a\0b", "\ud800", True, None, 1.0, ["a"], "a\u2028b"])
def test_texts_that_are_no_ids(value):
    with pytest.raises(CorpusError, match="here: the id is"):
        checked_id(value, "here")


def test_values_that_cannot_be_shown():
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    assert [shown(value) for value in (10**5000, deep, "a" * 99)] == ["a int", "a list", repr("a" * 60)]


def test_files_that_are_not_there(tmp_path):
    for read in (sha256_of, lambda path: read_json(path, "x"), lambda path: list(read_lines(path))):
        with pytest.raises(CorpusError, match=r"x\.json: cannot be read \(No such file or directory\)"):
            read(tmp_path / "x.json")
        with pytest.raises(CorpusError, match="cannot be read"):
            read(tmp_path)


def test_splits_have_captions_throughout_or_not_at_all():
    entries = [Entry("1", "a", Path("1"), numbered("1", ["x"])), Entry("2", "b", Path("2"))]
    check_entries(entries, "here")
    with pytest.raises(CorpusError, match="here: 1 images have no caption while others of their split have, the first: 3"):
        check_entries([*entries, Entry("3", "a", Path("3"))], "here")
    with pytest.raises(CorpusError, match="1 image ids stand there more than once, the first: 2"):
        check_entries([*entries, Entry("2", "b", Path("3"))], "here")


def test_names_of_coco(tmp_path):
    assert coco_source("COCO_val2014_000000391895") == "coco/391895"
    assert [
        coco_source(name) for name in ("391895", "COCO_val2014_x", "COCO_val2014_000000000000", "xCOCO_val2014_000000000001")
    ] == [""] * 4
    assert find_coco_image(tmp_path, 9) == tmp_path / "train2014" / "COCO_train2014_000000000009.jpg"
    (tmp_path / "COCO_val2014_000000000009.jpg").touch()
    assert find_coco_image(tmp_path, 9).name == "COCO_val2014_000000000009.jpg"
