"""Images become a corpus folder: every one is there once or listed; parts, kills and full disks change nothing in what is made."""

from __future__ import annotations

import fcntl
import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from odd_images import BAD, GOOD, SIDEWAYS
from PIL import Image
from real_processes import small_disk

from corpora.corpus import Caption, Corpus, CorpusError
from corpora.store import StoreError
from preprocess import build as build_module
from preprocess import image_packing
from preprocess.build import announce, build
from preprocess.entries import Entry
from preprocess.packing import Packing

A_PIECE = 4


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(image_packing, "IMAGES_A_PIECE", A_PIECE)


@pytest.fixture
def entries(tmp_path):
    """18 images in two splits, in five pieces."""
    (tmp_path / "images").mkdir()
    made = []
    for k in range(18):
        path = tmp_path / "images" / f"{k}.png"
        Image.new("RGB", (10 + k, 20), (k, 0, 0)).save(path)
        captions = (Caption(f"{k}a", f"number {k}", (str(k),)), Caption(f"{k}b", "a picture", (str(k),)))
        made.append(Entry(str(k), "val" if k % 3 == 0 else "train", path, captions, f"class {k % 2}", f"made-up/{k}"))
    return made


def make(entries, folder, **options):
    return build(entries, folder, made_by={"by": "hand"}, sources={"list": "digest"}, packing=Packing(**options))


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def left_beside(folder):
    return sorted(path.name for path in folder.parent.iterdir() if path.name != "images")


def test_records_captions_classes_and_sources_arrive(entries, tmp_path):
    assert make(entries, tmp_path / "corpus")
    corpus = Corpus(tmp_path / "corpus")
    val = corpus.split("val")
    assert val.image_ids == ("0", "3", "6", "9", "12", "15")
    assert val.classes[:2] == ("class 0", "class 1")
    assert val.sources[1] == "made-up/3"
    assert val.texts[:3] == ("number 0", "a picture", "number 3")
    assert corpus.images.ids == [str(k) for k in range(18)]
    assert all(corpus.images.read(entry.id) == entry.path.read_bytes() for entry in entries)
    assert corpus.info["made_by"] == {"by": "hand", "bad_images": "stop", "short_side": 0}
    assert left_beside(tmp_path / "corpus") == ["corpus"]


def test_the_same_corpus_is_left_and_entries_are_not_drawn(entries, tmp_path):
    make(entries, tmp_path / "corpus", workers=1)
    (tmp_path / ".corpus.pieces").mkdir()  # of a job that was killed after it had joined them
    assert not make(iter(()), tmp_path / "corpus", workers=2)
    assert left_beside(tmp_path / "corpus") == ["corpus"]
    with pytest.raises(CorpusError, match="short_side 0 there and 9 here"):
        make(entries, tmp_path / "corpus", short_side=9)


def test_another_folder_of_that_name_is_not_touched(entries, tmp_path):
    (tmp_path / "corpus").mkdir()
    with pytest.raises(CorpusError, match="exists already"):
        make(entries, tmp_path / "corpus")
    assert left_beside(tmp_path / "corpus") == ["corpus"]


def test_parts_in_any_order_make_the_same_bytes(entries, tmp_path, capsys):
    make(entries, tmp_path / "whole" / "corpus")
    for order in ((1, 2, 3), (3, 1, 2)):
        folder = tmp_path / str(order) / "corpus"
        assert [make(entries, folder, part=f"{number}/3", workers=1) for number in order] == [False, False, True]
        assert content(folder) == content(tmp_path / "whole" / "corpus")
    assert "3 of 5 pieces are still to come from other parts" in capsys.readouterr().out


def test_more_parts_than_pieces(entries, tmp_path):
    made = [make(entries, tmp_path / "corpus", part=f"{number}/9") for number in range(1, 10)]
    assert made == [False] * 4 + [True] + [False] * 4


def test_a_part_that_is_none(entries, tmp_path):
    with pytest.raises(StoreError, match="--part 4/3"):
        make(entries, tmp_path / "corpus", part="4/3")


def test_who_finds_the_joining_taken_leaves_it(entries, tmp_path, capsys):
    make(entries, tmp_path / "corpus", part="1/2")
    with (tmp_path / ".corpus.pieces" / "joining").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert not make(entries, tmp_path / "corpus", part="2/2")
    assert "another job is joining the pieces" in capsys.readouterr().out
    assert make(entries, tmp_path / "corpus")


def test_a_part_that_finds_the_pieces_joined_and_gone(entries, tmp_path, monkeypatch):
    make(entries, tmp_path / "corpus", part="1/2")

    def meanwhile(*given):
        monkeypatch.setattr(build_module, "_check_room", whole)
        assert make(entries, tmp_path / "corpus", part="2/2")

    whole = build_module._check_room
    monkeypatch.setattr(build_module, "_check_room", lambda *given, **named: meanwhile())
    assert not make(entries, tmp_path / "corpus", part="2/2")
    assert left_beside(tmp_path / "corpus") == ["corpus"]


def test_processes_make_the_same_bytes(entries, tmp_path):
    make(entries, tmp_path / "one" / "corpus", workers=1)
    make(entries, tmp_path / "two" / "corpus", workers=2)
    assert content(tmp_path / "one" / "corpus") == content(tmp_path / "two" / "corpus")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("short_side", [0, 16])
def test_every_odd_image_is_stored_or_listed(tmp_path, short_side):
    files = {**GOOD, **SIDEWAYS, **{name: data for name, (data, _) in BAD.items()}}
    rows = []
    for number, (name, data) in enumerate(files.items()):
        (tmp_path / f"{number}.jpg").write_bytes(data)
        rows.append(Entry(name, "all", tmp_path / f"{number}.jpg"))
    rows.append(Entry("missing", "all", tmp_path / "nowhere.jpg"))
    make(rows, tmp_path / "corpus", bad_images="skip", short_side=short_side)
    corpus = Corpus(tmp_path / "corpus")
    assert corpus.images.ids == [*GOOD, *SIDEWAYS]
    assert [row["id"] for row in corpus.info["left_out"]] == [*BAD, "missing"]
    assert all(row["reason"] for row in corpus.info["left_out"])
    assert all(corpus.images.picture(name).mode == "RGB" for name in corpus.images.ids)


def spoil(entries):
    entries[5].path.write_bytes(b"<html>404</html>")
    entries[17].path.unlink()


def test_faults_stop_the_work_and_only_what_was_mended_is_read_again(entries, tmp_path, monkeypatch):
    make(entries, tmp_path / "whole" / "corpus")
    before = {entry.id: entry.path.read_bytes() for entry in entries}
    spoil(entries)
    with pytest.raises(CorpusError, match="2 of 18 images cannot be used") as caught:
        make(entries, tmp_path / "corpus")
    assert "17.png: no such file" in str(caught.value)
    assert left_beside(tmp_path / "corpus") == [".corpus.pieces", "whole"]
    for number in (5, 17):
        entries[number].path.write_bytes(before[str(number)])
    read = []
    monkeypatch.setattr(image_packing, "pack_files", lambda files, *rest: read.append(files[0][0]) or PACK(files, *rest))
    assert make(entries, tmp_path / "corpus", workers=1)
    assert read == ["4", "16"]  # the first images of the two pieces
    assert content(tmp_path / "corpus") == content(tmp_path / "whole" / "corpus")


PACK = image_packing.pack_files


def test_faults_can_be_left_out_after_all(entries, tmp_path):
    spoil(entries)
    with pytest.raises(CorpusError):
        make(entries, tmp_path / "corpus")
    assert make(entries, tmp_path / "corpus", bad_images="skip")
    corpus = Corpus(tmp_path / "corpus")
    assert [(row["id"], row["reason"].partition(" (")[0]) for row in corpus.info["left_out"]] == [
        ("5", "not a whole image of a kind that is decoded here"),
        ("17", "no such file"),
    ]
    assert len(corpus.split("train").texts) == 20


def test_a_corpus_of_faults_alone_is_refused(entries, tmp_path):
    shutil.rmtree(tmp_path / "images")
    with pytest.raises(CorpusError, match="18 of 18 images cannot be used"):
        make(entries, tmp_path / "corpus", bad_images="skip")


def test_a_caption_of_several_images_loses_those_that_are_left_out(entries, tmp_path):
    shared = Caption("shared", "two pictures", ("0", "3"))
    both = Caption("both", "two that are gone", ("6", "9"))
    texts = {"0": shared, "3": shared, "6": both, "9": both}
    rows = [Entry(e.id, e.split, e.path, (*e.captions, *([texts[e.id]] if e.id in texts else []))) for e in entries]
    for number in (3, 6, 9):
        rows[number].path.unlink()
    make(rows, tmp_path / "corpus", bad_images="skip")
    val = Corpus(tmp_path / "corpus").split("val")
    assert "two pictures" in val.texts and "two that are gone" not in val.texts
    assert [val.image_ids[i] for i, j in val.pairs if val.texts[j] == "two pictures"] == ["0"]


def test_what_entries_may_not_be(entries, tmp_path):
    with pytest.raises(CorpusError, match="no images to pack"):
        make([], tmp_path / "corpus")
    with pytest.raises(StoreError, match="1 image ids stand there more than once, the first: 4"):
        make([*entries, entries[4]], tmp_path / "corpus")
    other = Entry("x", "train", entries[0].path, (Caption("0a", "another text", ("x",)),))
    with pytest.raises(CorpusError, match="two captions have the id 0a: 'number 0' and 'another text'"):
        make([*entries, other], tmp_path / "corpus")


def test_pieces_of_another_list_are_refused(entries, tmp_path):
    make(entries, tmp_path / "corpus", part="1/2")
    with pytest.raises(StoreError, match="begun with other options or files"):
        make(entries[1:], tmp_path / "corpus", part="2/2")
    with pytest.raises(StoreError, match="begun with other options or files"):
        make(entries, tmp_path / "corpus", part="2/2", short_side=7)


def test_a_damaged_piece_is_packed_again(entries, tmp_path):
    make(entries, tmp_path / "corpus", part="1/2", workers=1)
    piece = tmp_path / ".corpus.pieces" / "000000"
    piece.write_bytes(piece.read_bytes()[:-1])
    assert make(entries, tmp_path / "corpus", workers=1)
    assert Corpus(tmp_path / "corpus").images.read("0") == entries[0].path.read_bytes()


def test_too_little_room_is_told_before(entries, tmp_path, monkeypatch):
    size = sum(entry.path.stat().st_size for entry in entries)
    room = shutil.disk_usage(tmp_path)._replace(free=2 * size - 1)
    monkeypatch.setattr(build_module.shutil, "disk_usage", lambda folder: room)
    with pytest.raises(CorpusError, match=r"packing needs .* GB more there .* free; make room"):
        make(entries, tmp_path / "corpus")
    monkeypatch.setattr(build_module.shutil, "disk_usage", lambda folder: room._replace(free=2 * size))
    assert make(entries, tmp_path / "corpus")


def test_a_disk_that_fills_up_leaves_no_half_corpus(entries, tmp_path, monkeypatch):
    rng = random.Random(0)
    for entry in entries[:8]:
        Image.frombytes("RGB", (300, 300), rng.randbytes(270_000)).save(entry.path)  # 2.2 MB in all
    make(entries, tmp_path / "whole" / "corpus", workers=1)
    with small_disk(tmp_path / "disk", 6) as disk:
        folder, ballast = disk / "corpus", disk / "ballast"
        usage = shutil.disk_usage(disk)
        monkeypatch.setattr(build_module.shutil, "disk_usage", lambda folder: usage)
        for size in (5_000_000, 2_500_000):  # full while packing, and while joining
            ballast.write_bytes(b"\0" * size)
            with pytest.raises(CorpusError, match=r"corpus: cannot be written .No space left on device"):
                make(entries, folder, workers=1)
            assert sorted(path.name for path in disk.iterdir()) == [".corpus.pieces", "ballast"]
        ballast.unlink()
        assert make(entries, folder, workers=1)
        assert content(folder) == content(tmp_path / "whole" / "corpus")


KILLED = """
import json, sys
from pathlib import Path
from corpora.corpus import Caption
from preprocess import image_packing
from preprocess.build import build
from preprocess.entries import Entry
from preprocess.packing import Packing

if __name__ == "__main__":
    image_packing.IMAGES_A_PIECE = 40
    images, folder, workers = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    entries = [Entry(path.stem, "all", path, (Caption(path.stem, "a text", (path.stem,)),)) for path in sorted(images.iterdir())]
    build(entries, folder, made_by={}, sources={}, packing=Packing(workers=workers))
"""


def test_a_killed_job_goes_on_and_makes_the_same_bytes(tmp_path):
    (tmp_path / "images").mkdir()
    rng = random.Random(0)
    for k in range(800):
        Image.frombytes("RGB", (40, 40), rng.randbytes(4800)).save(tmp_path / "images" / f"{k:03}.png")

    def command(name, workers):
        code = [sys.executable, "-c", KILLED, tmp_path / "images", tmp_path / name / "corpus", str(workers)]
        return subprocess.Popen(code, stderr=subprocess.DEVNULL)

    assert command("whole", 1).wait() == 0
    pieces, whole = tmp_path / "killed" / ".corpus.pieces", content(tmp_path / "whole" / "corpus")
    kills = 0
    for wanted in (1, 7, 15, 20):
        process = command("killed", 1 if wanted % 2 else 2)
        while process.poll() is None and len(list(pieces.glob("0000??"))) < wanted:
            time.sleep(0.002)
        kills += process.poll() is None
        process.kill()  # its workers leave by themselves
        process.wait()
    assert kills >= 3
    assert command("killed", 2).wait() == 0
    assert content(tmp_path / "killed" / "corpus") == whole
    assert [path.name for path in (tmp_path / "killed").iterdir()] == ["corpus"]


def test_a_job_killed_while_it_joins(entries, tmp_path):
    make(entries, tmp_path / "whole" / "corpus")
    part = tmp_path / ".corpus.part"
    part.mkdir()  # what such a job leaves
    (part / "images.h5").write_bytes(b"half")
    assert make(entries, tmp_path / "corpus")
    assert content(tmp_path / "corpus") == content(tmp_path / "whole" / "corpus")
    assert left_beside(tmp_path / "corpus") == ["corpus", "whole"]


def test_what_is_announced(entries, tmp_path, capsys):
    announce(tmp_path / "corpus", False)
    assert capsys.readouterr().out == ""  # build has told which pieces are still to come
    announce(tmp_path / "corpus", make(entries, tmp_path / "corpus"))
    assert capsys.readouterr().out.startswith(f"made: {tmp_path}/corpus: val 6 images and 12 captions, train 12 images")
    announce(tmp_path / "corpus", False)
    assert capsys.readouterr().out.startswith("stands already: ")


def test_left_out_is_the_same_in_every_run(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no image")
    Image.new("RGB", (4, 4)).save(tmp_path / "b.png")
    rows = [Entry("a", "all", tmp_path / "a.jpg"), Entry("b", "all", tmp_path / "b.png")]
    for name in ("1", "2"):
        make(rows, tmp_path / name / "corpus", bad_images="skip")
    assert content(tmp_path / "1" / "corpus") == content(tmp_path / "2" / "corpus")
    assert json.loads((tmp_path / "1" / "corpus" / "corpus.json").read_text())["left_out"][0]["path"] == str(
        Path(tmp_path / "a.jpg")
    )
