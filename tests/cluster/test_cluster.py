"""The tests' own Slurm does to jobs what real ones do. The jobs here are lines of bash; the project's have tests of their own."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slurm

TESTS = Path(__file__).resolve().parents[1]
SPY = """trap 'echo USR2; eval "$1"' USR2; trap 'echo TERM' TERM; echo started; while :; do sleep 0.2; done"""
"""A task that tells which signals it gets and goes on; its argument is what else it does when it gets USR2."""


@pytest.fixture
def spy(tmp_path) -> Path:
    (tmp_path / "spy.sh").write_text(SPY)
    return tmp_path


def log(folder: Path, job: str) -> str:
    path = folder / f"slurm-{job}.out"
    return path.read_text() if path.exists() else ""


def spying(cluster, spy: Path, *options: object, action: str = "") -> str:
    """The number of a job of one task on n1 that has started."""
    job = cluster.submit("--nodelist=n1", "--mem=1G", *options, command=f"srun bash spy.sh '{action}'", cwd=spy)
    cluster.wait_for(lambda: "started" in log(spy, job), 20, "the task")
    return job


def test_two_nodes_with_gpus_and_accounting(cluster):
    tell = 'echo "$SLURMD_NODENAME $SLURM_LOCALID $CUDA_VISIBLE_DEVICES"'
    lines = cluster.ask("srun", "--nodes=2", "--ntasks-per-node=2", "--gres=gpu:2", "bash", "-c", tell).splitlines()
    assert sorted(lines) == ["n1 0 0,1", "n1 1 0,1", "n2 0 0,1", "n2 1 0,1"]
    job = cluster.ask("squeue", "--noheader", "--states=all", "--format=%A", "--sort=-i").split()[0]
    cluster.wait_for_state(job, "COMPLETED")  # it may still be completing
    cluster.wait_for(lambda: cluster.sacct(job) == ["COMPLETED"], 15, "sacct")


def test_a_preempted_job_is_told_and_starts_again(cluster, spy):
    """A task that queues its job again in the time of grace, as ours do."""
    job = spying(cluster, spy, "--partition=spot", "--signal=USR2@60", action="sleep 0.5; scontrol requeue $SLURM_JOB_ID; exit")
    urgent = cluster.preempt(job)
    cluster.wait_for_state(urgent, "COMPLETED")
    cluster.wait_for_state(job, "RUNNING")
    assert cluster.details(job)["Restarts"] == "1"
    cluster.wait_for(lambda: log(spy, job).count("started") == 2, 10, "the second start")
    assert "USR2" in log(spy, job).split("started")[1].split()


def test_without_the_user_signal_a_preempted_job_gets_only_a_term(cluster, spy):
    cluster.reconfigure(user_signal="no")
    job = spying(cluster, spy, "--partition=spot", "--signal=USR2@60")
    cluster.preempt(job)
    cluster.wait_for(lambda: "TERM" in log(spy, job), 10, "the signal")
    assert "USR2" not in log(spy, job)


def test_a_job_of_a_lost_node_starts_again(cluster, spy):
    job = spying(cluster, spy)
    cluster.lose_node("n1")
    assert not tasks("spy.sh", spy)
    assert cluster.state(job) == "PENDING"
    cluster.start()
    cluster.wait_for_state(job, "RUNNING")
    cluster.wait_for(lambda: cluster.sacct(job) == ["NODE_FAIL", "RUNNING"], 15, "sacct")


def test_tasks_of_a_node_that_is_cut_off_go_on(cluster, spy):
    job = spying(cluster, spy)
    cluster.cut_node("n1")
    assert cluster.state(job) == "PENDING" and tasks("spy.sh", spy)
    cluster.clear()
    assert not tasks("spy.sh", spy)


def tasks(word: str, folder: Path) -> list[str]:
    """Processes with a word in their command, in a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if word in (process / "cmdline").read_text() and (process / "cwd").readlink() == folder:
                found.append(process.name)
        except OSError:  # it has ended
            continue
    return found


def test_memory_counts_when_it_is_used(cluster, tmp_path):
    """Python reserves 64 GiB, as torch does for its GPUs, and then fills 2; all with a limit of 1 GiB."""
    reserve = "import mmap, time; m = mmap.mmap(-1, 64 << 30, mmap.MAP_PRIVATE | 0x4000); time.sleep(1.5); print('reserved', flush=True)"
    (tmp_path / "fill.py").write_text(f"{reserve}\nx = b'x' * (2 << 30); time.sleep(20)\n")
    job = cluster.submit("--mem=1G", command=f"srun {sys.executable} fill.py", cwd=tmp_path)
    cluster.wait_for_state(job, "FAILED")
    assert log(tmp_path, job).startswith("reserved") and "exceeded memory limit" in log(tmp_path, job)
    assert cluster.details(job)["ExitCode"] == "137:0"
    cluster.wait_for(lambda: cluster.sacct(job, "State,ExitCode") == ["FAILED|9:0"], 15, "sacct")


def test_without_accounting_only_sacct_fails(cluster, tmp_path):
    with cluster.without_sacct():
        job = cluster.submit(command="true", cwd=tmp_path)
        cluster.wait_for_state(job, "COMPLETED")
        done = cluster.run("sacct", timeout=20)
        assert done.returncode == 1 and "Connection refused" in done.stderr
    cluster.wait_for(lambda: cluster.sacct(job) == ["COMPLETED"], 20, "sacct")  # what happened meanwhile is not lost


def test_a_cluster_goes_with_the_process_that_started_it(cluster):
    code = "import time; from real_slurm import *\nwith running_cluster() as c: print(c.folder, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], cwd=TESTS, stdout=subprocess.PIPE, text=True) as child:
        folder = Path(child.stdout.readline().strip())
        assert folder != cluster.folder and (folder / "run/slurmctld.pid").exists()
        child.send_signal(signal.SIGKILL)
    cluster.wait_for(lambda: not folder.exists(), 15, "the end of the other cluster")
    assert not subprocess.run(["pgrep", "-f", str(folder)], capture_output=True, check=False).stdout
    assert str(folder) not in Path("/etc/hosts").read_text()
