"""Watching several jobs, with answers of the test's own."""

from __future__ import annotations

import pytest

from launch import watching
from launch.slurm import JobState, SlurmError


@pytest.fixture
def watched(monkeypatch):
    """watched(*answers): what `watch` gives when Slurm answers so; an answer is states by job, or None for a failure."""
    clock = [0.0]
    monkeypatch.setattr(watching.time, "sleep", lambda seconds: clock.__setitem__(0, clock[0] + seconds))
    monkeypatch.setattr(watching.time, "monotonic", lambda: clock[0])

    def watch(*answers: str | None) -> list[str]:
        left = list(answers)

        def job_states(jobs):
            answer = left.pop(0)
            if answer is None:
                raise SlurmError("squeue: Unable to contact slurm controller")
            return dict(zip(jobs, map(JobState, answer.split()), strict=True))

        monkeypatch.setattr(watching, "job_states", job_states)
        seen = [" ".join(state.state for state in states.values()) for states in watching.watch(["1", "2"])]
        assert not left
        return seen

    return watch


def test_changes_are_told_until_all_is_over(watched):
    answers = ["PENDING PENDING", "RUNNING PENDING", "RUNNING PENDING", "COMPLETED RUNNING", "COMPLETED FAILED"]
    assert watched(*answers) == [answers[0], answers[1], answers[3], answers[4]]


def test_what_is_over_already_is_told_once(watched):
    assert watched("COMPLETED CANCELLED") == ["COMPLETED CANCELLED"]


def test_a_preempted_job_may_be_queued_again(watched):
    assert watched("COMPLETED PREEMPTED", "COMPLETED PENDING", "COMPLETED COMPLETED")[-1] == "COMPLETED COMPLETED"
    assert watched("COMPLETED NODE_FAIL", "COMPLETED NODE_FAIL") == ["COMPLETED NODE_FAIL"]


def test_a_controller_may_be_silent_for_a_while(watched):
    assert watched("RUNNING RUNNING", None, None, "COMPLETED COMPLETED") == ["RUNNING RUNNING", "COMPLETED COMPLETED"]
    with pytest.raises(SlurmError):
        watched("RUNNING RUNNING", *[None] * 200)
