"""What submitit carries, and what Slurm is asked for."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import cloudpickle
import pytest

from launch.resources import Resources
from launch.submission import SubmissionError, Task, submit


@pytest.fixture
def task(probe, tmp_path) -> Task:
    return Task(probe, {"what": "fine"}, str(tmp_path / "runs/probe_job/default"), {"command": ["x"], "resources": {}})


@pytest.fixture
def slurm(on_path):
    """A Slurm that takes every job."""
    on_path("srun", "exit 1")
    on_path("sbatch", 'echo "Submitted batch job 4711"')


def asked(script: Path) -> dict[str, str]:
    return dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", script.read_text(), re.M))


def test_a_task_is_names_and_plain_values_and_runs_anywhere(task, tmp_path):
    pickled = cloudpickle.dumps(task)
    assert len(pickled) < 1000 and b"launch.submission" in pickled  # by reference: edits of the code count
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    code = "import pickle, sys; pickle.load(sys.stdin.buffer)()"
    done = subprocess.run([sys.executable, "-c", code], input=pickled, cwd=elsewhere, capture_output=True, check=True)
    assert done.stdout == b"this is rank 0\n"
    run_dir = Path(task.run_dir)
    assert (run_dir / "config.yaml").read_text() == "what: fine\n"
    assert '"command": [\n  "x"\n ]' in (run_dir / "environment.json").read_text()
    assert (run_dir / "rank-0.txt").exists()


def test_a_task_goes_on_after_a_requeue(task):
    again = task.checkpoint()
    assert again.function == task and not again.args


def test_a_job_without_gpus_is_one_process(task, monkeypatch, probe):
    module = __import__(probe)
    monkeypatch.setattr(module, "RESOURCES", Resources(gpus_per_node=0))
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    task.run()
    assert not Path(task.run_dir).exists()


def test_what_slurm_is_asked_for(task, slurm):
    resources = Resources(
        nodes=2, gpus_per_node=4, minutes=90, cpus_per_gpu=3, memory_per_gpu_gb=10, partition="gpu", account="a b"
    )
    job = submit(task, "slurm", resources)
    assert job.job_id == "4711" and job.paths.folder.parent == Path(task.run_dir, "logs")
    script = job.paths.submission_file
    expected = {
        "job-name": "probe_job",
        "nodes": "2",
        "ntasks-per-node": "4",
        "gres": "gpu:4",
        "cpus-per-task": "3",
        "mem": "40GB",
    }
    expected |= {"time": "90", "partition": "gpu", "account": "'a b'", "requeue": "", "open-mode": "append", "signal": "USR2@90"}
    expected |= {"output": str(job.paths.stdout).replace("4711", "%j"), "wckey": "submitit"}
    assert asked(script) == expected
    last = script.read_text().splitlines()[-1]
    assert last.startswith("srun --unbuffered --output ") and " --cpus-per-task=3 --kill-on-bad-exit=1 " in last
    assert f"{sys.executable} -u -m submitit.core._submit" in last and "--error" not in last  # one log a task
    assert job.submission().function == task
    assert (Path(task.run_dir) / "config.yaml").exists()  # a second job of the same name is refused from now on


def test_what_slurm_is_not_asked_for(task, slurm):
    found = asked(submit(task, "slurm", Resources(gpus_per_node=0, minutes=60)).paths.submission_file)
    assert found["ntasks-per-node"] == "1" and found["mem"] == "32GB"
    assert not {"gres", "partition", "account", "qos", "constraint", "exclude", "gpus-per-node"} & set(found)


@pytest.mark.parametrize("name", ["partition", "account", "qos", "constraint", "exclude"])
def test_cluster_options_are_passed_on(task, slurm, name):
    resources = Resources(**asdict(Resources()) | {name: "some"})
    assert asked(submit(task, "slurm", resources).paths.submission_file)[name] == "some"


def test_two_submissions_have_logs_of_their_own(task, slurm, monkeypatch):
    """Job numbers start again at 1 on a new cluster: an old result must not be taken for the new job's."""
    first = submit(task, "slurm", Resources()).paths.folder
    monkeypatch.setattr("launch.submission.os.getpid", lambda: 1)
    assert submit(task, "slurm", Resources()).paths.folder != first


def test_without_slurm(task, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SubmissionError, match=r"sbatch and srun are not on the path; .* use --cluster local"):
        submit(task, "slurm", Resources())
    assert not Path(task.run_dir).exists()


def test_sbatch_refuses(task, on_path, capfd):
    on_path("srun", "")
    on_path("sbatch", 'echo "sbatch: error: invalid partition specified: gpuu" >&2; exit 1')
    with pytest.raises(SubmissionError, match="sbatch refused the job: see above; clusters differ in --partition, --account"):
        submit(task, "slurm", Resources(partition="gpuu"))
    assert "invalid partition specified: gpuu" in capfd.readouterr().err


def test_debug_runs_here_and_opens_a_debugger_on_an_error(task, monkeypatch):
    opened = []
    monkeypatch.setattr("pdb.post_mortem", lambda: opened.append(True))
    monkeypatch.setattr(sys.modules[task.module] if task.module in sys.modules else __import__(task.module), "run", broken)
    with pytest.raises(ZeroDivisionError):
        submit(task, "debug", Resources()).results()
    assert opened


def broken(config: object, run_dir: Path) -> None:
    assert run_dir.is_dir()
    raise ZeroDivisionError
