"""Which process of how many, and how the processes of a job find each other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch import process_group
from launch.process_group import MeetingError, Place, device_name, find_place, loader_workers, meet

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
FIRST = Place(0, 2, 0)


def srun(rank: int, tasks: int, **more: str) -> dict[str, str]:
    """What srun gives a task on nodes n1 and n2, two tasks each."""
    place = {"SLURM_PROCID": str(rank), "SLURM_NTASKS": str(tasks), "SLURM_LOCALID": str(rank % 2), "SLURM_STEP_ID": "0"}
    return place | {"SLURM_JOB_ID": "4711", "SLURM_STEP_NUM_NODES": "1", "SLURM_SRUN_COMM_PORT": "40001"} | more


def submitit(rank: int, tasks: int) -> dict[str, str]:
    """What submitit gives a process on this machine."""
    names = {"SUBMITIT_EXECUTOR": "local", "SUBMITIT_LOCAL_JOB_ID": "99", "SUBMITIT_LOCAL_NTASKS": str(tasks)}
    return names | {"SUBMITIT_LOCAL_GLOBALID": str(rank), "SUBMITIT_LOCAL_LOCALID": str(rank), "SUBMITIT_FOLDER": "logs/now"}


TORCHRUN = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "h", "MASTER_PORT": "29500"}


def joined() -> dict[str, str]:
    return {key: os.environ[key] for key in VARIABLES if key in os.environ}


# Where this process is


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({}, None),
        (srun(3, 4), Place(3, 4, 1)),
        (srun(0, 1), Place()),
        (submitit(1, 2), Place(1, 2, 1)),
        (TORCHRUN, Place(1, 2, 1)),
        (srun(0, 2) | TORCHRUN, Place(1, 2, 1)),  # torchrun inside a Slurm task
        ({"SLURM_JOB_ID": "4711", "SLURM_NTASKS": "4"}, None),  # the shell of salloc, or a batch script
        (srun(0, 4, SLURM_STEP_ID=""), None),
        (srun(0, 1, SLURM_STEP_ID="4294967290"), None),  # salloc's interactive step
        (srun(0, 1, SLURM_STEP_ID="4294967291"), None),  # the batch step
        ({"SLURM_STEP_ID": "0", **submitit(1, 2)}, Place(1, 2, 1)),  # --cluster local inside a Slurm task
    ],
)
def test_where_this_process_is(environment, place):
    os.environ |= environment
    assert find_place() == place


# How they find each other

MEET = """
import os, sys
from pathlib import Path
from launch import process_group
process_group.SECONDS_TO_MEET = 20.0
place = process_group.find_place()
number = process_group.meet(Path(sys.argv[1]), place, 7 if place.rank == 0 else 0)
print(number, *(os.environ[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")))
"""


def start(folder: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    path = {"PYTHONPATH": str(Path(process_group.__file__).parents[1])}
    command = [sys.executable, "-c", MEET, str(folder)]
    return subprocess.Popen(command, env=os.environ | path | environment, stdout=subprocess.PIPE, text=True)


def met(processes: list[subprocess.Popen[str]]) -> list[list[str]]:
    said = [process.communicate(timeout=30)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes)
    return said


@pytest.mark.parametrize("started_by", [srun, submitit])
def test_processes_find_each_other(tmp_path, started_by):
    """Whoever comes first; what an earlier start left is not taken for this one's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "environ", os.environ | srun(0, 2, SLURM_RESTART_COUNT="1"))
        meet(tmp_path, Place(0, 2), 6)
    (old,) = tmp_path.glob("meeting-*.json")
    later = [start(tmp_path, started_by(rank, 3)) for rank in (2, 1)]
    time.sleep(0.5)
    said = met([start(tmp_path, started_by(0, 3)), *later[::-1]])
    port = said[0][5]
    assert said == [
        ["7", str(rank), "3", started_by(rank, 3).get("SLURM_LOCALID", str(rank)), "127.0.0.1", port] for rank in range(3)
    ]
    assert int(port) > 1023 and port != str(json.loads(old.read_text())["port"] if old.exists() else 0)
    (left,) = tmp_path.iterdir()
    assert left != old


@pytest.mark.parametrize(
    "change",
    [
        {"SLURM_RESTART_COUNT": "1"},
        {"SLURM_STEP_ID": "1"},
        {"SLURM_JOB_ID": "4712"},
        {"SLURM_SRUN_COMM_PORT": "40002"},
        {"SUBMITIT_FOLDER": "other"},
    ],
)
def test_every_start_meets_in_a_place_of_its_own(tmp_path, monkeypatch, change):
    monkeypatch.setattr(process_group, "SECONDS_TO_MEET", 0.2)
    os.environ |= srun(0, 2)
    meet(tmp_path, FIRST, 1)
    for name in VARIABLES:
        os.environ.pop(name, None)
    os.environ |= change
    with pytest.raises(MeetingError):
        meet(tmp_path, Place(1, 2, 1), 0)


def test_two_jobs_at_once_get_ports_of_their_own(tmp_path):
    ports = []
    for job in range(20):
        for name in VARIABLES:
            os.environ.pop(name, None)
        os.environ |= srun(0, 2, SLURM_JOB_ID=str(job))
        (tmp_path / str(job)).mkdir()
        meet(tmp_path / str(job), FIRST, 1)
        ports.append(os.environ["MASTER_PORT"])
    assert len(set(ports)) > 15


def test_process_0_never_comes(tmp_path, monkeypatch):
    monkeypatch.setattr(process_group, "SECONDS_TO_MEET", 0.2)
    os.environ |= srun(1, 2)
    with pytest.raises(
        MeetingError, match=r"meeting-\w+.json: process 0 did not write it within 0 s; is the run folder on a shared"
    ):
        meet(tmp_path / "attempts", Place(1, 2, 1), 0)


def test_across_nodes_the_first_ones_name_is_given(tmp_path, monkeypatch):
    os.environ |= srun(0, 4, SLURM_STEP_NUM_NODES="2", SLURMD_NODENAME="localhost")
    meet(tmp_path, Place(0, 4), 1)
    assert os.environ["MASTER_ADDR"] == "localhost"


def test_a_node_without_an_address_is_one_clear_error(tmp_path):
    os.environ |= srun(0, 4, SLURM_STEP_NUM_NODES="2", SLURMD_NODENAME="no-such-node.invalid")
    with pytest.raises(
        MeetingError, match=r"the name of this node, no-such-node.invalid, has no address: the others cannot reach"
    ):
        meet(tmp_path, Place(0, 4), 1)


@pytest.mark.parametrize("place", [Place(), Place(0, 1, 0)])
def test_alone_there_is_nobody_to_meet(tmp_path, place):
    os.environ |= srun(0, 1)
    assert meet(tmp_path, place, 5) == 5 and not joined() and not list(tmp_path.iterdir())


def test_torchrun_has_set_everything_already(tmp_path):
    os.environ |= srun(0, 2) | TORCHRUN
    assert meet(tmp_path, Place(1, 2, 1), 0) == 0
    assert joined() == TORCHRUN and not list(tmp_path.iterdir())


@pytest.mark.parametrize("given", ["3", ""])
def test_processes_share_the_cores(tmp_path, given):
    os.environ.pop("OMP_NUM_THREADS", None)
    os.environ |= srun(0, 2, **({"SLURM_CPUS_PER_TASK": given} if given else {}))
    meet(tmp_path, FIRST, 1)
    assert os.environ["OMP_NUM_THREADS"] == (given or str(max(1, len(os.sched_getaffinity(0)) // 2)))


def test_the_threads_that_the_user_chose_stay(tmp_path):
    os.environ |= srun(0, 2, OMP_NUM_THREADS="7")
    meet(tmp_path, FIRST, 1)
    assert os.environ["OMP_NUM_THREADS"] == "7"


def test_the_gpus_that_the_user_chose_come_back(tmp_path):
    os.environ |= {"MISRANK_GPUS": "2,3", "CUDA_VISIBLE_DEVICES": "0,1"}
    meet(tmp_path, Place(), 1)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "2,3"


# The machine


def test_device_of_a_machine_without_gpu(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_name() == "cpu"


@pytest.mark.parametrize(("visible", "local_rank", "device"), [(4, "3", "cuda:3"), (1, "3", "cuda:0"), (2, "0", "cuda:0")])
def test_device_of_a_task(monkeypatch, visible, local_rank, device):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: visible)
    monkeypatch.setenv("LOCAL_RANK", local_rank)
    assert device_name() == device


@pytest.mark.parametrize(("cores", "workers"), [("1", 0), ("2", 0), ("3", 2), ("4", 3), ("64", 8)])
def test_loader_workers(monkeypatch, cores, workers):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", cores)
    assert loader_workers() == workers
