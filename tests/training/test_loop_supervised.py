"""The loop is asked to stop: it saves at the step boundary, all its processes leave, and the run goes on as if unbroken."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from real_processes import in_processes
from tiny_training import Run, history, link, make, same, weights

from launch import attempt
from launch import history as attempts
from training.supervision import Nobody

SIGNALS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
TWO = {"batch_size": 8, "steps": 20, "save_every": 6, "evaluate_every": 8}


@pytest.fixture(autouse=True)
def outside_slurm(monkeypatch):
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID"):
        monkeypatch.delenv(name, raising=False)


class Told(Nobody):
    """Asks to stop in some steps, and notes what it hears."""

    def __init__(self, asks: dict[int, int] | None = None) -> None:
        self.asks, self.heard, self.steps = asks or {}, [], 0

    def asked_to_stop(self) -> int:
        self.steps += 1
        return self.asks.get(self.steps, 0)

    def beat(self) -> None:
        self.heard.append("beat")

    def check(self) -> None:
        self.heard.append("check")

    def saved(self, progress: int) -> None:
        self.heard.append(progress)

    def leave(self, asked: int) -> NoReturn:
        self.heard.append(f"leave {asked}")
        raise SystemExit(asked)


def signalled(call: int, number: signal.Signals, rank: int = 0) -> Callable[..., dict[str, object]]:
    """A batch maker in which one process gets a signal from the kernel, in the middle of a step."""
    calls = []

    def noting(samples, generator):
        calls.append(samples)
        if len(calls) == call and int(os.environ.get("RANK", "0")) == rank:
            os.kill(os.getpid(), number)
        return make(samples, generator)

    return noting


def supervised(run_dir: Path, **parts: object) -> None:
    """As a job does: a run as an attempt of its own. Ends the process with the attempt's exit code."""
    rank = int(os.environ.get("RANK", "0"))
    (run_dir / "logs").mkdir(parents=True, exist_ok=True)
    record = attempts.begin(run_dir, run_dir / "logs") if rank == 0 else attempts.Record(0)
    try:
        with attempt.part_of(run_dir, record, rank, 30.0):
            Run(run_dir, supervisor=attempt.current(), **parts)()  # type: ignore[arg-type]
    except SystemExit as end:
        os._exit(int(end.code or 0))


@SIGNALS
@pytest.mark.parametrize("call", [2, 5, 12, 23])
def test_a_signal_saves_at_the_step_boundary(unbroken, tmp_path, number, call):
    """At the start, at a save, after a validation, between two saves."""
    assert in_processes(1, lambda: supervised(tmp_path, make=signalled(call, number))) == [143]
    last = attempts.latest(tmp_path)
    assert (last.how, last.began_at) == ("stopped", 0)
    assert link(tmp_path, "last") == f"step-{last.progress:08d}" and call <= last.progress <= call + 1, "at most a step later"
    assert in_processes(1, lambda: supervised(tmp_path)) == [0]
    again = attempts.latest(tmp_path)
    assert (again.number, again.how, again.began_at, again.progress) == (2, "finished", last.progress, 45)
    same(tmp_path, unbroken)


@SIGNALS
def test_before_the_first_step_there_is_nothing_to_save(unbroken, tmp_path, number):
    assert in_processes(1, lambda: supervised(tmp_path, make=signalled(1, number))) == [143]
    assert attempts.latest(tmp_path).how == "stopped" and not list(tmp_path.glob("checkpoints/*"))
    assert in_processes(1, lambda: supervised(tmp_path)) == [0]
    same(tmp_path, unbroken)


@SIGNALS
@pytest.mark.parametrize("rank", [0, 1])
def test_of_two_processes_one_hears_it_alone(tmp_path, number, rank):
    """They agree: both leave at the same step, and only then."""
    assert in_processes(2, lambda: supervised(tmp_path / "whole", learning=TWO)) == [0, 0]
    broken = tmp_path / "broken"
    # The first batch is the warm-up's
    assert in_processes(2, lambda: supervised(broken, learning=TWO, make=signalled(11, number, rank))) == [143, 143]
    step = attempts.latest(broken).progress
    assert 10 <= step <= 11 and link(broken, "last") == f"step-{step:08d}"
    assert in_processes(2, lambda: supervised(broken, learning=TWO)) == [0, 0]
    same(broken, tmp_path / "whole")


def test_slurm_signals_loader_workers_too(unbroken, tmp_path):
    """SIGTERM goes to every process of a step; the workers must go on until the job has saved."""

    def run() -> None:
        os.setpgid(0, 0)
        supervised(tmp_path, workers=2, rsum=lambda step, loss: os.killpg(0, signal.SIGTERM) or 600 - loss)

    assert in_processes(1, run) == [143]
    assert attempts.latest(tmp_path).progress == 12
    assert in_processes(1, lambda: supervised(tmp_path, workers=2)) == [0]
    same(tmp_path, unbroken)


def test_usr2_to_loader_workers_too(unbroken, tmp_path):
    def run() -> None:
        os.setpgid(0, 0)
        supervised(tmp_path, workers=2, rsum=lambda step, loss: os.killpg(0, signal.SIGUSR2) or 600 - loss)

    assert in_processes(1, run) == [143]
    assert in_processes(1, lambda: supervised(tmp_path, workers=2)) == [0]
    same(tmp_path, unbroken)


def test_before_every_save_it_looks_whether_it_was_replaced(tmp_path):
    told, written = Told(), []
    Run(tmp_path, supervisor=told, save=lambda folder: written.append(told.heard[-1]))()
    assert written == ["check"] * len(written) and len(written) == 13
    saves = [5, 10, 11, 15, 20, 22, 25, 30, 33, 35, 40, 44, 45]
    assert [heard for heard in told.heard if heard not in ("beat", "check")] == saves
    assert told.heard.count("beat") == 45 and told.heard.count("check") == 3 * len(saves)


def test_replaced_it_writes_nothing(tmp_path):
    class Replaced(Told):
        def check(self) -> None:
            raise SystemExit(76)

    with pytest.raises(SystemExit):
        Run(tmp_path, supervisor=Replaced())()
    assert not list(tmp_path.glob("checkpoints/*"))


@pytest.mark.parametrize(("checks", "left"), [(2, []), (3, ["step-00000005"])])
def test_replaced_while_it_writes_it_neither_commits_nor_points(tmp_path, checks, left):
    class Replaced(Told):
        def check(self) -> None:
            super().check()
            if self.heard.count("check") == checks:
                raise SystemExit(76)

    with pytest.raises(SystemExit):
        Run(tmp_path, supervisor=Replaced())()
    assert [path.name for path in tmp_path.glob("checkpoints/[!.]*")] == left


@pytest.mark.parametrize("asked", [1, 2])
def test_it_leaves_as_asked_when_all_is_saved(tmp_path, asked):
    told = Told({7: asked})
    with pytest.raises(SystemExit):
        Run(tmp_path, supervisor=told)()
    assert told.heard[-3:] == ["check", 7, f"leave {asked}"] and link(tmp_path, "last") == "step-00000007"


def test_asked_at_the_last_step_it_is_done(unbroken, tmp_path):
    told = Told({45: 2})
    Run(tmp_path, supervisor=told)()
    assert told.heard[-1] == 45
    same(tmp_path, unbroken)


def test_a_saved_step_is_not_saved_twice(tmp_path):
    told = Told({10: 1})
    with pytest.raises(SystemExit):
        Run(tmp_path, supervisor=told)()
    assert told.heard.count(10) == 1


def test_without_a_supervisor_nothing_changes(unbroken, tmp_path):
    Run(tmp_path, supervisor=Told())()
    same(tmp_path, unbroken)
    assert history(tmp_path) == history(unbroken) and weights(tmp_path)
