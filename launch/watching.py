"""Several Slurm jobs at once, until all are over."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator

from launch.slurm import JobState, SlurmError, job_states

SECONDS_BETWEEN_QUESTIONS = 5.0
"""Slurm's controllers serve everybody."""
LONGEST_SILENCE = 600.0
"""A controller that is restarted, or too busy, answers again."""
PASSING = ("PREEMPTED", "NODE_FAIL", "BOOT_FAIL")
"""Ends after which a job may be queued again in a moment."""


def watch(jobs: Collection[str]) -> Iterator[dict[str, JobState]]:
    """The states of all jobs, first as they are and then whenever one has changed, until all are over."""
    shown: dict[str, JobState] = {}
    answered = time.monotonic()
    while True:
        try:
            states = job_states(jobs)
        except SlurmError:
            if time.monotonic() - answered > LONGEST_SILENCE:
                raise
            time.sleep(SECONDS_BETWEEN_QUESTIONS)
            continue
        answered, changed = time.monotonic(), states != shown
        if changed:
            shown = states
            yield states
        if all(state.over for state in states.values()) and not (changed and _may_pass(states)):
            return
        time.sleep(SECONDS_BETWEEN_QUESTIONS)


def _may_pass(states: dict[str, JobState]) -> bool:
    return any(state.state in PASSING for state in states.values())
