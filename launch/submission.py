"""A job as something submitit can carry: names and plain values, so that it survives edits and requeues."""

from __future__ import annotations

import importlib
import os
import sys
import time
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launch import process_group
from launch.options import rebuild
from launch.resources import Resources
from launch.run_folder import save_environment

if TYPE_CHECKING:
    import submitit


@dataclass(frozen=True)
class Task:
    """One job with its options and its run folder; calling it runs the job in this process."""

    module: str
    """The job's module: jobs.<stem>."""
    values: dict[str, Any]
    run_dir: str
    resources: dict[str, Any]

    def __call__(self) -> None:
        rank = process_group.join()
        if rank == 0:
            save_environment(Path(self.run_dir), self.resources)
        job = importlib.import_module(self.module)
        job.run(rebuild(job.Config, self.values), Path(self.run_dir))


def submit(task: Task, cluster: str, resources: Resources) -> submitit.Job[None]:
    """Hand a task to Slurm, to several local processes, or to submitit's debug executor."""
    import submitit

    logs = Path(task.run_dir, "logs", f"{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}")
    executor = submitit.AutoExecutor(logs, cluster=cluster)
    executor.update_parameters(
        name=task.module.removeprefix("jobs."),
        nodes=resources.nodes,
        tasks_per_node=resources.processes_per_node,
        timeout_min=resources.minutes,
    )
    if cluster == "slurm":
        executor.update_parameters(**_slurm_parameters(resources))
    return executor.submit(task)


def _slurm_parameters(resources: Resources) -> dict[str, Any]:
    processes = resources.processes_per_node
    named = {key: asdict(resources)[key] for key in ("partition", "account", "qos", "constraint", "exclude")}
    more = {"requeue": True} | ({"gres": f"gpu:{resources.gpus_per_node}"} if resources.gpus_per_node else {})
    return {
        "cpus_per_task": resources.cpus_per_gpu,
        "mem_gb": resources.memory_per_gpu_gb * processes,
        **{f"slurm_{key}": value for key, value in named.items() if value},
        "slurm_additional_parameters": more,
        # 22.05's srun does not read SLURM_CPUS_PER_TASK
        "slurm_srun_args": [f"--cpus-per-task={resources.cpus_per_gpu}", "--kill-on-bad-exit=1"],
    }


def follow(job: submitit.Job[None]) -> None:
    """Copy rank 0's output to the terminal until the job ends; its exception is raised here."""
    log, seen = Path(str(job.paths.stdout)), 0
    while True:
        done = job.done()
        if log.exists():
            text = log.read_bytes()
            sys.stdout.write(text[seen:].decode(errors="replace"))
            sys.stdout.flush()
            seen = len(text)
        if done:
            break
        time.sleep(0.5)
    job.results()
