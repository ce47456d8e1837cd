"""What Slurm says of jobs, and the little we ask of it.

squeue is asked first: it knows at once, also without accounting. sacct is asked for what squeue has forgotten; it lags by
seconds, and some clusters have none.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

OVER = {
    *(
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "REVOKED",
        "TIMEOUT",
    ),
    "GONE",
}
"""States in which a job does nothing more. PREEMPTED and NODE_FAIL pass: a job that is queued again shows as PENDING soon."""


PATHS = ("Command=", "WorkDir=", "StdErr=", "StdIn=", "StdOut=")
OUT_OF_MEMORY = re.compile("oom[-_]kill event|OOM Killed|exceeded memory limit|error: .*Out Of Memory", re.IGNORECASE)
"""What slurmstepd writes into the log of a job that it, or the kernel, ended for want of memory."""


UNREACHABLE = re.compile("Unable to contact|timed out|Connection refused|gave no answer", re.IGNORECASE)
SECONDS_TO_REACH = 90.0
"""So long a controller that restarts is asked again."""
SECONDS_BETWEEN_TRIES = 5.0


class SlurmError(ValueError):
    """Slurm cannot be asked, or refused."""


@dataclass(frozen=True)
class JobState:
    """How a job stands: GONE if neither squeue nor sacct knows it."""

    state: str
    reason: str = ""
    nodes: str = ""

    @property
    def over(self) -> bool:
        return self.state in OVER

    def __str__(self) -> str:
        reason = f" ({self.reason})" if self.reason not in ("", "None") else ""
        return f"{self.state}{reason}{f' on {self.nodes}' if self.nodes else ''}"


def is_set_up() -> bool:
    """Whether there is a Slurm here to submit to. Its programs alone are none: without a configuration they answer nothing."""
    return shutil.which("sbatch") is not None and _ask("sbatch", "--version").returncode == 0


def own_job_id() -> str:
    """The job this process is part of, as sbatch named it: "12", or "12_3" in an array; empty outside Slurm."""
    array, element = (os.environ.get(f"SLURM_ARRAY_{key}_ID", "") for key in ("JOB", "TASK"))
    return f"{array}_{element}" if array else os.environ.get("SLURM_JOB_ID", "")


def own_restarts() -> int:
    """How often Slurm has started this job again; of two starts of one job, the higher number is the newer."""
    return int(os.environ.get("SLURM_RESTART_COUNT") or 0)


def job_states(job_ids: Iterable[str]) -> dict[str, JobState]:
    """State of each job, by its id as sbatch gave it ("12", or "12_3" in an array)."""
    wanted = sorted(set(job_ids))
    if not wanted:
        return {}
    known = _from_squeue(wanted)
    known |= _from_sacct([job_id for job_id in wanted if job_id not in known])
    return {job_id: known.get(job_id, JobState("GONE")) for job_id in wanted}


def show_job(job_id: str) -> dict[str, str]:
    """The fields of `scontrol show job`; empty if Slurm has forgotten the job."""
    asked = _ask("scontrol", "show", "job", job_id)
    if asked.returncode:
        return {}
    lines = [line.strip() for line in asked.stdout.splitlines()]
    # A path may hold spaces and stands on a line of its own; of the others, each holds several fields
    fields = [word for line in lines for word in ([line] if line.startswith(PATHS) else line.split()) if "=" in word]
    return dict(word.split("=", 1) for word in fields)


def was_preempted(shown: dict[str, str]) -> bool:
    """Whether Slurm took the nodes of a running job for another one, from `show_job`; not whether it once did so to an earlier start."""
    time = shown.get("PreemptTime", "None")
    return time != "None" and time >= shown.get("StartTime", "")


def has_restarted(shown: dict[str, str]) -> bool:
    """Whether this job has been queued again already, so that this process is what is left of an earlier start."""
    return int(shown.get("Restarts", 0)) > own_restarts()


def ran_out_of_memory(job_id: str, logs: Path) -> bool:
    """Whether Slurm says so in the logs of a job; its state says so on some clusters only, and late."""
    shown = show_job(job_id).get("StdOut", "")
    paths = {Path(shown), *logs.glob(f"{job_id}_*_log.out")} if shown else set()
    return any(OUT_OF_MEMORY.search(path.read_text(errors="replace")[-100_000:]) for path in paths if path.is_file())


def exit_code(job_id: str) -> int:
    """The exit code of a job that is over, as a shell would give it; 1 if nobody knows any more."""
    code = show_job(job_id).get("ExitCode", "")
    if not code:
        code = _ask("sacct", "--allocations", "--noheader", "--parsable2", "--format=ExitCode", f"--jobs={job_id}").stdout.strip()
    numbers = re.match(r"(\d+):(\d+)", code)
    return (int(numbers[1]) or (128 + int(numbers[2]) if int(numbers[2]) else 0)) if numbers else 1


def requeue(job_id: str) -> None:
    """Queue this running job again, unless it is so already; Slurm then ends this process, with the rest of the job."""
    if has_restarted(show_job(job_id)):
        return
    deadline = time.monotonic() + SECONDS_TO_REACH
    asked = _ask("scontrol", "requeue", job_id)
    while asked.returncode and UNREACHABLE.search(asked.stderr) and time.monotonic() < deadline:
        time.sleep(SECONDS_BETWEEN_TRIES)
        asked = _ask("scontrol", "requeue", job_id)
    if asked.returncode and "pending execution" not in asked.stderr:  # that is what was wanted
        raise SlurmError(
            f"job {job_id} could not be queued again ({asked.stderr.strip()}); the same command goes on where it was"
        )


def cancel(job_id: str) -> None:
    """End a job, or take it out of the queue."""
    asked = _ask("scancel", job_id)
    if asked.returncode:
        raise SlurmError(f"scancel {job_id}: {asked.stderr.strip()}")


def _from_squeue(job_ids: list[str]) -> dict[str, JobState]:
    asked = _ask("squeue", "--noheader", "--array", "--states=all", f"--jobs={','.join(job_ids)}", "--format=%i|%T|%r|%N")
    if asked.returncode and "Invalid job id" not in asked.stderr:
        raise SlurmError(f"squeue: {asked.stderr.strip()}")
    rows = [line.split("|") for line in asked.stdout.splitlines()]
    return {job_id: JobState(state, reason, nodes) for job_id, state, reason, nodes in rows}


def _from_sacct(job_ids: list[str]) -> dict[str, JobState]:
    if not job_ids:
        return {}
    asked = _ask(
        *("sacct", "--allocations", "--noheader", "--parsable2", "--format=JobID,State,NodeList"), f"--jobs={','.join(job_ids)}"
    )
    rows = [line.split("|") for line in asked.stdout.splitlines()]
    states = {job_id: JobState(state.split()[0], "", "" if nodes == "None assigned" else nodes) for job_id, state, nodes in rows}
    # What squeue does not know any more is over: accounting has missed the end of a job that it calls RUNNING
    return {job_id: state for job_id, state in states.items() if state.over}


def _ask(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError:
        return subprocess.CompletedProcess(command, 127, "", f"{command[0]} is not on the path")
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", f"{command[0]} gave no answer in a minute")
