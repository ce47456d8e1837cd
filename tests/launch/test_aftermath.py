"""What becomes of a job whose processes ended badly."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from launch import aftermath, history
from launch.attempt import REPLACED, STALLED
from launch.run_folder import make_run_folder, remember_job

CAUSE = 'Traceback (most recent call last):\n  File "x.py", line 1, in <module>\n    f()\nValueError: --x 3: no\n'
ECHO = 'Traceback (most recent call last):\n  File "x.py", line 1, in <module>\nRuntimeError: [pair.cc:534] Connection closed by peer\n'
CUDA = ECHO.replace(
    "[pair.cc:534] Connection closed by peer", "CUDA error: an illegal memory access\nCompile with `TORCH_USE_CUDA_DSA`."
)


class End(Exception):
    """The batch script would wait here for Slurm to end it."""


@pytest.fixture
def run_dir(tmp_path, monkeypatch) -> Path:
    """The run folder of job 7, which is at work on its second attempt after a requeue."""
    monkeypatch.chdir(tmp_path)
    os.environ |= {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "1"}
    run_dir = tmp_path / "runs/job/x"
    make_run_folder(run_dir, {})
    remember_job(run_dir, "7")
    history.update(run_dir, history.begin(run_dir, run_dir / "logs"), restarts=0, how="preempted")
    history.begin(run_dir, run_dir / "logs")
    return run_dir


@pytest.fixture
def scontrol(on_path) -> Callable[..., None]:
    """scontrol(fields, fails): what scontrol says."""

    def put(fields: str = "PreemptTime=None StdOut=/nowhere", requeue: str = "exit 0") -> None:
        on_path("scontrol", f'if [ "$1" = requeue ]; then echo "$@" >>"$0.requeues"; {requeue}; else echo "{fields}"; fi')

    put()
    return put


@pytest.fixture
def after(run_dir, scontrol, tmp_path, monkeypatch) -> Callable[[int], tuple[int | None, str]]:
    """after(code): the exit code of the batch script, or None if it waits for its end; and what it asked of Slurm."""

    def wait(seconds: float) -> None:
        raise End

    monkeypatch.setattr(aftermath, "time", SimpleNamespace(sleep=wait))

    def run(code: int) -> tuple[int | None, str]:
        requeues = tmp_path / "bin/scontrol.requeues"
        requeues.unlink(missing_ok=True)
        try:
            aftermath.main(code)
        except SystemExit as end:
            return end.code, requeues.read_text() if requeues.exists() else ""
        except End:
            return None, requeues.read_text()
        raise AssertionError("it must not return: the script would go on")

    return run


def leave(run_dir: Path, rank: int, trace: str, job: str = "7") -> None:
    path = run_dir / "logs" / f"error-{job}-{rank}.txt"
    path.write_text(trace)
    os.utime(path, ns=(0, len(list(path.parent.iterdir()))))  # one after the other


def newest(run_dir: Path) -> history.Record:
    record = history.latest(run_dir)
    assert record is not None
    return record


QUEUED_AGAIN = (None, "requeue 7\n")


def test_preempted(after, run_dir, scontrol, capsys):
    """With a grace time the job would count as failed. Whatever else its processes said: they were being ended."""
    scontrol("PreemptTime=2026-11-21T11:03:16")
    leave(run_dir, 0, CAUSE)
    assert after(143) == QUEUED_AGAIN
    assert newest(run_dir).how == "preempted" and newest(run_dir).ended and capsys.readouterr().out == "preempted\n"


def test_preempted_before_an_attempt_began(after, run_dir, scontrol):
    """While it imported, say: there is no record of it yet, or that of another job's attempt."""
    scontrol("PreemptTime=2026-11-21T11:03:16")
    history.update(run_dir, newest(run_dir), job="6", how="crashed")
    assert after(143) == QUEUED_AGAIN and newest(run_dir).how == "crashed"
    Path("runs/.jobs/7").unlink()
    assert after(143) == QUEUED_AGAIN


def test_a_start_that_ends_before_its_attempt_counts_as_one(after, run_dir):
    """A node whose environment is broken would else be tried for ever, at the expense of the attempt before."""
    history.update(run_dir, newest(run_dir), progress=50)
    for number in (3, 4, 5):
        os.environ["SLURM_RESTART_COUNT"] = str(number)
        assert after(1) == (QUEUED_AGAIN if number < 5 else (1, ""))
        assert (newest(run_dir).number, newest(run_dir).how, newest(run_dir).began_at) == (number, "crashed", 50)
    assert history.records(run_dir)[1].how == ""


def test_the_errors_of_a_start_are_not_taken_for_the_next_ones(after, run_dir):
    leave(run_dir, 1, ECHO)
    assert after(1) == QUEUED_AGAIN
    assert not list((run_dir / "logs").glob("error-7-*"))


def test_what_is_left_of_an_earlier_start_asks_for_nothing(after, run_dir, scontrol):
    scontrol("PreemptTime=2026-11-21T11:03:16 Restarts=2")
    assert after(143) == (143, "") and newest(run_dir).how == ""


def test_a_crash_after_the_end_is_no_reason_to_begin_again(after, run_dir, capsys):
    history.update(run_dir, newest(run_dir), how="finished")
    assert after(139) == (0, "")
    assert "srun ended with exit code 139 after the job had finished" in capsys.readouterr().out


def test_a_mistake_ends_the_job_and_names_who_made_it(after, run_dir, capsys):
    leave(run_dir, 2, ECHO)
    leave(run_dir, 3, CAUSE)
    leave(run_dir, 1, CAUSE.replace("--x 3", "later"))
    assert after(1) == (1, "")
    assert (newest(run_dir).how, newest(run_dir).message) == ("failed", "ValueError: --x 3: no")
    assert f"process 3 failed first:\n{CAUSE}" in capsys.readouterr().out


def test_rank_0_has_said_it_already(after, run_dir, capsys):
    leave(run_dir, 0, CAUSE)
    assert after(1) == (1, "") and "failed first" not in capsys.readouterr().out


def test_a_mistake_that_left_no_trace(after, run_dir):
    """On a full disk the record alone knows it, or when too many attempts were futile."""
    history.update(run_dir, newest(run_dir), how="failed", message="error: no space left on the disk")
    assert after(1) == (1, "")
    assert (newest(run_dir).how, newest(run_dir).message) == ("failed", "error: no space left on the disk")


@pytest.mark.parametrize("trace", [ECHO, CUDA])
def test_echoes_alone_are_a_crash(after, run_dir, trace, capsys):
    history.update(run_dir, newest(run_dir), how="failed", message="RuntimeError")
    leave(run_dir, 0, trace)
    assert after(143) == QUEUED_AGAIN
    assert (newest(run_dir).how, newest(run_dir).message) == ("crashed", "a process was ended by signal 15")
    said = capsys.readouterr().out
    assert "crashed: a process was ended by signal 15\n" in said and "queued again, it goes on from what is on the disk\n" in said


def test_crashes_end_when_nothing_new_was_saved(after, run_dir, capsys):
    for number in range(2, 1 + history.MOST_FUTILE):
        assert after(137) == QUEUED_AGAIN, number
        history.begin(run_dir, run_dir / "logs")
    assert after(137) == (137, "")
    assert newest(run_dir).how == "crashed"
    assert f"error: {history.MOST_FUTILE} attempts in a row ended so and saved nothing new: given up\n" in capsys.readouterr().out


def test_crashes_may_go_on_while_it_gets_on(after, run_dir):
    for number in range(2 * history.MOST_FUTILE):
        history.update(run_dir, newest(run_dir), progress=newest(run_dir).began_at + 1)
        assert after(137) == QUEUED_AGAIN, number
        history.begin(run_dir, run_dir / "logs")


def test_stuck(after, run_dir, capsys):
    """By srun's code, or by the record where srun killed the others and gave theirs."""
    assert after(STALLED) == QUEUED_AGAIN and newest(run_dir).how == "stalled"
    history.update(run_dir, history.begin(run_dir, run_dir / "logs"), how="stalled")
    assert after(143) == QUEUED_AGAIN and newest(run_dir).how == "stalled"
    history.begin(run_dir, run_dir / "logs")
    assert after(STALLED) == (STALLED, ""), "three are too many"


@pytest.mark.parametrize("word", ["oom-kill event(s) in StepId=7.0", "exceeded memory limit"])
def test_out_of_memory_ends_the_job(after, run_dir, scontrol, tmp_path, word, capsys):
    (tmp_path / "batch.log").write_text(f"slurmstepd: error: {word}\n")
    scontrol(f"PreemptTime=None\n   StdOut={tmp_path}/batch.log")
    assert after(137) == (137, "")
    assert newest(run_dir).how == "failed" and newest(run_dir).message.startswith("error: out of memory (Slurm's limit); lower")
    assert "--memory-per-gpu-gb" in capsys.readouterr().out


def test_a_replaced_attempt_lets_its_job_be(after, run_dir):
    """Its node was lost and the job has begun again elsewhere: to queue it again would end that one."""
    before = newest(run_dir)
    assert after(REPLACED) == (REPLACED, "")
    for count in ("", "0"):
        os.environ["SLURM_RESTART_COUNT"] = count
        for code in (143, 137, 1, STALLED):  # srun gives the code of the processes it killed
            assert after(code) == (code, "")
    assert newest(run_dir) == before


def test_a_job_of_which_nothing_is_known(after, run_dir):
    history.update(run_dir, newest(run_dir), job="8")
    assert after(3) == (3, "")
    Path("runs/.jobs/7").unlink()
    assert after(3) == (3, "")


def test_success(after, run_dir):
    assert after(0) == (0, "") and newest(run_dir).how == ""


def test_errors_of_other_jobs_in_the_same_folder(after, run_dir):
    for job in ("6", "77", "7_1"):
        leave(run_dir, 0, CAUSE, job)
    assert after(137) == QUEUED_AGAIN


def test_array_elements(after, run_dir):
    os.environ |= {"SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "1"}
    remember_job(run_dir, "5_1")
    history.update(run_dir, newest(run_dir), job="5_1")
    leave(run_dir, 0, CAUSE, "5_10")
    assert after(137) == (None, "requeue 5_1\n")


def test_slurm_does_not_take_it_back(after, run_dir, scontrol):
    scontrol(requeue="echo no >&2; exit 1")
    with pytest.raises(ValueError, match=r"job 7 could not be queued again \(no\); the same command goes on where it was"):
        after(137)
    assert newest(run_dir).how == "crashed"
