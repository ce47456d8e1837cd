"""Extraction in pieces: killed, shared, repeated, it gives the file of one unbroken run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import tiny_extractor
from tiny_extractor import IMAGES, PIECE, TinyExtractor, make_corpus

from corpora.corpus import Corpus, CorpusError
from corpora.pieces import Part
from corpora.store import StoreError
from models import region_extraction
from models.region_extraction import Extraction
from training.supervision import Nobody

PIECES = -(-IMAGES // PIECE)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(region_extraction, "PIECE", PIECE)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of one unbroken run."""
    corpus = make_corpus(tmp_path_factory.mktemp("whole") / "corpus")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(region_extraction, "PIECE", PIECE)
        assert Extraction(corpus, TinyExtractor(), "tiny").run()
    return (corpus.folder / "regions-tiny.h5").read_bytes()


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return make_corpus(tmp_path / "corpus")


def left(corpus: Corpus) -> list[str]:
    """Names in the corpus folder that a finished extraction must not leave."""
    known = {"corpus.json", "images.parquet", "captions.parquet", "images.h5", "regions-tiny.h5"}
    return sorted({path.name for path in corpus.folder.iterdir()} - known)


def test_every_image_with_its_own_regions(corpus):
    extractor = TinyExtractor()
    names = (("nothing", "left", "right"), ())
    assert Extraction(corpus, extractor, "tiny", "no", 3, class_names=names[0], attribute_names=names[1]).run()
    regions = corpus.regions("tiny")
    assert regions.ids == corpus.images.ids
    assert (regions.regions, regions.width, regions.class_names) == (2, 3, names[0])
    assert regions.sources["extractor"] == "tiny"
    for image_id in regions.ids:
        expected = TinyExtractor()([corpus.images.picture(image_id)])[0]
        stored = regions.of(image_id)
        assert np.array_equal(stored.features, expected.features.astype(np.float16))
        assert np.array_equal(stored.boxes, expected.boxes)
        assert stored.classes.tolist() == [1, 2] and stored.scores.tolist() == [0.5, 0.25]
    assert left(corpus) == []
    assert extractor.seen == IMAGES


def test_killed_twice_it_goes_on(corpus, whole):
    for least in (2, 4):
        pieces = corpus.folder / "regions-tiny.pieces"
        process = subprocess.Popen(
            [sys.executable, tiny_extractor.__file__, corpus.folder], env={**os.environ, "PYTHONPATH": here()}
        )
        deadline = time.monotonic() + 60
        while len(list(pieces.glob("??????"))) < least and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        done = len(list(pieces.glob("??????")))
        assert least <= done < PIECES
        assert not (corpus.folder / "regions-tiny.h5").exists()
    extractor = TinyExtractor()
    assert Extraction(corpus, extractor, "tiny").run()
    assert extractor.seen == IMAGES - done * PIECE
    assert (corpus.folder / "regions-tiny.h5").read_bytes() == whole
    assert left(corpus) == []


def here() -> str:
    return str(Path(__file__).resolve().parents[2])


@pytest.mark.parametrize("parts", [2, 3, 20])
def test_parts_give_the_same_file(corpus, whole, parts):
    extractor = TinyExtractor()
    done = [Extraction(corpus, extractor, "tiny", part=Part(number, parts)).run() for number in range(parts, 0, -1)]
    assert done == [False] * (parts - 1) + [True]
    assert extractor.seen == IMAGES
    assert (corpus.folder / "regions-tiny.h5").read_bytes() == whole
    assert left(corpus) == []


def test_processes_of_parts_share_them_and_no_image_is_seen_twice(corpus, whole):
    extractor = TinyExtractor()
    shares = [(Part(number, 2), rank) for rank in (1, 0) for number in (1, 2)]
    done = [Extraction(corpus, extractor, "tiny", part=part, rank=rank, size=2).run() for part, rank in shares]
    assert done == [False, False, False, True]
    assert extractor.seen == IMAGES
    assert (corpus.folder / "regions-tiny.h5").read_bytes() == whole


def test_the_first_process_ends_last(corpus, whole):
    """Else the job would be recorded as finished while another of its processes can still fail."""
    first = threading.Thread(target=Extraction(Corpus(corpus.folder), TinyExtractor(), "tiny", rank=0, size=2).run)
    first.start()
    first.join(0.5)
    assert first.is_alive()
    Extraction(corpus, TinyExtractor(), "tiny", rank=1, size=2).run()
    first.join(10)
    assert not first.is_alive()
    assert (corpus.folder / "regions-tiny.h5").read_bytes() == whole


def test_the_same_job_three_times_at_once(corpus, whole):
    """Whoever joins first takes the pieces away under the others; one whole file is left and nobody fails."""
    command = [sys.executable, tiny_extractor.__file__, corpus.folder]
    processes = [subprocess.Popen(command, env={**os.environ, "PYTHONPATH": here()}) for _ in range(2)]
    while not list(corpus.folder.glob("regions-tiny.pieces/00000?")):
        time.sleep(0.01)
    assert Extraction(corpus, TinyExtractor(), "tiny").run()
    assert [process.wait() for process in processes] == [0, 0]
    assert (corpus.folder / "regions-tiny.h5").read_bytes() == whole


def test_jobs_that_join_together(corpus, whole, monkeypatch):
    other = Extraction(Corpus(corpus.folder), TinyExtractor(), "tiny")
    write = Extraction._write_joined

    def write_late(self: Extraction, aside: Path, *rest: object) -> None:
        monkeypatch.setattr(Extraction, "_write_joined", write)
        assert other.run()  # joins them and removes them, just before this one begins to
        write(self, aside, *rest)

    monkeypatch.setattr(Extraction, "_write_joined", write_late)
    assert Extraction(corpus, TinyExtractor(), "tiny").run()
    assert (corpus.folder / "regions-tiny.h5").read_bytes() == whole
    assert left(corpus) == []


def test_loader_workers_and_batches_change_nothing(corpus, whole):
    assert Extraction(corpus, TinyExtractor(), "tiny", batch_size=3, workers=2).run()
    assert (corpus.folder / "regions-tiny.h5").read_bytes() == whole


def test_what_stands_is_not_made_again(corpus):
    Extraction(corpus, TinyExtractor(), "tiny").run()
    (corpus.folder / "regions-tiny.pieces").mkdir()  # left by a job killed at its very end
    again = TinyExtractor()
    assert Extraction(corpus, again, "tiny").run()
    assert again.seen == 0 and left(corpus) == []
    with pytest.raises(CorpusError, match=r"regions-tiny\.h5: made otherwise \(weights \w+ there and \w+ here\).*--store-as"):
        Extraction(corpus, TinyExtractor(weight=2.0), "tiny").run()
    with pytest.raises(CorpusError, match="precision no there and bf16 here"):
        Extraction(corpus, TinyExtractor(), "tiny", precision="bf16").run()


def test_pieces_of_other_weights_are_refused(corpus):
    Extraction(corpus, TinyExtractor(), "tiny", part=Part(1, 2)).run()
    with pytest.raises(StoreError, match="begun with other options"):
        Extraction(corpus, TinyExtractor(weight=2.0), "tiny", part=Part(2, 2)).run()


def test_a_full_disk_leaves_no_half_piece(corpus, whole, monkeypatch):
    turns = count()

    def write(path: Path, *rest: object) -> None:
        if next(turns) == 3:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        write_regions(path, *rest)

    write_regions = region_extraction.write_regions
    monkeypatch.setattr(region_extraction, "write_regions", write)
    with pytest.raises(OSError, match="No space left"):
        Extraction(corpus, TinyExtractor(), "tiny").run()
    assert sorted(path.name for path in (corpus.folder / "regions-tiny.pieces").iterdir()) == [
        "000000",
        "000001",
        "000002",
        "identity.json",
    ]
    assert Extraction(corpus, TinyExtractor(), "tiny").run()
    assert (corpus.folder / "regions-tiny.h5").read_bytes() == whole


def test_the_supervisor_hears_of_every_batch_and_piece(corpus):
    class Watcher(Nobody):
        def __init__(self) -> None:
            self.beats, self.checks, self.steps = 0, 0, []

        def beat(self) -> None:
            self.beats += 1

        def check(self) -> None:
            self.checks += 1

        def saved(self, progress: int) -> None:
            self.steps.append(progress)

    watcher = Watcher()
    Extraction(corpus, TinyExtractor(), "tiny", batch_size=2, supervisor=watcher).run()
    assert watcher.steps == list(range(1, PIECES + 1))
    assert watcher.beats >= IMAGES / 2 and watcher.checks >= PIECES
