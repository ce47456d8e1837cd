"""What the terminal shows of a job elsewhere."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from launch import following, history
from launch.following import Tail, follow
from launch.run_folder import make_run_folder
from launch.slurm import JobState
from launch.submission import Submission

TRACE = 'Traceback (most recent call last):\n  File "x.py", line 1, in <module>\n{}\n'


def test_a_log_as_it_grows(tmp_path):
    log, shown = tmp_path / "log", io.StringIO()
    tail = Tail(log, shown)
    tail.show()  # it is not there yet
    log.write_bytes(b"one\ntw")
    tail.show()
    tail.show()
    with log.open("ab") as file:
        file.write(b"o \xff\n")
    tail.show()
    assert shown.getvalue() == "one\ntwo \ufffd\n"


def test_a_character_written_in_two_parts(tmp_path):
    log, shown = tmp_path / "log", io.StringIO()
    tail = Tail(log, shown)
    log.write_bytes(b"gr" + "ü".encode()[:1])
    tail.show()
    with log.open("ab") as file:
        file.write("ü".encode()[1:] + b"n")
    tail.show()
    assert shown.getvalue() == "grün"


class Job:
    """Job 7 with a log, whose states are those of a list, one a question."""

    def __init__(self, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.run_dir, self.folder = run_dir, run_dir / "logs" / "now"
        make_run_folder(run_dir, {})
        self.folder.mkdir()
        self.submission = Submission("7", str(self.folder / "7_0_log.out"), "today")
        self.states: list[JobState | Exception] = []
        self.code = 0
        monkeypatch.setattr(following, "SECONDS_BETWEEN_QUESTIONS", 0.0)
        monkeypatch.setattr(following.time, "sleep", lambda _: None)
        monkeypatch.setattr(following.slurm, "job_states", lambda jobs: {job: self.next() for job in jobs})
        monkeypatch.setattr(following.slurm, "exit_code", lambda job: self.code)

    def next(self) -> JobState:
        state = self.states.pop(0)
        if isinstance(state, BaseException):
            raise state
        if state.state == "RUNNING":
            self.write("working\n")
        return state

    def write(self, text: str) -> None:
        with Path(self.submission.log).open("a") as log:
            log.write(text)

    def error(self, rank: int, line: str, time: int) -> None:
        path = self.folder / f"error-7-{rank}.txt"
        path.write_text(TRACE.format(line))
        os.utime(path, ns=(time, time))

    def follow(self, *states: str | Exception) -> int:
        self.states = [state if isinstance(state, BaseException) else JobState(*state.split("|")) for state in states]
        return follow(self.run_dir, self.submission)


@pytest.fixture
def job(tmp_path, monkeypatch) -> Job:
    return Job(tmp_path / "runs/job/x", monkeypatch)


def test_a_job_that_ends_well(job, capsys):
    job.code = 0
    assert job.follow("PENDING|Resources", "PENDING|Resources", "RUNNING|None|n1", "RUNNING|None|n1", "COMPLETED|None|n1") == 0
    assert capsys.readouterr() == (
        "[job 7: PENDING (Resources)]\n[job 7: RUNNING on n1]\nworking\nworking\n[job 7: COMPLETED on n1]\n",
        "",
    )


def test_it_is_followed_over_requeues(job, capsys):
    assert job.follow("RUNNING||n1", "PENDING|BeginTime", "RUNNING||n2", "COMPLETED") == 0
    assert "[job 7: PENDING (BeginTime)]\n[job 7: RUNNING on n2]\nworking\n" in capsys.readouterr().out


def test_a_failure_says_who_failed_first(job, capsys):
    job.code = 1
    history.update(job.run_dir, history.begin(job.run_dir, job.folder), job="7", message="ValueError: no")
    job.error(0, "RuntimeError: Connection closed by peer", 1)
    job.error(1, "ValueError: no", 2)
    job.error(2, "ValueError: another", 3)
    assert job.follow("RUNNING||n1", "FAILED|NonZeroExitCode|n1") == 1
    assert capsys.readouterr().err == (
        f"job 7 ended as FAILED (NonZeroExitCode) on n1: ValueError: no\nprocess 1 failed first:\n{TRACE.format('ValueError: no')}"
        f"log: {job.submission.log}\n"
    )


def test_where_all_are_echoes_the_first_is_shown(job, capsys):
    job.code = 143
    job.error(1, "RuntimeError: Connection closed by peer", 1)
    job.error(0, "RuntimeError: Connection reset by peer", 2)
    assert job.follow("FAILED") == 143
    assert "process 1 failed first" in capsys.readouterr().err


@pytest.mark.parametrize("state", ["CANCELLED", "TIMEOUT", "GONE"])
def test_an_end_without_an_exit_code_is_no_success(job, state, capsys):
    assert job.follow(state) == 1
    assert capsys.readouterr().err == f"job 7 ended as {state}\nlog: {job.submission.log}\n"


def test_the_record_of_another_job_is_no_reason(job, capsys):
    history.update(job.run_dir, history.begin(job.run_dir, job.folder), job="6", message="old")
    assert job.follow("TIMEOUT") == 1 and "old" not in capsys.readouterr().err


def test_a_controller_that_is_restarted_meanwhile(job, capsys):
    lost = following.slurm.SlurmError("squeue: Unable to contact slurm controller")
    assert job.follow("RUNNING||n1", lost, lost, "RUNNING||n1", "COMPLETED") == 0
    assert capsys.readouterr().out.count("[job 7: UNKNOWN (squeue: Unable to contact slurm controller)]\n") == 1


def test_control_c_ends_the_showing_only(job, capsys):
    assert job.follow("RUNNING||n1", KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "\njob 7 lives on; the same command with --follow shows it again, scancel 7 ends it\n"


def test_slurm_is_not_asked_too_often(job, monkeypatch):
    moments = iter([float(second) for second in range(100, 200)])
    monkeypatch.setattr(following.time, "monotonic", lambda: next(moments))
    monkeypatch.setattr(following, "SECONDS_BETWEEN_QUESTIONS", 5.0)
    job.follow("PENDING", "COMPLETED")
    assert next(moments) >= 105
