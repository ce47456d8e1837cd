"""Jobs that Slurm asks to end: preemption, time limit, cancellation."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from lab import TRAINING, Job, outcome

pytestmark = pytest.mark.slurm
NO_SAVES = ("--save-every", "1000")
"""The only checkpoint before the signal's is the validation's, at step 60."""


def saved_on_signal(job: Job) -> bool:
    return job.attempts[0].progress not in (0, TRAINING["evaluate_every"])


def test_preempted_with_a_grace_time(lab, unbroken):
    """Two processes on two nodes agree on a step, save there and are queued again: no step is lost, none is done twice."""
    job = lab.train("preempted", "--partition", "spot", *NO_SAVES, nodes=2)
    job.wait_for_steps()
    lab.cluster.preempt(job.number)
    job.wait_for_end()
    assert job.ends == ["preempted", "finished"]
    assert saved_on_signal(job) and job.attempts[1].began_at == job.attempts[0].progress
    assert outcome(job.run_dir) == unbroken[2]


def test_preempted_with_nothing_but_a_sigterm(lab, unbroken):
    """Slurm's default. The job saves and waits for its end: with exit code 0 it would count as complete."""
    lab.cluster.reconfigure(user_signal="no")
    job = lab.train("preempted-term", "--partition", "spot", *NO_SAVES)
    job.wait_for_steps()
    lab.cluster.preempt(job.number)
    job.wait_for_end()
    assert job.ends == ["preempted", "finished"] and saved_on_signal(job)
    assert outcome(job.run_dir) == unbroken[1]


def test_time_limit(lab, unbroken):
    """The limit is below ten minutes. The process sleeps until Slurm sends its signal, to save computing."""
    job = lab.train("time-limit", *NO_SAVES)
    job.wait_for_steps()
    process = job.processes()[0]
    os.kill(process, signal.SIGSTOP)
    lab.cluster.ask("scontrol", "update", f"jobid={job.number}", "EndTime=now+55")
    lab.cluster.wait_for(lambda: not stopped(process), 60, "the signal before the time limit")  # Slurm wakes it up for that
    job.wait_for_end()
    assert job.ends == ["time limit", "finished"]
    assert saved_on_signal(job) and job.attempts[1].began_at == job.attempts[0].progress
    assert outcome(job.run_dir) == unbroken[1]


def stopped(process: int) -> bool:
    """Whether a process still sleeps after SIGSTOP."""
    status = Path(f"/proc/{process}/status")
    return status.exists() and "T (stopped)" in status.read_text()


def test_cancelled(lab, unbroken):
    """scancel ends it in good order, and the same command goes on."""
    job = lab.train("cancelled", *NO_SAVES)
    job.wait_for_steps()
    lab.cluster.ask("scancel", job.number)
    job.wait_for_end("CANCELLED")
    assert job.ends == ["cancelled"] and saved_on_signal(job)
    again = lab.train("cancelled", *NO_SAVES)
    again.wait_for_end()
    assert again.attempts[1].began_at == job.attempts[0].progress
    assert outcome(job.run_dir) == unbroken[1]
