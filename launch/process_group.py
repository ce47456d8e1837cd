"""Which process of how many this is, and how the processes of a job find each other."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from launch.run_folder import write_text

SECONDS_TO_MEET = 600.0
"""Processes of one job start together; on a busy file system some are slow to import."""


class MeetingError(ValueError):
    """The processes of a job did not find each other."""


@dataclass(frozen=True)
class Place:
    """This process among those of the job."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0


def find_place() -> Place | None:
    """From torchrun's, submitit's or srun's environment; None where nothing has started this process as one task of a job."""
    if "WORLD_SIZE" in os.environ:
        return _place("RANK", "WORLD_SIZE", "LOCAL_RANK")
    if "SUBMITIT_LOCAL_JOB_ID" in os.environ:
        return _place("SUBMITIT_LOCAL_GLOBALID", "SUBMITIT_LOCAL_NTASKS", "SUBMITIT_LOCAL_LOCALID")
    if int(os.environ.get("SLURM_STEP_ID") or FIRST_STEP_OF_SLURM) < FIRST_STEP_OF_SLURM:
        return _place("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")
    return None


FIRST_STEP_OF_SLURM = 0xFFFFFF00
"""Steps from here on are Slurm's own: the batch script, or the shell of an interactive allocation."""


def _place(rank: str, size: str, local_rank: str) -> Place:
    return Place(*(int(os.environ.get(name, default)) for name, default in ((rank, "0"), (size, "1"), (local_rank, "0"))))


def meet(folder: Path, place: Place, attempt: int) -> int:
    """Set RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT where several processes run, before torch is imported.

    The main process takes a free port and writes it into `folder`, with the number of the attempt, which the others return.
    Under torchrun all is set already; the number is then 0 in the others.
    """
    if "MISRANK_GPUS" in os.environ:
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ["MISRANK_GPUS"]
    if place.size == 1 or "WORLD_SIZE" in os.environ:
        return attempt
    os.environ |= {"RANK": str(place.rank), "WORLD_SIZE": str(place.size), "LOCAL_RANK": str(place.local_rank)}
    # Processes that each use every core wait for each other most of the time
    threads = int(os.environ.get("SLURM_CPUS_PER_TASK", "0")) or max(1, _cores() // place.size)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    path = folder / f"meeting-{_start()}.json"
    if place.rank == 0:
        for old in folder.glob("meeting-*.json"):
            old.unlink(missing_ok=True)
        write_text(path, json.dumps({"host": _own_address(), "port": _free_port(), "attempt": attempt}))
    meeting = _read(path)
    os.environ |= {"MASTER_ADDR": meeting["host"], "MASTER_PORT": str(meeting["port"])}
    return int(meeting["attempt"])


def _start() -> str:
    """The same in all processes of this start of a job, and in no other: job ids begin again at 1 on a new cluster."""
    names = (
        "SUBMITIT_FOLDER",
        "SUBMITIT_LOCAL_JOB_ID",
        "SLURM_JOB_ID",
        "SLURM_RESTART_COUNT",
        "SLURM_STEP_ID",
        "SLURM_SRUN_COMM_PORT",
    )
    return hashlib.sha256("|".join(os.environ.get(name, "") for name in names).encode()).hexdigest()[:16]


def _read(path: Path) -> dict[str, str]:
    deadline = time.monotonic() + SECONDS_TO_MEET
    while time.monotonic() < deadline:
        if path.exists():
            meeting: dict[str, str] = json.loads(path.read_text())
            return meeting
        time.sleep(0.1)
    raise MeetingError(f"{path}: process 0 did not write it within {SECONDS_TO_MEET:.0f} s; is the run folder on a shared disk?")


def _own_address() -> str:
    """Where the other processes reach this one. On one node, no name service is needed."""
    if int(os.environ.get("SLURM_STEP_NUM_NODES", "1")) == 1:
        return "127.0.0.1"
    name = os.environ.get("SLURMD_NODENAME", socket.gethostname())
    try:
        socket.getaddrinfo(name, None)
    except OSError:
        raise MeetingError(
            f"the name of this node, {name}, has no address: the others cannot reach it; ask the cluster's people"
        ) from None
    return name


def _free_port() -> int:
    with socket.socket() as any_port:
        any_port.bind(("", 0))
        port: int = any_port.getsockname()[1]
    return port


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
