"""Who holds a run folder, and who takes it over."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from attempt_process import DEAF, ended, latest

from launch import attempt, history, run_folder
from launch.attempt import REPLACED, own_run_folder
from launch.run_folder import RunFolderError


def test_a_second_process_is_refused_and_told_who_is_there(begin, run_dir):
    process = begin(DEAF)
    with pytest.raises(
        RunFolderError,
        match=rf"runs/job/x: another process is at work here \(process {process.pid} on .+, since 20.*\); wait for it, end it, or",
    ):
        enter(run_dir)
    assert [record.pid for record in history.records(run_dir)] == [process.pid], "nothing was written"
    process.kill()
    process.wait()
    enter(run_dir)  # the lock went with the process
    assert latest(run_dir).number == 2


def enter(run_dir: Path) -> history.Record:
    with own_run_folder(run_dir, run_dir / "logs") as record:
        return record


@pytest.mark.parametrize("state", ["RUNNING", "PENDING"])
@pytest.mark.parametrize("how", ["", "preempted", "time limit", "crashed", "stalled"])
def test_a_slurm_job_that_will_go_on_holds_the_folder(run_dir, on_path, state, how):
    """Even where its lock is not seen from here, or it waits to begin again."""
    on_path("squeue", f'echo "8|{state}|None|n1"')
    history.update(run_dir, history.begin(run_dir, run_dir), job="8", host="n1", how=how)
    with pytest.raises(RunFolderError, match=r"another process is at work here \(job 8 on n1, since "):
        enter(run_dir)


@pytest.mark.parametrize("how", ["finished", "failed", "stopped", "cancelled"])
def test_one_that_has_ended_for_good_does_not(run_dir, on_path, how):
    """Its job may run another task yet."""
    on_path("squeue", 'echo "8|RUNNING|None|n1"')
    history.update(run_dir, history.begin(run_dir, run_dir), job="8", how=how)
    assert enter(run_dir).number == 2


@pytest.mark.parametrize("squeue", ['echo "8|FAILED|None|n1"', "exit 1", ""])
def test_nor_one_whose_job_is_over_or_unknown(run_dir, on_path, squeue):
    on_path("squeue", squeue)
    on_path("sacct", "")
    history.update(run_dir, history.begin(run_dir, run_dir), job="8")
    assert enter(run_dir).number == 2


def test_the_orphan_of_an_earlier_start_of_this_job_is_replaced(begin, in_slurm, run_dir):
    """Slurm lost its node and started the job again, but the process is still there."""
    in_slurm()
    orphan = begin(DEAF)
    os.environ["SLURM_RESTART_COUNT"] = "2"
    with own_run_folder(run_dir, run_dir / "logs") as record:
        assert (record.number, record.restarts) == (2, 2)
        assert ended(orphan)[0] == REPLACED, "the lock was waited for"


def test_an_orphan_that_does_not_leave_is_not_waited_for_for_ever(begin, in_slurm, run_dir, monkeypatch, capsys):
    in_slurm()
    orphan = begin(DEAF)
    orphan.send_signal(signal.SIGSTOP)
    os.environ["SLURM_RESTART_COUNT"] = "2"
    monkeypatch.setattr(attempt, "SECONDS_TO_BE_REPLACED", 0.3)
    assert enter(run_dir).number == 2
    assert "job 7 on" in (said := capsys.readouterr().out) and "has not left the run folder: it can write nothing more" in said


def test_another_command_in_the_same_allocation_is_no_orphan(begin, in_slurm, run_dir):
    in_slurm()
    process = begin(DEAF)
    with pytest.raises(RunFolderError, match=r"another process is at work here \(job 7 on"):
        enter(run_dir)
    process.kill()
    process.wait()
    assert enter(run_dir).number == 2  # and once that one is gone, there is nothing to wait for


def test_a_file_system_without_locks(run_dir, monkeypatch):
    monkeypatch.setattr(run_folder.fcntl, "lockf", lambda *_: (_ for _ in ()).throw(OSError(95, "Operation not supported")))
    with own_run_folder(run_dir, run_dir / "logs"):
        monkeypatch.setattr(history, "begin", lambda *_: (_ for _ in ()).throw(FileExistsError))
        with pytest.raises(RunFolderError, match=r"another process is at work here \(process \d+"):
            enter(run_dir)  # at the same moment
        monkeypatch.undo()
        assert run_dir.exists()


def test_without_locks_nobody_removes_a_folder_that_is_not_its_own_alone(run_dir, monkeypatch):
    monkeypatch.setattr(run_folder.fcntl, "lockf", lambda *_: (_ for _ in ()).throw(OSError(95, "Operation not supported")))
    with own_run_folder(run_dir, run_dir / "logs"):
        with pytest.raises(ValueError), own_run_folder(run_dir, run_dir / "logs"):
            raise ValueError
        assert run_dir.exists()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_first_start_that_fails_before_it_made_anything_leaves_no_folder(run_dir, error):
    (run_dir / "attempts").mkdir()
    (run_dir / "attempts" / "meeting-1.json").touch()
    with pytest.raises(error), own_run_folder(run_dir, run_dir / "logs") as record, attempt.part_of(run_dir, record, 0, 30.0):
        raise error
    assert not run_dir.exists() and run_dir.parent.exists()


def test_on_slurm_it_stays_for_what_comes_after(run_dir, in_slurm):
    """An error of the network at the very start is tried again."""
    in_slurm()
    with pytest.raises(ValueError), own_run_folder(run_dir, run_dir / "logs"):
        raise ValueError
    assert history.latest(run_dir).number == 1


@pytest.mark.parametrize("made", ["metrics.jsonl", "logs/submitted.pkl"])
def test_a_failed_start_keeps_what_was_made(run_dir, made):
    (run_dir / made).write_text("something")
    with pytest.raises(ValueError), own_run_folder(run_dir, run_dir / "logs"):
        raise ValueError
    assert (run_dir / made).exists()


def test_a_failed_second_start_keeps_the_first_ones_record(run_dir):
    enter(run_dir)
    with pytest.raises(ValueError), own_run_folder(run_dir, run_dir / "logs"):
        raise ValueError
    assert len(history.records(run_dir)) == 2


def test_a_refused_process_does_not_take_the_folder_away(begin, run_dir):
    begin(DEAF)
    with pytest.raises(RunFolderError):
        enter(run_dir)
    assert run_dir.exists()
