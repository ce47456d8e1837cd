"""Which process of how many, from the environments of srun, submitit and torchrun."""

from __future__ import annotations

import os
import socket

import pytest

from launch.process_group import device_name, find_place, join, loader_workers

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def srun(rank: int, tasks: int, **more: str) -> None:
    """The environment of an srun task on nodes n1 and n2, two tasks each."""
    os.environ |= {"SLURM_PROCID": str(rank), "SLURM_NTASKS": str(tasks), "SLURM_LOCALID": str(rank % 2)}
    os.environ |= {"SLURM_STEP_ID": "0", "SLURM_JOB_ID": "4711", "SLURM_JOB_NODELIST": "n[1-2]", **more}


def joined() -> dict[str, str]:
    return {key: os.environ[key] for key in VARIABLES if key in os.environ}


def port_of(job: str, restarts: str) -> int:
    for key in VARIABLES:
        os.environ.pop(key, None)
    srun(0, 2, SLURM_JOB_ID=job, SLURM_RESTART_COUNT=restarts)
    join()
    return int(os.environ["MASTER_PORT"])


@pytest.fixture
def nodes(on_path):
    on_path("scontrol", '[ "$*" = "show hostnames n[1-2]" ] && printf "n1\\nn2\\n"')


def test_alone():
    assert find_place() is None and join() == 0 and not joined()


def test_a_single_srun_task_needs_no_group():
    srun(0, 1)
    assert join() == 0 and not joined()


def test_srun_tasks_on_two_nodes(nodes):
    srun(3, 4)
    assert join() == 3
    assert joined() | {"MASTER_PORT": ""} == {
        "RANK": "3",
        "WORLD_SIZE": "4",
        "LOCAL_RANK": "1",
        "MASTER_ADDR": "n1",
        "MASTER_PORT": "",
    }


@pytest.mark.parametrize("given", ["3", ""])
def test_processes_share_the_cores(nodes, given):
    os.environ.pop("OMP_NUM_THREADS", None)
    srun(0, 2, **({"SLURM_CPUS_PER_TASK": given} if given else {}))
    join()
    assert os.environ["OMP_NUM_THREADS"] == (given or str(max(1, len(os.sched_getaffinity(0)) // 2)))


def test_the_nodes_of_the_step_count_not_those_of_the_job(on_path):
    on_path("scontrol", 'echo "${@: -1}"')
    srun(1, 2, SLURM_STEP_NODELIST="n2")
    join()
    assert os.environ["MASTER_ADDR"] == "n2"


def test_a_job_on_this_machine_alone_needs_no_name_service(on_path):
    on_path("scontrol", f"echo {socket.gethostname()}")
    srun(0, 2)
    join()
    assert os.environ["MASTER_ADDR"] == "127.0.0.1"


def test_a_shell_in_an_allocation_is_no_task():
    os.environ |= {"SLURM_JOB_ID": "4711", "SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_LOCALID": "0"}
    assert join() == 0 and not joined()


def test_torchrun_has_set_everything_already(nodes):
    os.environ |= {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "h", "MASTER_PORT": "29500"}
    before = joined()
    srun(0, 2)  # even inside a Slurm task
    assert join() == 1 and joined() == before


def test_submitit_on_this_machine():
    os.environ |= {"SUBMITIT_EXECUTOR": "local", "SUBMITIT_LOCAL_JOB_ID": "99", "SUBMITIT_LOCAL_NTASKS": "2"}
    os.environ |= {"SUBMITIT_LOCAL_GLOBALID": "1", "SUBMITIT_LOCAL_LOCALID": "1", "SUBMITIT_LOCAL_NODEID": "0"}
    assert join() == 1
    assert (os.environ["WORLD_SIZE"], os.environ["LOCAL_RANK"], os.environ["MASTER_ADDR"]) == ("2", "1", "127.0.0.1")


def test_submitit_on_slurm():
    srun(2, 4, SUBMITIT_EXECUTOR="slurm", SLURM_JOB_NUM_NODES="2", SLURM_NODEID="1")
    assert join() == 2
    assert (os.environ["WORLD_SIZE"], os.environ["LOCAL_RANK"], os.environ["MASTER_ADDR"]) == ("4", "0", "n1")


def test_the_gpus_that_the_user_chose_come_back():
    os.environ |= {"MISRANK_GPUS": "2,3", "CUDA_VISIBLE_DEVICES": "0,1"}
    join()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "2,3"


def test_the_port(nodes):
    """The same for all tasks of a job, below the ephemeral range, another one after a requeue and beside other jobs."""
    ports = [port_of(job, restarts) for job in ("1", "2", "4711", "99999999") for restarts in ("0", "1", "2")]
    assert all(20_000 <= port < 32_768 for port in ports) and len(set(ports)) == len(ports)
    assert port_of("4711", "1") == port_of("4711", "1")


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
