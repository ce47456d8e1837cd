"""Processes, nodes and machines that fail without a word."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from lab import outcome

pytestmark = pytest.mark.slurm


def test_a_process_is_killed(lab, unbroken):
    """kill -9 for one of two: the whole step ends at once, and the job goes on from its last checkpoint."""
    job = lab.train("killed", nodes=2)
    job.wait_for_progress()
    for rank in (0, 1):  # as if it had been killed a moment later, while submitit kept the result
        Path(job.attempts[0].logs, f"{job.number}_{rank}_result.pkl.save_tmp").touch()
    os.kill(job.processes()[1], signal.SIGKILL)
    lab.cluster.wait_for(lambda: job.ends[0], 15, "the end of the other process")
    job.wait_for_end()
    assert job.ends == ["crashed", "finished"] and job.attempts[1].began_at >= 10
    assert "signal 9" in job.attempts[0].message
    assert outcome(job.run_dir) == unbroken[2]


def test_a_process_hangs(lab, unbroken):
    """One of two stops: the other waits for it in a collective, and its watch ends the step after --stalled-minutes."""
    job = lab.train("hangs", "--stalled-minutes", "0.1", processes=2)
    job.wait_for_progress()
    os.kill(job.processes()[1], signal.SIGSTOP)
    began = time.monotonic()
    lab.cluster.wait_for(lambda: job.ends[0], 30, "the watch")
    assert time.monotonic() - began < 6 + 10
    job.wait_for_end()
    assert job.ends == ["stalled", "finished"]
    assert "got no step done in 0.1 minutes (--stalled-minutes); where it stands:" in job.log and "_step" in job.log
    assert outcome(job.run_dir) == unbroken[2]


def test_starts_that_cannot_even_begin_are_counted(lab):
    """A job that can no longer be read, say: it would else be queued again for ever."""
    job = lab.train("unreadable")
    job.wait_for_progress()
    submitted = Path(job.attempts[0].logs, f"{job.number}_submitted.pkl")
    submitted.write_bytes(b"")
    os.kill(job.processes()[0], signal.SIGKILL)
    job.wait_for_end("FAILED", 150)
    assert job.ends == ["crashed"] * 4 and "3 attempts in a row ended so and saved nothing new: given up" in job.log


def test_a_node_is_lost(lab, unbroken):
    """All that ran on it is gone. Slurm queues the job again, and once the node is back it goes on."""
    job = lab.train("lost", nodes=2)
    job.wait_for_progress()
    lab.cluster.lose_node("n2")
    lab.cluster.start()
    job.wait_for_end()
    assert job.ends[-1] == "finished" and job.attempts[-1].began_at >= 10
    assert outcome(job.run_dir) == unbroken[2]


def test_a_node_is_cut_off(lab, unbroken):
    """Slurm starts the job elsewhere while the old process still computes: that one finds itself replaced and writes nothing."""
    job = lab.train("cut", "--exclude", "n2")
    job.wait_for_progress()
    orphan = job.processes()[0]
    os.kill(orphan, signal.SIGSTOP)  # it must still be there when its successor begins
    lab.cluster.cut_node("n1")
    lab.cluster.ask("scontrol", "update", f"jobid={job.number}", "ExcNodeList=")
    lab.cluster.wait_for(lambda: len(job.attempts) == 2, 60, "the successor")
    os.kill(orphan, signal.SIGCONT)
    lab.cluster.wait_for(lambda: not Path(f"/proc/{orphan}").exists(), 20, "the end of the orphan")
    job.wait_for_end()
    assert job.ends == ["", "finished"]
    assert "attempt 1 was replaced by a later one: it leaves without writing" in job.log
    assert outcome(job.run_dir) == unbroken[1]


def test_out_of_memory(lab):
    """Slurm ends what uses more than it asked for; the same would happen again, so the job is not queued again."""
    job = lab.train("memory", "--memory-per-gpu-gb", "1", "--batch-size", "20000", "--steps", "3")
    job.wait_for_end("FAILED")
    assert lab.cluster.details(job.number)["Restarts"] == "0"
    assert job.ends == ["failed"] and job.attempts[0].message.startswith(
        "error: out of memory (Slurm's limit); lower --batch-size"
    )
    assert job.attempts[0].message in job.log
