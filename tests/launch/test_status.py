"""How runs stand, from folders and a squeue of the test's own."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest

from launch.history import Record
from launch.status import Status, statuses
from launch.submission import Submission

EARLY, LATE = "2026-01-01T10:00:00+00:00", "2026-01-01T11:00:00+00:00"


class Runs:
    """Run folders, and what Slurm says of their jobs."""

    def __init__(self, folder: Path, on_path) -> None:
        self.folder, self.on_path = folder, on_path
        self.dirs: list[Path] = []

    def add(self, name: str, *attempts: Record, job: str = "", after: tuple[str, ...] = (), submitted: str = EARLY) -> Path:
        """A run with these attempts and, if a job is named, with a submission."""
        run_dir = self.folder / "runs" / "job" / name
        (run_dir / "attempts").mkdir(parents=True)
        for attempt in attempts:
            (run_dir / "attempts" / f"{attempt.number:04d}.json").write_text(json.dumps(asdict(attempt)))
        if job:
            kept = Submission(job, f"{name}.log", submitted, after)
            (run_dir / "submission.json").write_text(json.dumps(asdict(kept)))
        self.dirs.append(run_dir)
        return run_dir

    def slurm(self, *lines: str) -> None:
        self.on_path("squeue", "\n".join(["echo asked >>asked", *(f"echo '{line}'" for line in lines)]))
        self.on_path("sacct", "")

    def stand(self) -> dict[str, Status]:
        return {status.run_dir.name: status for status in statuses(self.dirs)}

    def one(self) -> tuple[str, str]:
        """State and reason of the only run."""
        (status,) = statuses(self.dirs)
        return status.state, status.why


@pytest.fixture
def runs(tmp_path, on_path, monkeypatch) -> Runs:
    monkeypatch.chdir(tmp_path)
    return Runs(tmp_path, on_path)


def attempt(number: int = 1, job: str = "", how: str = "", message: str = "", started: str = LATE) -> Record:
    ended = LATE if how else ""
    return Record(number, job=job, host="n1", pid=77, started=started, ended=ended, how=how, message=message)


# By their own word


@pytest.mark.parametrize("how", ["finished", "failed", "cancelled", "stopped"])
@pytest.mark.parametrize("job", ["", "5"])
def test_an_attempt_that_left_a_word_needs_no_slurm(runs, how, job):
    runs.add("a", attempt(job=job, how=how, message="because"), job=job)
    assert runs.one() == (how, "because")


def test_slurm_overrules_a_cancellation_that_was_a_requeue_by_hand(runs):
    runs.slurm("5|PENDING|BeginTime|")
    runs.add("a", attempt(job="5", how="cancelled"), job="5")
    assert runs.one() == ("pending", "cancelled; queued again, starts soon (job 5)")


def test_the_newest_attempt_counts(runs):
    runs.add("a", attempt(1, how="failed"), attempt(2, how="finished"))
    assert runs.one() == ("finished", "")


def test_a_run_without_an_attempt(runs):
    runs.add("a")
    assert runs.one() == ("not begun", "no attempt at it is known")


def test_a_process_that_holds_the_lock_runs_and_one_that_does_not_was_killed(runs):
    run_dir = runs.add("a", attempt())
    assert runs.one() == ("killed", "process 77 on n1 ended without a word")
    (run_dir / ".lock").touch()
    assert runs.one()[0] == "killed"
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        with (run_dir / ".lock").open("w") as file:
            fcntl.lockf(file, fcntl.LOCK_EX)
            os.write(ready[1], b".")
            os.read(go[0], 1)
            os._exit(0)
    os.read(ready[0], 1)
    try:
        assert runs.one() == ("running", "process 77 on n1")
        assert statuses(runs.dirs)[0].at_work
    finally:
        os.write(go[1], b".")
        os.waitpid(child, 0)


def test_a_local_attempt_that_got_stuck(runs):
    runs.add("a", attempt(how="stalled"))
    assert runs.one() == ("failed", "stalled")


# By Slurm's


@pytest.mark.parametrize(
    ("line", "state", "why"),
    [
        ("5|RUNNING|None|n2", "running", "job 5 on n2"),
        ("5|COMPLETING|None|n2", "running", "job 5 on n2"),
        ("5|PENDING|None|", "pending", "job 5"),
        ("5|PENDING|Priority|", "pending", "waits for its turn (job 5)"),
        ("5|PENDING|Resources|", "pending", "waits for free nodes (job 5)"),
        ("5|PENDING|BeginTime|", "pending", "queued again, starts soon (job 5)"),
        ("5|PENDING|QOSMaxJobsPerUserLimit|", "pending", "at a limit of your account or QOS (QOSMaxJobsPerUserLimit) (job 5)"),
        ("5|PENDING|JobHeldUser|", "pending", "held; scontrol release 5 lets it go (job 5)"),
        ("5|PENDING|SomethingNew|", "pending", "SomethingNew (job 5)"),
        ("5|CANCELLED|None|", "cancelled", "job 5 was cancelled"),
        ("5|FAILED|NonZeroExitCode|n1", "failed", "FAILED: it left no word (log: a.log)"),
        ("5|TIMEOUT|TimeLimit|n1", "failed", "TIMEOUT: it did not stop in time; raise --minutes (log: a.log)"),
        ("5|NODE_FAIL|None|n1", "failed", "NODE_FAIL: its node was lost (log: a.log)"),
        (
            "5|OUT_OF_MEMORY|OutOfMemory|n1",
            "failed",
            "OUT_OF_MEMORY: Slurm ended it; raise --memory-per-gpu-gb or lower the batch size (log: a.log)",
        ),
        ("", "killed", "Slurm does not know job 5 any more, and it left no word"),
    ],
)
@pytest.mark.parametrize("begun", [False, True])
def test_what_slurm_knows(runs, line, state, why, begun):
    runs.add("a", *([attempt(job="5")] if begun else []), job="5")
    runs.slurm(*([line] if line else []))
    assert runs.one() == (state, why)


def test_a_preempted_job_that_waits(runs):
    runs.add("a", attempt(job="5", how="preempted"), job="5")
    runs.slurm("5|PENDING|BeginTime|")
    assert runs.one() == ("pending", "preempted; queued again, starts soon (job 5)")


def test_a_crash_that_was_given_up_tells_its_own_reason(runs):
    runs.add("a", attempt(job="5", how="crashed", message="crashed: a process was ended by signal 9"), job="5")
    runs.slurm("5|FAILED|NonZeroExitCode|n1")
    assert runs.one() == ("failed", "crashed: a process was ended by signal 9")


def test_a_newer_submission_counts_more_than_an_older_attempt(runs):
    runs.add("a", attempt(job="5", how="failed", started=EARLY), job="6", submitted=LATE)
    runs.slurm("6|PENDING|Priority|")
    assert runs.one() == ("pending", "waits for its turn (job 6)")


def test_a_newer_attempt_counts_more_than_an_older_submission(runs):
    runs.add("a", attempt(how="finished", started=LATE), job="6", submitted=EARLY)
    assert runs.one() == ("finished", "")


def test_the_job_of_a_batch_script_counts_too(runs):
    runs.add("a", attempt(job="8"))
    runs.slurm("8|RUNNING|None|n1")
    assert runs.one() == ("running", "job 8 on n1")


def test_one_question_for_all(runs):
    for number in range(5):
        runs.add(f"a{number}", job=str(number))
    runs.slurm(*(f"{number}|RUNNING|None|n1" for number in range(5)))
    assert {status.state for status in runs.stand().values()} == {"running"}
    assert (runs.folder / "asked").read_text() == "asked\n"


def test_without_slurm(runs, monkeypatch):
    runs.add("a", job="5")
    runs.add("b", attempt(how="finished"))
    monkeypatch.setenv("PATH", str(runs.folder))
    found = runs.stand()
    assert (found["a"].state, found["a"].why) == ("unknown", "job 5: squeue: squeue is not on the path")
    assert found["b"].state == "finished"


# Runs that need others


def test_what_a_run_waits_for(runs):
    runs.add("a", job="5")
    runs.add("b", job="6", after=("5", "4"))
    runs.slurm("5|RUNNING|None|n1", "6|PENDING|Dependency|")
    assert runs.stand()["b"].why == "waits for job/a (job 6)"


def test_the_first_of_a_chain_that_failed_is_named(runs):
    runs.add("a", attempt(job="5", how="failed", message="no"), job="5")
    runs.add("b", job="6", after=("5",))
    runs.add("c", job="7", after=("6",))
    runs.slurm("6|CANCELLED|DependencyNeverSatisfied|", "7|CANCELLED|DependencyNeverSatisfied|")
    found = runs.stand()
    assert found["b"].why == found["c"].why == "job/a failed, which it needed"


def test_a_run_that_its_user_cancelled_is_the_cause(runs):
    runs.add("a", job="5")
    runs.add("b", job="6", after=("5",))
    runs.slurm("5|CANCELLED|None|", "6|CANCELLED|DependencyNeverSatisfied|")
    found = runs.stand()
    assert found["a"].why == "job 5 was cancelled" and found["b"].why == "job/a cancelled, which it needed"
