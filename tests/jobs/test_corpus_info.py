"""The job prints what is in a corpus, writes it down, and ends with an error if an image is damaged."""

from __future__ import annotations

import json

import h5py
import pytest
from PIL import Image

from corpora.corpus import CorpusError
from jobs.corpus_info import Config, run
from preprocess.build import build
from preprocess.entries import Entry


@pytest.fixture
def corpus(tmp_path):
    for k in range(3):
        Image.new("RGB", (20 + k, 20), (k, 0, 0)).save(tmp_path / f"{k}.png")
    build(
        [Entry(str(k), "all", tmp_path / f"{k}.png", class_name="c") for k in range(3)],
        tmp_path / "corpus",
        made_by={},
        sources={},
    )
    return tmp_path / "corpus"


def test_report_sheet_and_check(corpus, tmp_path, capsys):
    run(Config(corpus, verify=True), tmp_path)
    printed = capsys.readouterr().out
    assert "all 3 images and 0 captions" in printed and "verified: every image is there once" in printed
    report = json.loads((tmp_path / "corpus-info.json").read_text())
    assert report["splits"]["all"]["images"] == 3 and report["damage"] == []
    assert Image.open(tmp_path / "contact-sheet.jpg").size == (3 * 208 + 8, 291)


def test_no_sheet_and_no_check_unless_asked_for(corpus, tmp_path, capsys):
    run(Config(corpus, pictures=0), tmp_path)
    assert "damage" not in json.loads((tmp_path / "corpus-info.json").read_text())
    assert not (tmp_path / "contact-sheet.jpg").exists()
    assert "verified" not in capsys.readouterr().out


def test_damage_ends_the_job_after_the_report_is_written(corpus, tmp_path):
    with h5py.File(corpus / "images.h5", "r+") as file:
        file["bytes"][-30] ^= 1
    with pytest.raises(CorpusError, match=r"1 things are wrong .*\n  image '2': its bytes are not those that were packed"):
        run(Config(corpus, verify=True, pictures=0), tmp_path)
    assert len(json.loads((tmp_path / "corpus-info.json").read_text())["damage"]) == 1
