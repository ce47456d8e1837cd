"""Hands tasks to Slurm, or to several local processes, through submitit."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launch import history, slurm
from launch.resources import Resources
from launch.run_folder import make_run_folder, making, write_text
from launch.source import take_snapshot
from launch.task import Task

if TYPE_CHECKING:
    import submitit

MISSING = "sbatch and srun are not on the path; go to a node that submits, or use --cluster local"
FILE = "submission.json"
MOST_AT_ONCE = 100_000
"""More elements of a job array than any Slurm takes. submitit's own limit would be 256 at a time."""


class SubmissionError(ValueError):
    """A job that Slurm did not take, or that is at work already."""


@dataclass(frozen=True)
class Submission:
    """What is known of a run's newest job from the moment it was submitted: submission.json in the run folder."""

    job: str
    log: str
    submitted: str
    after: tuple[str, ...] = ()
    """Jobs that must end well before this one begins."""


def submission_of(run_dir: Path) -> Submission | None:
    """The newest submission of a run; None if it never went to Slurm."""
    try:
        kept = json.loads((run_dir / FILE).read_text())
    except FileNotFoundError:
        return None
    return Submission(**{**kept, "after": tuple(kept["after"])})


def job_at_work(run_dir: Path) -> Submission | None:
    """The submission whose job waits or runs; None if another one of the same configuration may start."""
    return jobs_at_work([run_dir]).get(run_dir)


def jobs_at_work(run_dirs: Sequence[Path]) -> dict[Path, Submission]:
    """The same for many runs, with one question to Slurm."""
    found = {run_dir: _candidates(run_dir) for run_dir in run_dirs}
    states = slurm.job_states(one.job for candidates in found.values() for one in candidates)
    alive = {run_dir: [one for one in candidates if not states[one.job].over] for run_dir, candidates in found.items()}
    return {run_dir: candidates[0] for run_dir, candidates in alive.items() if candidates}


def _candidates(run_dir: Path) -> list[Submission]:
    """Jobs that may be at work on a run, were they not over: the one submitted last, and a batch script's."""
    submission, attempt = submission_of(run_dir), history.latest(run_dir)
    submitted = [submission] if submission else []
    return submitted + ([Submission(attempt.job, "", attempt.started)] if attempt and attempt.may_go_on else [])


def submit(task: Task, resources: Resources, after: Sequence[str] = ()) -> Submission:
    """Submit one job to Slurm; `after` are ids of jobs that must end well before. SubmissionError if this run has a job already."""
    return submit_array([task], resources, after)[0]


def submit_array(tasks: Sequence[Task], resources: Resources, after: Sequence[str] = (), at_once: int = 0) -> list[Submission]:
    """Submit tasks of one job file as a job array, `at_once` of them at a time (0 = all)."""
    _check_programs()
    runs = Path(tasks[0].run_dir).parents[1]
    with _one_at_a_time(runs):
        _check_free([Path(task.run_dir) for task in tasks])
        code = take_snapshot(runs / ".code")
        for task in tasks:
            make_run_folder(Path(task.run_dir), task.values)
        logs = _new_logs(Path(tasks[0].run_dir, "logs") if len(tasks) == 1 else runs / ".arrays")
        executor = _executor(logs, tasks[0], resources, after, at_once, code)
        with _as_from_outside():
            jobs = _take(executor, tasks)
        made = [Submission(job.job_id, str(job.paths.stdout), history.now(), tuple(after)) for job in jobs]
        for task, submission in zip(tasks, made, strict=True):
            write_text(Path(task.run_dir, FILE), json.dumps(asdict(submission), indent=1) + "\n")
    return made


def _check_programs() -> None:
    if not (shutil.which("sbatch") and shutil.which("srun")):
        raise SubmissionError(f"--cluster slurm: {MISSING}")


@contextmanager
def _one_at_a_time(runs: Path) -> Iterator[None]:
    """Of two commands at the same moment, the second finds the first one's job."""
    with making(runs):
        runs.mkdir(parents=True, exist_ok=True)
        file = (runs / ".submitting").open("w")
    with file:
        with suppress(OSError):  # a file system without locks
            fcntl.lockf(file, fcntl.LOCK_EX)
        yield


def _check_free(run_dirs: Sequence[Path]) -> None:
    if len(set(run_dirs)) < len(run_dirs):
        raise SubmissionError("two elements of a job array have the same run folder: " + ", ".join(sorted(map(str, run_dirs))))
    for run_dir, found in jobs_at_work(run_dirs).items():
        raise SubmissionError(
            f"job {found.job} of {found.submitted} has this run already: {run_dir}; see it with --follow, end it with "
            f"scancel {found.job}, or choose another --name"
        )


def batch_script(task: Task, resources: Resources) -> str:
    """What `submit` would give to sbatch. Nothing is made for it."""
    _check_programs()
    executor = _executor(
        _new_logs(Path(task.run_dir, "logs")), task, resources, (), 0, Path(task.run_dir).parents[1] / ".code" / "SNAPSHOT"
    )
    slurm_executor = executor._executor
    text: str = slurm_executor._make_submission_file_text(slurm_executor._submitit_command_str, "")
    return text


def submit_locally(task: Task, resources: Resources) -> submitit.Job[None]:
    """Start several processes on this machine."""
    return _start(task, "local", resources)


def debug(task: Task, resources: Resources) -> None:
    """Run in this process, with a debugger on errors."""
    _start(task, "debug", resources).results()


def _start(task: Task, cluster: str, resources: Resources) -> submitit.Job[None]:
    import submitit

    make_run_folder(Path(task.run_dir), task.values)
    os.environ["PYTHONSAFEPATH"] = "1"  # or a folder named models where the user stands would hide ours
    executor = submitit.AutoExecutor(_new_logs(Path(task.run_dir, "logs")), cluster=cluster)
    # Without a number of GPUs submitit hides them all; without a time limit it stops after two minutes. One's own machine needs none.
    executor.update_parameters(
        name=task.name,
        tasks_per_node=resources.processes_per_node,
        gpus_per_node=resources.gpus_per_node,
        timeout_min=365 * 24 * 60,
    )
    return executor.submit(task.run if cluster == "debug" else task)


def _new_logs(folder: Path) -> Path:
    """A folder of its own for every submission: on a new cluster, job ids begin again at 1."""
    return folder / (f"{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}")


def _executor(
    logs: Path, task: Task, resources: Resources, after: Sequence[str], at_once: int, code: Path
) -> submitit.AutoExecutor:
    import submitit

    executor = submitit.AutoExecutor(logs, cluster="slurm")
    executor.update_parameters(name=task.name, nodes=resources.nodes, tasks_per_node=resources.processes_per_node)
    executor.update_parameters(**_parameters(resources, after, at_once, code))
    return executor


def _take(executor: submitit.AutoExecutor, tasks: Sequence[Task]) -> list[submitit.Job[None]]:
    from submitit.core.utils import FailedJobError

    try:
        if len(tasks) == 1:
            return [executor.submit(tasks[0])]
        with executor.batch():
            return [executor.submit(task) for task in tasks]
    except FailedJobError:  # submitit has printed what sbatch said
        raise SubmissionError(
            "sbatch refused the job: see above; clusters differ in --partition, --account, --qos, --constraint, --gpus-per-node and in "
            "whether they know the wckey submitit"
        ) from None


@contextmanager
def _as_from_outside() -> Iterator[None]:
    """Inside an allocation, sbatch and the new job would take the old one's nodes, tasks and memory for theirs."""
    inside = (
        {name: os.environ[name] for name in os.environ if name.startswith(("SLURM_", "SLURMD_", "SRUN_"))}
        if slurm.own_job_id()
        else {}
    )
    inside.pop("SLURM_CONF", None)
    for name in inside:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ |= inside


def _parameters(resources: Resources, after: Sequence[str], at_once: int, code: Path) -> dict[str, Any]:
    processes = resources.processes_per_node
    named = {key: asdict(resources)[key] for key in ("partition", "account", "qos", "constraint", "exclude")}
    more = {"requeue": True} | ({"gres": f"gpu:{resources.gpus_per_node}"} if resources.gpus_per_node else {})
    if after:  # or what can never begin would wait for ever
        more |= {"dependency": f"afterok:{':'.join(after)}", "kill-on-invalid-dep": "yes"}
    return {
        "timeout_min": resources.minutes,
        "cpus_per_task": resources.cpus_per_gpu,
        "mem_gb": resources.memory_per_gpu_gb * processes,
        "stderr_to_stdout": True,
        **{f"slurm_{key}": value for key, value in named.items() if value},
        "slurm_array_parallelism": at_once or MOST_AT_ONCE,
        "slurm_signal_delay_s": resources.seconds_to_stop,
        "slurm_additional_parameters": more,
        # 22.05's srun does not read SLURM_CPUS_PER_TASK
        "slurm_srun_args": [f"--cpus-per-task={resources.cpus_per_gpu}", "--kill-on-bad-exit=1", "--wait=0"],
        # The code as it is now, whatever is edited while the job waits; and no folder of the user's that is named like ours
        "slurm_setup": [
            "unset SLURM_EXPORT_ENV",  # SBATCH_EXPORT=NONE would hide the next line from srun
            f"export PYTHONPATH={_quoted(code)}${{PYTHONPATH:+:$PYTHONPATH}} PYTHONSAFEPATH=1 SUBMITIT_LOG_LEVEL=ERROR",
        ],
        "slurm_teardown": [f"code=$?; [ $code -eq 0 ] || exec {_quoted(sys.executable)} -m launch.aftermath $code"],
    }


def _quoted(path: Path | str) -> str:
    return shlex.quote(str(path))
