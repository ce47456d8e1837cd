"""Which process of how many this is, as torch.distributed and accelerate read it from the environment."""

from __future__ import annotations

import os
import socket
import subprocess
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """This process among those of the job."""

    rank: int
    size: int
    local_rank: int
    main_host: str
    port: int


def find_place() -> Place | None:
    """From submitit or from an srun task; None when this is the only process or torchrun has set the variables already."""
    if "WORLD_SIZE" in os.environ:
        return None
    if "SUBMITIT_EXECUTOR" in os.environ:
        from submitit import JobEnvironment

        job = JobEnvironment()
        return Place(job.global_rank, job.num_tasks, job.local_rank, _address(job.hostnames[0]), _port(job.job_id))
    if "SLURM_PROCID" in os.environ and "SLURM_STEP_ID" in os.environ:
        rank, size, local = (int(os.environ[f"SLURM_{key}"]) for key in ("PROCID", "NTASKS", "LOCALID"))
        return Place(rank, size, local, _first_host() if size > 1 else "127.0.0.1", _port(os.environ["SLURM_JOB_ID"]))
    return None


def _first_host() -> str:
    """The first node of this job step."""
    nodes = os.environ.get("SLURM_STEP_NODELIST", os.environ["SLURM_JOB_NODELIST"])
    names = subprocess.run(["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True).stdout
    return _address(names.split()[0])


def join() -> int:
    """Set RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT where several processes run; returns this process's rank."""
    if "MISRANK_GPUS" in os.environ:
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ["MISRANK_GPUS"]
    place = find_place()
    if place is not None and place.size > 1:
        os.environ |= {
            "RANK": str(place.rank),
            "WORLD_SIZE": str(place.size),
            "LOCAL_RANK": str(place.local_rank),
            "MASTER_ADDR": place.main_host,
            "MASTER_PORT": str(place.port),
        }
        # Before torch is imported: processes that each use every core wait for each other most of the time
        os.environ.setdefault(
            "OMP_NUM_THREADS", str(int(os.environ.get("SLURM_CPUS_PER_TASK", "0")) or max(1, _cores() // place.size))
        )
    return int(os.environ.get("RANK", "0"))


def _address(name: str) -> str:
    """A job on this machine alone needs no name service."""
    return "127.0.0.1" if name in (socket.gethostname(), "localhost") else name


def _port(job_id: str) -> int:
    """Below the ephemeral range, the same in all tasks, another one after a requeue."""
    restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    return 20_000 + (int("".join(filter(str.isdigit, job_id)) or "0") * 7 + restarts) % 12_000


def device_name() -> str:
    """The device this process computes on: its own GPU where there is one, else the CPU."""
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    # One visible GPU a task (Slurm's --gpus-per-task) or all of the node's
    return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}"


def loader_workers() -> int:
    """Processes that read and prepare images: the cores of this task but one, none on a small machine, eight at most."""
    cores = int(os.environ.get("SLURM_CPUS_PER_TASK", "0")) or _cores()
    return min(8, cores - 1) if cores > 2 else 0


def _cores() -> int:
    return len(os.sched_getaffinity(0))
