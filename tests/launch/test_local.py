"""Several processes on this machine: what the user sees and what is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch import local
from launch.resources import Resources
from launch.task import Task

STARTED = {"resources": {"stalled_minutes": 30.0}}
TRACE = "Traceback (most recent call last)"


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Do not wait long for the others, and leave this process's signal handlers as they were."""
    monkeypatch.setattr(local, "SECONDS_TO_END", 1.0)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def run(tmp_path: Path, probe: str, what: str) -> tuple[int | str | None, Path]:
    """Two processes that do as `what` says: the exit code or message, and the run folder."""
    task = Task(probe, {"what": what}, str(tmp_path / "runs/probe_job/x"), STARTED)
    try:
        local.run_processes(task, Resources(gpus_per_node=2))
    except SystemExit as end:
        return end.code, Path(task.run_dir)
    return 0, Path(task.run_dir)


def logs(run_dir: Path) -> Path:
    (folder,) = (run_dir / "logs").iterdir()
    return folder


def test_two_processes(tmp_path, probe, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "corpora").mkdir()  # a folder of the user's that bears one of our names
    code, run_dir = run(tmp_path, probe, "fine,fine")
    said = capfd.readouterr()
    assert code == 0 and said.err == ""
    assert said.out.splitlines() == [f"run folder: {run_dir}", f"2 processes, logs: {logs(run_dir)}", "this is rank 0"]
    seen = [eval((run_dir / f"rank-{rank}.txt").read_text()) for rank in (0, 1)]
    assert [one["WORLD_SIZE"] for one in seen] == ["2", "2"] and [one["LOCAL_RANK"] for one in seen] == ["0", "1"]
    assert seen[0]["MASTER_PORT"] == seen[1]["MASTER_PORT"] and seen[0]["MASTER_ADDR"] == "127.0.0.1"
    assert seen[0]["CUDA_VISIBLE_DEVICES"] == "0,1"


def test_gpus_that_the_user_chose(tmp_path, probe, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    _, run_dir = run(tmp_path, probe, "fine,fine")
    assert eval((run_dir / "rank-1.txt").read_text())["CUDA_VISIBLE_DEVICES"] == "2,3"


def test_rank_0_fails(tmp_path, probe, capfd):
    code, run_dir = run(tmp_path, probe, "bug,sleep")
    said = capfd.readouterr()
    assert code == 1
    assert said.err.count(TRACE) == 1
    assert said.err.endswith(f"KeyError: 'cause'\n(traceback: {logs(run_dir)}/error-0.txt)\n")
    assert (logs(run_dir) / "error-0.txt").read_text().endswith("KeyError: 'cause'\n")


def test_another_rank_fails_and_rank_0_would_wait_for_ever(tmp_path, probe, capfd):
    started = time.monotonic()
    code, run_dir = run(tmp_path, probe, "sleep,bug")
    assert time.monotonic() - started < 30
    assert str(code).startswith(f"process 1 failed first:\n{TRACE}") and str(code).count(TRACE) == 1
    assert str(code).endswith(f"KeyError: 'cause'\n(traceback: {logs(run_dir)}/error-1.txt)")
    assert capfd.readouterr().err == ""


def test_the_cause_is_told_after_its_echo(tmp_path, probe, capfd, monkeypatch):
    """Rank 0 only sees that a connection broke."""
    monkeypatch.setattr("launch.local.SECONDS_TO_END", 60.0)  # a busy machine may need more than ten to get there
    code, _ = run(tmp_path, probe, "echo,bug")
    assert "RuntimeError: Connection closed by peer" in capfd.readouterr().err
    assert str(code).startswith("process 1 failed first") and "KeyError: 'cause'" in str(code)


def test_the_same_mistake_everywhere_is_told_once(tmp_path, probe, capfd):
    code, _ = run(tmp_path, probe, "mistake,mistake")
    assert code == 1 and capfd.readouterr().err.count("ValueError: the same everywhere") == 1


def test_a_process_that_is_killed(tmp_path, probe):
    code, run_dir = run(tmp_path, probe, "fine,kill")
    assert code == f"error: process 1 ended without a word: killed, perhaps for want of memory or disk\n(logs: {logs(run_dir)})"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_it_stops_all(tmp_path, probe, number):
    """Also where SIGINT was ignored, as it is in what a script starts with `&`."""
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from launch.local import run_processes; from launch.resources import Resources; from launch.task import Task\n"
        f"run_processes(Task({probe!r}, {{'what': 'sleep,sleep'}}, {str(tmp_path / 'run')!r}, {STARTED}), Resources(gpus_per_node=2))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as launcher:
        deadline = time.monotonic() + 60
        while not all((tmp_path / f"run/rank-{rank}.txt").exists() for rank in (0, 1)) and time.monotonic() < deadline:
            time.sleep(0.1)
        launcher.send_signal(number)
        _, err = launcher.communicate(timeout=30)
    assert launcher.returncode == {signal.SIGINT: -2, signal.SIGTERM: 143}[number]
    assert "submitit" not in err
    assert not running(str(tmp_path / "run"))


def running(text: str) -> list[str]:
    """Processes whose command line names a text."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text in path.read_bytes().decode(errors="replace") and int(path.parent.name) != os.getpid():
                found.append(path.parent.name)
        except OSError:  # it has ended meanwhile
            pass
    return found
