"""A job as something submitit can carry: names and plain values, so that it survives edits and requeues."""

from __future__ import annotations

import importlib
import os
import shutil
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launch import process_group
from launch.failure import leave
from launch.options import rebuild
from launch.resources import Resources
from launch.run_folder import held, make_run_folder, save_environment

if TYPE_CHECKING:
    import submitit
    from submitit.core.utils import DelayedSubmission


class SubmissionError(ValueError):
    """A job that Slurm did not take."""


@dataclass(frozen=True)
class Task:
    """One job with its options and its run folder; calling it runs the job in this process."""

    module: str
    """The job's module: jobs.<stem>."""
    values: dict[str, Any]
    run_dir: str
    started: dict[str, Any]
    """How it was started, for environment.json: command and resources."""

    def __call__(self) -> None:
        """Run, and end the program with a message if that fails."""
        try:
            self.run()
        except Exception as error:
            leave(error, Path(os.environ.get("SUBMITIT_FOLDER", Path(self.run_dir, "logs"))))

    def run(self) -> None:
        folder, job = Path(self.run_dir), importlib.import_module(self.module)
        main = process_group.join() == 0
        if not main and not job.RESOURCES.gpus_per_node:
            return  # a job for one process
        if main:
            make_run_folder(folder, self.values)
        with held(folder) if main else nullcontext():
            if main:
                save_environment(folder, self.started)
            job.run(rebuild(job.Config, self.values), folder)

    def checkpoint(self) -> DelayedSubmission:
        """What submitit queues again at the time limit or a preemption: the same task, which goes on where it was."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def submit(task: Task, cluster: str, resources: Resources) -> submitit.Job[None]:
    """Hand a task to Slurm, to several local processes, or to submitit's debug executor."""
    import submitit
    from submitit.core.utils import FailedJobError

    if cluster == "slurm" and not (shutil.which("sbatch") and shutil.which("srun")):
        raise SubmissionError(
            "--cluster slurm: sbatch and srun are not on the path; go to a node that submits, or use --cluster local"
        )
    os.environ["PYTHONSAFEPATH"] = "1"  # or a folder named models where the user stands would hide ours
    make_run_folder(Path(task.run_dir), task.values)
    logs = Path(task.run_dir, "logs", f"{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}")
    executor = submitit.AutoExecutor(logs, cluster=cluster)
    executor.update_parameters(name=task.module.removeprefix("jobs."), nodes=resources.nodes)
    executor.update_parameters(tasks_per_node=resources.processes_per_node)
    executor.update_parameters(**(_slurm_parameters(resources) if cluster == "slurm" else _local_parameters(resources)))
    try:
        return executor.submit(task.run if cluster == "debug" else task)
    except FailedJobError:  # submitit has printed what sbatch said
        raise SubmissionError(
            "sbatch refused the job: see above; clusters differ in --partition, --account, --qos, --constraint and --gpus-per-node"
        ) from None


def _slurm_parameters(resources: Resources) -> dict[str, Any]:
    processes = resources.processes_per_node
    named = {key: asdict(resources)[key] for key in ("partition", "account", "qos", "constraint", "exclude")}
    more = {"requeue": True} | ({"gres": f"gpu:{resources.gpus_per_node}"} if resources.gpus_per_node else {})
    return {
        "timeout_min": resources.minutes,
        "cpus_per_task": resources.cpus_per_gpu,
        "mem_gb": resources.memory_per_gpu_gb * processes,
        "stderr_to_stdout": True,
        **{f"slurm_{key}": value for key, value in named.items() if value},
        "slurm_additional_parameters": more,
        # 22.05's srun does not read SLURM_CPUS_PER_TASK
        "slurm_srun_args": [f"--cpus-per-task={resources.cpus_per_gpu}", "--kill-on-bad-exit=1"],
    }


def _local_parameters(resources: Resources) -> dict[str, Any]:
    # Without a number of GPUs submitit hides them all; without a time limit it stops after two minutes. One's own machine needs none.
    return {"gpus_per_node": resources.gpus_per_node, "timeout_min": 365 * 24 * 60}
