"""Conceptual Captions from a real server: only what is missing is fetched, every row without an image is listed, none is in the corpus."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from drawing import jpeg
from picture_server import picture_server

from corpora.corpus import Corpus, CorpusError
from preprocess import conceptual_captions
from preprocess.conceptual_captions import prepare
from preprocess.http_fetch import Limits
from preprocess.packing import Packing

LIMITS = Limits(threads=8, seconds=2.0, tries=1)
WORKERS = Packing(workers=1)


@pytest.fixture
def server():
    with picture_server() as running:
        yield running


@pytest.fixture
def lists(server, tmp_path):
    """Nine rows of train and three of val: two rows share a URL, one URL is in both, three fail."""
    train = ["ok/1", "ok/2", "gone", "ok/1", "html", "ok/3", "ok/9", "gone", "ok/4"]
    val = ["ok/7", "ok/9", "torn"]
    files = {"val": tmp_path / "val.tsv", "train": tmp_path / "train.tsv"}
    for name, rows in (("train", train), ("val", val)):
        files[name].write_text("".join(f"{name} caption {k} \t{server.url}/{row}\n" for k, row in enumerate(rows, 1)))
    return files


def failures(folder):
    return [
        (row["file"], row["row"], row["url"].split("/", 3)[3], row["reason"].partition(" (")[0])
        for row in map(json.loads, (folder / "failures.jsonl").read_text().splitlines())
    ]


EXPECTED = [
    ("val.tsv", 3, "torn", "not an image"),
    ("train.tsv", 3, "gone", "HTTP 404"),
    ("train.tsv", 5, "html", "not an image"),
    ("train.tsv", 7, "ok/9", "the same URL is in split val"),
    ("train.tsv", 8, "gone", "HTTP 404"),
]


def test_rows_to_corpus(server, lists, tmp_path, capsys):
    downloads, folder = tmp_path / "downloads", tmp_path / "corpus"
    assert prepare(lists, downloads, folder, limits=LIMITS, packing=WORKERS)
    corpus = Corpus(folder)
    train, val = corpus.split("train"), corpus.split("val")
    assert train.image_ids == ("train-1", "train-2", "train-6", "train-9")
    assert dict(zip(train.text_ids, train.texts, strict=True))["train-4"] == "train caption 4"
    assert {train.image_ids[i]: [train.text_ids[j] for k, j in train.pairs if k == i] for i in range(2)} == {
        "train-1": ["train-1", "train-4"],
        "train-2": ["train-2"],
    }
    assert val.image_ids == ("val-1", "val-2")
    assert train.sources[0] == f"conceptual-captions/{server.url}/ok/1"
    assert corpus.images.read("train-6") == jpeg(3)
    assert failures(downloads) == EXPECTED
    said = capsys.readouterr().out
    assert "6 images fetched" in said and "of 9 URLs" in said and "failed: not an image 2, HTTP 404 1" in said
    server.asked.clear()
    assert not prepare(lists, downloads, folder, limits=LIMITS, packing=WORKERS)
    assert not server.asked


def test_failed_urls_are_tried_again_only_on_request(server, lists, tmp_path):
    downloads = tmp_path / "downloads"
    prepare(lists, downloads, tmp_path / "corpus", limits=LIMITS, packing=WORKERS)
    server.asked.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("picture_server._Answer.answer_gone", lambda answer: answer.send(jpeg(8)))
        assert prepare(lists, downloads, tmp_path / "again", limits=LIMITS, retry_failed=True, packing=WORKERS)
    assert set(server.asked) == {"/gone", "/html", "/torn"}
    assert [row[2] for row in failures(downloads)] == ["torn", "html", "ok/9"]
    assert "train-3" in Corpus(tmp_path / "again").split("train").image_ids
    with pytest.raises(CorpusError, match=r"made otherwise \(failures\.jsonl"):
        prepare(lists, downloads, tmp_path / "corpus", limits=LIMITS, packing=WORKERS)


def test_parts(lists, tmp_path, capsys):
    downloads, folder = tmp_path / "downloads", tmp_path / "corpus"
    for number in (1, 2):
        assert not prepare(lists, downloads, folder, limits=LIMITS, packing=Packing(part=f"{number}/3", workers=1))
        assert "images are still to be fetched by other parts" in capsys.readouterr().out
    third = prepare(lists, downloads, folder, limits=LIMITS, packing=Packing(part="3/3", workers=1))
    assert third or prepare(lists, downloads, folder, limits=LIMITS, packing=WORKERS)
    assert failures(downloads) == EXPECTED
    assert Corpus(folder).info["splits"]["train"] == {"images": 4, "captions": 5}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no rows"),
        ("a caption\n", "line 1: 'a caption'; expected caption<TAB>URL"),
        ("a\thttp://x/y\nb\tc\thttp://x/y\n", "line 2: 'b"),
        ("a\tftp://x/y\n", "line 1"),
        ("a\thttp://x/\x01y\n", "line 1"),
        (" \thttp://x/y\n", "line 1: the caption is empty"),
    ],
)
def test_damaged_lists(tmp_path, text, words):
    (tmp_path / "train.tsv").write_text(text)
    with pytest.raises(CorpusError, match=words) as caught:
        prepare({"train": tmp_path / "train.tsv"}, tmp_path / "downloads", tmp_path / "corpus")
    assert "train.tsv" in str(caught.value)


def test_no_way_to_the_web_is_told_and_not_held_against_the_urls(tmp_path, monkeypatch):
    monkeypatch.setattr(conceptual_captions, "UNREACHABLE", 5)
    (tmp_path / "train.tsv").write_text("".join(f"a\thttp://127.0.0.1:9/{k}\n" for k in range(20)))
    with pytest.raises(CorpusError, match=r"none of the first 5 URLs could be reached .* set http_proxy"):
        prepare({"train": tmp_path / "train.tsv"}, tmp_path / "downloads", tmp_path / "corpus", limits=LIMITS)
    assert not conceptual_captions.read_faults(tmp_path / "downloads")


WORK = """
import sys
from pathlib import Path
from preprocess.conceptual_captions import prepare
from preprocess.http_fetch import Limits
from preprocess.packing import Packing
folder = Path(sys.argv[1])
prepare({"train": folder / "train.tsv"}, folder / "downloads", folder / "corpus", limits=Limits(threads=4, tries=1), packing=Packing(workers=1))
"""


def test_killed_in_the_middle_and_run_again(server, tmp_path):
    """What was fetched or given up is not asked for again; a line of the log that was not ended is."""
    paths = [f"ok/{k}" if k % 5 else f"gone/{k}" for k in range(100)]
    (tmp_path / "train.tsv").write_text("".join(f"caption\t{server.url}/{path}\n" for path in paths))
    server.pause = 0.05
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", WORK, str(tmp_path)]
    process = subprocess.Popen(command, cwd=root, env=os.environ | {"PYTHONPATH": str(root)})
    while len(server.asked) < 40 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(0.2)
    images = tmp_path / "downloads" / "images"
    log = tmp_path / "downloads" / "faults-1-of-1.jsonl"
    settled = {path for path in images.glob("*/*") if path.suffix != ".part"}
    kept = len(settled) + len(log.read_text().splitlines())
    assert 20 < kept < 60
    with log.open("a") as file:
        file.write('{"url": "http')  # as a kill in the middle of a write leaves it
    before, server.pause = server.asked.copy(), 0.0
    server.asked.clear()
    subprocess.run(command, cwd=root, env=os.environ | {"PYTHONPATH": str(root)}, check=True, timeout=60)
    assert len(server.asked) == 100 - kept
    assert set(before) | set(server.asked) == {f"/{path}" for path in paths}
    corpus = Corpus(tmp_path / "corpus")
    assert corpus.info["splits"]["train"] == {"images": 80, "captions": 80}
    assert len(failures(tmp_path / "downloads")) == 20
    assert not list(images.glob("*/*.part"))
