"""How runs stand: what their folders and Slurm say together, with one question to Slurm for all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from launch import history
from launch.history import Record
from launch.run_folder import is_locked
from launch.slurm import JobState, SlurmError, job_states
from launch.submission import Submission, submission_of

State = Literal["not begun", "pending", "running", "finished", "failed", "cancelled", "stopped", "killed", "unknown"]
ENDS: dict[str, State] = {"finished": "finished", "failed": "failed", "cancelled": "cancelled", "stopped": "stopped"}
"""Ends of an attempt after which nothing more happens by itself, whatever Slurm says."""
WAITING = {
    "": "",
    "None": "",
    "Priority": "waits for its turn",
    "Resources": "waits for free nodes",
    "BeginTime": "queued again, starts soon",
    "JobArrayTaskLimit": "waits for others of its array",
    "JobHeldUser": "held; scontrol release {job} lets it go",
    "JobHeldAdmin": "held by an administrator",
    "ReqNodeNotAvail": "waits for nodes that are down or reserved",
}
"""What Slurm means by its reasons for waiting."""
ENDED = {
    "BOOT_FAIL": "its node did not start",
    "NODE_FAIL": "its node was lost",
    "OUT_OF_MEMORY": "Slurm ended it; raise --memory-per-gpu-gb or lower the batch size",
    "PREEMPTED": "and not queued again",
    "TIMEOUT": "it did not stop in time; raise --minutes",
}
"""What Slurm means where a job has left no word itself."""


@dataclass(frozen=True)
class Status:
    """One run."""

    run_dir: Path
    attempts: tuple[Record, ...]
    submission: Submission | None
    job: str = ""
    """Its newest Slurm job; empty if it has none."""
    state: State = "unknown"
    why: str = ""

    @property
    def at_work(self) -> bool:
        """Whether something waits or runs that will go on with it."""
        return self.state in ("pending", "running")

    @property
    def attempt(self) -> Record | None:
        """The attempt of its newest job, or of no job."""
        return self.attempts[-1] if self.attempts and self.attempts[-1].job == self.job else None

    @property
    def name(self) -> str:
        """<job>/<name>, as under runs/."""
        return f"{self.run_dir.parent.name}/{self.run_dir.name}"


def statuses(run_dirs: Sequence[Path]) -> list[Status]:
    """How each run stands, in their order. Works without Slurm too: a job's state is then unknown unless it left a word."""
    runs = [_read(run_dir) for run_dir in run_dirs]
    answers, refusal = _ask({run.job for run in runs if run.job and _end_of(run) in (None, "cancelled")})
    runs = [_judged(run, answers, refusal) for run in runs]
    by_job = {run.job: run for run in runs if run.job}
    return [_with_cause(run, answers, by_job) for run in runs]


def _read(run_dir: Path) -> Status:
    attempts, submission = tuple(history.records(run_dir)), submission_of(run_dir)
    last = attempts[-1] if attempts else None
    if submission and (last is None or last.job == submission.job or last.started <= submission.submitted):
        return Status(run_dir, attempts, submission, submission.job)
    return Status(run_dir, attempts, submission, last.job if last else "")


def _end_of(run: Status) -> State | None:
    """How a run ended by its own word."""
    return ENDS.get(run.attempt.how) if run.attempt else None


def _ask(jobs: set[str]) -> tuple[Mapping[str, JobState], str]:
    """The answers, and why there are none."""
    try:
        return job_states(jobs), ""
    except SlurmError as error:
        return {}, str(error)


def _judged(run: Status, answers: Mapping[str, JobState], refusal: str) -> Status:
    attempt, end = run.attempt, _end_of(run)
    came_back = end == "cancelled" and run.job in answers and not answers[run.job].over  # queued again by hand
    if end and not came_back:
        return replace(run, state=end, why=attempt.message if attempt else "")
    if run.job:
        return _by_slurm(run, answers[run.job]) if run.job in answers else replace(run, why=f"job {run.job}: {refusal}")
    if attempt is None:
        return replace(run, state="not begun", why="no attempt at it is known")
    if attempt.how:
        return replace(run, state="failed", why=attempt.message or attempt.how)
    process = f"process {attempt.pid} on {attempt.host}"
    if is_locked(run.run_dir):
        return replace(run, state="running", why=process)
    return replace(run, state="killed", why=f"{process} ended without a word")


def _by_slurm(run: Status, answer: JobState) -> Status:
    before = run.attempt.how if run.attempt else ""
    if answer.state == "PENDING":
        why = "; ".join(part for part in (before, _waiting(answer.reason, run.job)) if part)
        return replace(run, state="pending", why=f"{why} (job {run.job})" if why else f"job {run.job}")
    if not answer.over:
        return replace(run, state="running", why=f"job {run.job} on {answer.nodes}" if answer.nodes else f"job {run.job}")
    if answer.state == "CANCELLED":
        return replace(run, state="cancelled", why=f"job {run.job} was cancelled")
    if run.attempt and run.attempt.message:
        return replace(run, state="failed", why=run.attempt.message)
    if answer.state == "GONE":
        return replace(run, state="killed", why=f"Slurm does not know job {run.job} any more, and it left no word")
    return replace(run, state="failed", why=_ended(run, answer.state))


def _waiting(reason: str, job: str) -> str:
    reason = reason.strip("()")
    if reason.startswith(("QOS", "Assoc", "MaxJobs", "MaxSubmit")):
        return f"at a limit of your account or QOS ({reason})"
    return WAITING.get(reason.split(",")[0], reason).format(job=job)


def _ended(run: Status, state: str) -> str:
    log = f"log: {run.submission.log}" if run.submission and run.submission.job == run.job else f"job {run.job}"
    return f"{state}: {ENDED.get(state, 'it left no word')} ({log})"


def _with_cause(run: Status, answers: Mapping[str, JobState], by_job: Mapping[str, Status]) -> Status:
    """For what waits for other runs, which; for what was cancelled because of another run, which that is."""
    if run.submission is None or run.job != run.submission.job or run.attempt is not None:
        return run
    if run.state == "pending" and answers[run.job].reason.startswith("Dependency"):
        others = [by_job[job].name for job in run.submission.after if job in by_job and by_job[job].at_work]
        return replace(run, why=f"waits for {', '.join(others)} (job {run.job})") if others else run
    cause = _cause(run, by_job) if run.state == "cancelled" else None
    return replace(run, why=f"{cause.name} {cause.state}, which it needed") if cause else run


def _cause(run: Status, by_job: Mapping[str, Status]) -> Status | None:
    """The first run of a chain that did not end well."""
    for job in run.submission.after if run.submission else ():
        before = by_job.get(job)
        if before and before.state in ("failed", "killed", "cancelled", "stopped"):
            return _cause(before, by_job) or before
    return None
