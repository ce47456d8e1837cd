"""What the engine tells whoever watches over it."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from real_processes import in_processes
from tiny_model import TinyModel, engine, provenance, rank

from launch import attempt
from launch import history as attempts
from training.loop import process_group
from training.supervision import Nobody

pytestmark = pytest.mark.usefixtures("small_blocks")
BLOCKS, BATCHES = 9, 5


class Told(Nobody):
    """Notes what it hears, and how many blocks stood at that moment; ends the process at some check."""

    def __init__(self, path: Path, replaced_at: int = 0) -> None:
        self.path, self.replaced_at, self.beats = path, replaced_at, 0
        self.checks: list[tuple[int, bool]] = []
        self.progress: list[int] = []

    def beat(self) -> None:
        self.beats += 1

    def check(self) -> None:
        self.checks.append((len(list(self.path.parent.glob("*.part/*.npy"))), self.path.exists()))
        if len(self.checks) == self.replaced_at:
            raise SystemExit(76)

    def saved(self, progress: int) -> None:
        self.progress.append(progress)


def ranked(path: Path, told: Nobody, model: TinyModel | None = None) -> None:
    process_group("no")
    model = model or TinyModel()
    replace(engine(model), supervisor=told).rank_to_file(path, provenance(model))


def test_it_looks_before_every_block_and_before_the_ranking(whole, tmp_path):
    told = Told(tmp_path / "ranking.h5")
    ranked(told.path, told)
    assert told.checks == [(blocks, False) for blocks in range(BLOCKS + 1)]
    assert told.progress == list(range(1, BLOCKS + 1))
    assert told.beats == BATCHES + BLOCKS
    assert told.path.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("check", [1, 4, BLOCKS + 1])
def test_replaced_it_writes_nothing_more(whole, tmp_path, check):
    told = Told(tmp_path / "ranking.h5", check)
    with pytest.raises(SystemExit):
        ranked(told.path, told)
    assert len(list(tmp_path.glob("*.part/*.npy"))) == check - 1 and not told.path.exists()
    rank(told.path)
    assert told.path.read_bytes() == whole.read_bytes()


def test_progress_goes_on_where_it_was(tmp_path):
    first, second = Told(tmp_path / "ranking.h5", 4), Told(tmp_path / "ranking.h5")
    with pytest.raises(SystemExit):
        ranked(first.path, first)
    ranked(second.path, second)
    assert (first.progress, second.progress) == ([1, 2, 3], list(range(4, BLOCKS + 1)))


def test_of_several_processes_the_main_one_tells(whole, tmp_path):
    path = tmp_path / "ranking.h5"

    def run() -> None:
        told = Told(path)
        ranked(path, told)
        main = os.environ["RANK"] == "0"
        assert bool(told.progress) == main and told.progress == sorted(told.progress)
        assert len(told.checks) == (6 if main else 4) and told.beats

    assert in_processes(2, run) == [0, 0]
    assert path.read_bytes() == whole.read_bytes()


def test_validation_in_memory_beats_too(tmp_path):
    told, model = Told(tmp_path / "none"), TinyModel()
    replace(engine(model), supervisor=told).rank_in_memory(provenance(model))
    assert told.beats == BATCHES + BLOCKS and not told.checks and not told.progress


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_signal_ends_it_at_once_and_it_goes_on(whole, tmp_path, number, monkeypatch):
    """Its blocks are whole at every moment: there is nothing to wait for."""
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    path = tmp_path / "ranking.h5"

    def run() -> None:
        model, left = TinyModel(), [40]

        def count() -> None:
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), number)

        model.before_score = count
        try:
            with attempt.part_of(tmp_path, attempts.begin(tmp_path, tmp_path), 0, 30.0):
                ranked(path, attempt.current(), model)
        except SystemExit as end:
            os._exit(int(end.code or 0))

    assert in_processes(1, run) == [143]
    last = attempts.latest(tmp_path)
    assert last.how == "stopped" and last.progress == len(list(tmp_path.glob("*.part/*.npy"))) > 0
    rank(path)
    assert path.read_bytes() == whole.read_bytes()
