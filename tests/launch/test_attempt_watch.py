"""One attempt that gets stuck or is replaced, in processes of its own."""

from __future__ import annotations

import os
import signal
import time

import pytest
from attempt_process import DEAF, LISTENING, STUCK, ended, latest, wait_for

from launch import history
from launch.attempt import REPLACED, STALLED


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_is_stuck_in_c_is_ended(begin, run_dir, rank):
    process = begin(STUCK, rank, patience=0.5 / 60, until="stuck")
    code, out, err = ended(process)
    assert code == STALLED and out == ""
    assert f"error: process {rank} got no step done in 0.00833333 minutes (--stalled-minutes); where it stands:" in err
    assert "in stuck_in_c\n" in err, "the stack says where"
    assert [record.how for record in history.records(run_dir)] == ["stalled"] * (rank == 0)


def test_beats_keep_it_alive_and_before_the_first_it_may_take_its_time(begin):
    body = """
    time.sleep(1)
    for _ in range(10):
        current.beat(); time.sleep(0.15)
"""
    assert ended(begin(body, patience=0.6 / 60, until=""))[0] == 0


def test_while_it_waits_for_slurm_it_is_not_stuck(begin, in_slurm):
    requeues = in_slurm()
    process = begin(LISTENING, patience=0.5 / 60)
    process.send_signal(signal.SIGUSR2)
    wait_for(lambda: requeues.exists() and requeues.read_text())
    time.sleep(1)
    assert process.poll() is None


@pytest.mark.parametrize("body", [DEAF, STUCK])
def test_replaced_by_a_later_attempt(begin, run_dir, body):
    """Also where it is stuck."""
    process = begin(body, until="stuck" if body is STUCK else "at work")
    history.begin(run_dir, run_dir)
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    code, out, _ = ended(process)
    assert code == REPLACED and out == "attempt 1 was replaced by a later one: it leaves without writing\n"
    assert {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()} == before


def test_replaced_is_seen_before_it_writes(begin, run_dir):
    """Between two looks of the watch, too."""
    body = """
    attempt.SECONDS_BETWEEN_LOOKS = 1000
    history.begin(run_dir, run_dir)
    current.check()
    say("wrote")
"""
    code, out, _ = ended(begin(body, until=""))
    assert code == REPLACED and "wrote" not in out


def test_a_disk_that_fails_for_a_moment_does_not_end_the_watch(begin, run_dir):
    body = """
    exists, left = Path.exists, [3]
    def failing(self):
        if left[0]:
            left[0] -= 1
            raise OSError(116, "Stale file handle")
        return exists(self)
    Path.exists = failing
    history.update(run_dir, history.Record(2))
    stuck_in_c()
"""
    code, _, err = ended(begin(body, until="stuck"))
    assert code == REPLACED and err == ""


def test_a_stuck_job_is_queued_again_as_it_stands(begin, in_slurm, run_dir):
    """No handler runs there, yet the watch hears the signal."""
    os.environ["SAVE"] = "0.5"
    requeues = in_slurm()
    process = begin(STUCK, until="stuck")
    process.send_signal(signal.SIGUSR2)
    wait_for(lambda: requeues.exists() and requeues.read_text())
    assert requeues.read_text() == "requeue 7\n" and latest(run_dir).how == "time limit"
    assert process.stdout.readline() == "no step boundary within 0 s of the signal: the last checkpoint stands\n"
    time.sleep(0.5)
    assert requeues.read_text() == "requeue 7\n", "once"


def test_a_job_that_comes_to_its_boundary_after_all_is_not_queued_twice(begin, in_slurm, run_dir):
    """The second time would end its successor."""
    os.environ["SAVE"] = "0.3"
    requeues = in_slurm()
    late = LISTENING.replace("if asked:", "if asked:\n            time.sleep(1.5)")
    process = begin(late)
    process.send_signal(signal.SIGUSR2)
    while process.stdout.readline() != "asked 2\n":
        pass
    time.sleep(0.5)
    assert requeues.read_text() == "requeue 7\n" and process.poll() is None


def test_a_stuck_job_that_slurm_does_not_take_back_ends(begin, in_slurm, on_path):
    os.environ["SAVE"] = "0.3"
    in_slurm()
    on_path("scontrol", "echo no >&2; exit 1")
    process = begin(STUCK, until="stuck")
    process.send_signal(signal.SIGUSR2)
    code, _, err = ended(process)
    assert code == 1 and "job 7 could not be queued again (no)" in err
