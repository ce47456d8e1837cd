"""What Slurm is asked for, and what guards a run against a second job."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from launch import history, submission
from launch.resources import Resources
from launch.submission import Submission, SubmissionError, batch_script, debug, job_at_work, submission_of, submit, submit_array
from launch.task import Task

SBATCH = """
n=$(( $(cat "$0.count" 2>/dev/null || echo 4710) + 1 )); echo $n >"$0.count"
cp "${@: -1}" "$0.$n.sh"; echo "$@" >>"$0.asked"; env | sort >"$0.env"
sleep ${SLOW:-0}; echo "Submitted batch job $n"
"""
SQUEUE = 'for word; do case "$word" in --jobs=*) ids=${word#--jobs=};; esac; done; for id in ${ids//,/ }; do echo "$id|$(cat "$0.state")|None|"; done'


@pytest.fixture
def task(probe, tmp_path) -> Task:
    run_dir = tmp_path / "runs/probe_job/default"
    return Task(probe, {"what": "fine"}, str(run_dir), {"command": ["x"], "resources": asdict(Resources())})


@pytest.fixture
def state(on_path, monkeypatch) -> Callable[[str], None]:
    """A Slurm that takes every job, and says of all that they are as told: state("RUNNING")."""
    on_path("srun", "exit 1")
    on_path("sbatch", SBATCH)
    path = on_path("squeue", SQUEUE).with_name("squeue.state")
    path.write_text("PENDING\n")
    numbers = iter(range(1000))
    monkeypatch.setattr(submission, "_new_logs", lambda folder: folder / f"submission-{next(numbers)}")
    return path.write_text


def script(task: Task, **resources: object) -> str:
    return batch_script(task, Resources(**resources))  # type: ignore[arg-type]


def options(text: str) -> dict[str, str]:
    return dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", text, re.M))


# What is asked for


def test_what_slurm_is_asked_for(task, state, tmp_path):
    resources = Resources(
        nodes=2, gpus_per_node=4, minutes=90, cpus_per_gpu=3, memory_per_gpu_gb=10, partition="gpu", account="a b"
    )
    made = submit(task, resources)
    folder = Path(task.run_dir, "logs/submission-0")
    assert made == submission_of(Path(task.run_dir)) and (made.job, made.log, made.after) == (
        "4711",
        f"{folder}/4711_0_log.out",
        (),
    )
    text = (tmp_path / "bin/sbatch.4711.sh").read_text()
    expected = {
        "job-name": "probe_job",
        "nodes": "2",
        "ntasks-per-node": "4",
        "gres": "gpu:4",
        "cpus-per-task": "3",
        "mem": "40GB",
    }
    expected |= {"time": "90", "partition": "gpu", "account": "'a b'", "requeue": "", "open-mode": "append", "signal": "USR2@120"}
    assert options(text) == expected | {"output": f"{folder}/%j_0_log.out", "wckey": "submitit"}
    lines = text.splitlines()
    assert sum(line.startswith("srun ") for line in lines) == 1
    srun = next(line for line in lines if line.startswith("srun "))
    assert srun.startswith("srun --unbuffered --output ") and " --cpus-per-task=3 --kill-on-bad-exit=1 " in srun
    assert f"{sys.executable} -u -m submitit.core._submit" in srun and "--error" not in srun  # one log a task
    after = [line for line in lines[lines.index(srun) + 1 :] if line and not line.startswith("#")]
    assert after == [f"code=$?; [ $code -eq 0 ] || exec {sys.executable} -m launch.aftermath $code"]
    assert (Path(task.run_dir) / "config.yaml").exists()  # another configuration of the same name is refused from now on


@pytest.mark.parametrize("srun", ["exit 0", "exit 3"])
def test_what_the_batch_script_does(task, state, on_path, tmp_path, srun):
    """It runs the code as submitted, wherever the user stood and whatever was on their path, and looks after a bad end."""
    os.environ["PYTHONPATH"] = "/the/users"
    submit(task, Resources())
    on_path("srun", f'echo "$PYTHONPATH $PYTHONSAFEPATH"; {srun}')
    (code,) = (tmp_path / "runs/.code").iterdir()
    text = (tmp_path / "bin/sbatch.4711.sh").read_text()
    done = subprocess.run(
        ["bash", "-c", text], cwd=tmp_path, env=os.environ | {"SLURM_JOB_ID": "4711"}, capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith(f"{code}:/the/users 1\n") and done.returncode == int(srun[-1]), done.stderr


def test_what_slurm_is_not_asked_for(task, state):
    found = options(script(task, gpus_per_node=0, minutes=60))
    assert found["ntasks-per-node"] == "1" and found["mem"] == "32GB"
    unasked = {"gres", "partition", "account", "qos", "constraint", "exclude", "gpus-per-node", "dependency", "array"}
    assert not unasked & set(found)


@pytest.mark.parametrize("name", ["partition", "account", "qos", "constraint", "exclude"])
def test_cluster_options_are_passed_on(task, state, name):
    assert options(script(task, **{name: "some"}))[name] == "some"


def test_after_other_jobs(task, state, tmp_path):
    assert submit(task, Resources(), ["12", "13_1"]).after == submission_of(Path(task.run_dir)).after == ("12", "13_1")
    found = options((tmp_path / "bin/sbatch.4711.sh").read_text())
    assert found["dependency"] == "afterok:12:13_1" and found["kill-on-invalid-dep"] == "yes"


def several(task: Task, count: int) -> list[Task]:
    return [replace(task, run_dir=f"{Path(task.run_dir).parent}/run-{i}", values={"what": f"do-{i}"}) for i in range(count)]


@pytest.mark.parametrize("at_once", [0, 2])
def test_an_array(task, state, tmp_path, at_once):
    tasks = several(task, 3)
    made = submit_array(tasks, Resources(), ["12"], at_once)
    folder = tmp_path / "runs/.arrays/submission-0"
    assert [one.job for one in made] == ["4711_0", "4711_1", "4711_2"]
    assert [one.log for one in made] == [f"{folder}/4711_{i}_0_log.out" for i in range(3)]
    assert [submission_of(Path(one.run_dir)) for one in tasks] == made
    found = options((tmp_path / "bin/sbatch.4711.sh").read_text())
    assert found["array"] == f"0-2%{at_once or 3}" and found["dependency"] == "afterok:12"
    assert [(Path(one.run_dir) / "config.yaml").read_text() for one in tasks] == [f"what: do-{i}\n" for i in range(3)]


def test_an_array_of_one_is_a_job(task, state):
    assert submit_array([task], Resources())[0].job == "4711"


def test_the_tasks_find_their_own_run(task, state, tmp_path):
    import pickle

    submit_array(several(task, 2), Resources())
    for i in range(2):
        (path,) = (tmp_path / "runs/.arrays/submission-0").glob(f"4711_{i}_submitted.pkl")
        carried = pickle.loads(path.read_bytes()).function
        assert carried.run_dir.endswith(f"run-{i}") and carried.started["command"] == ["x"]


def test_two_submissions_have_logs_of_their_own(tmp_path, monkeypatch):
    """Job numbers start again at 1 on a new cluster: an old result must not be taken for the new job's."""
    first = submission._new_logs(tmp_path)
    monkeypatch.setattr("launch.submission.os.getpid", lambda: 1)
    assert submission._new_logs(tmp_path) != first


def test_a_dry_run_makes_nothing(task, state, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    text = script(task)
    assert "#SBATCH --gres=gpu:1\n" in text and f"PYTHONPATH={tmp_path}/runs/.code/SNAPSHOT" in text
    assert sorted(tmp_path.rglob("*")) == before


# The guard


@pytest.mark.parametrize("how", ["PENDING", "RUNNING", "COMPLETING", "SUSPENDED", "REQUEUED"])
def test_a_run_that_has_a_job_gets_no_second_one(task, state, how, tmp_path):
    submit(task, Resources())
    state(how)
    with pytest.raises(
        SubmissionError, match=r"job 4711 of 20.+ has this run already: .*default; see it with --follow, end it with"
    ):
        submit(task, Resources())
    assert job_at_work(Path(task.run_dir)).job == "4711" and (tmp_path / "bin/sbatch.count").read_text() == "4711\n"


@pytest.mark.parametrize("how", ["COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"])
def test_a_run_whose_job_is_over_gets_another(task, state, how):
    submit(task, Resources())
    state(how)
    assert job_at_work(Path(task.run_dir)) is None
    assert submit(task, Resources()).job == "4712" == submission_of(Path(task.run_dir)).job


def test_a_job_that_sbatch_started_by_hand_counts_too(task, state):
    run_dir = Path(task.run_dir)
    run_dir.mkdir(parents=True)
    history.update(run_dir, history.begin(run_dir, run_dir), job="99")
    assert job_at_work(run_dir) == Submission("99", "", history.latest(run_dir).started)
    with pytest.raises(SubmissionError, match="job 99 of 20"):
        submit(task, Resources())


def test_of_an_array_none_is_submitted_if_one_has_a_job(task, state, tmp_path):
    tasks = several(task, 3)
    submit(tasks[2], Resources())
    with pytest.raises(SubmissionError, match=r"job 4711 of .*run-2"):
        submit_array(tasks, Resources())
    assert not Path(tasks[0].run_dir).exists()


def test_of_two_commands_at_the_same_moment_one_submits(task, state, tmp_path):
    code = (
        "import sys; from launch.submission import submit; from launch.resources import Resources; from launch.task import Task\n"
        f"print(submit(Task({task.module!r}, {task.values!r}, {task.run_dir!r}, {task.started!r}), Resources()).job)"
    )
    environment = os.environ | {"SLOW": "0.5", "PYTHONPATH": f"{Path(submission.__file__).parents[1]}:{os.environ['PYTHONPATH']}"}
    both = [subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=-1, stderr=-1, text=True) for _ in range(2)]
    said = [process.communicate(timeout=60) for process in both]
    assert sorted(process.returncode for process in both) == [0, 1], said
    assert sorted(out for out, _ in said) == ["", "4711\n"] and any("job 4711 of" in error for _, error in said)


def test_without_locks_it_still_submits(task, state, monkeypatch):
    monkeypatch.setattr(submission.fcntl, "lockf", lambda *_: (_ for _ in ()).throw(OSError(95, "Operation not supported")))
    assert submit(task, Resources()).job == "4711"


def test_a_controller_that_does_not_answer(task, state, on_path):
    """Better no job than two."""
    submit(task, Resources())
    on_path("squeue", "echo 'Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(ValueError, match="squeue: Unable to contact"):
        submit(task, Resources())


# The environment


def test_inside_an_allocation_the_new_job_knows_nothing_of_the_old_one(task, state, tmp_path):
    inside = {
        "SLURM_JOB_ID": "5",
        "SLURM_NTASKS": "9",
        "SLURM_MEM_PER_CPU": "1",
        "SRUN_CPUS_PER_TASK": "2",
        "SLURMD_NODENAME": "n1",
    }
    kept = {"SLURM_CONF": "/etc/slurm.conf", "SBATCH_PARTITION": "gpu", "SBATCH_ACCOUNT": "me", "WANDB_API_KEY": "x"}
    os.environ |= inside | kept
    before = dict(os.environ)
    submit(task, Resources())
    seen = (tmp_path / "bin/sbatch.env").read_text()
    assert not re.search(r"^(SLURM_(?!CONF)|SLURMD_|SRUN_)", seen, re.M)
    assert all(f"{name}={value}\n" in seen for name, value in kept.items())
    assert dict(os.environ) == before


def test_the_environment_comes_back_after_a_refusal(task, state, on_path):
    os.environ |= {"SLURM_JOB_ID": "5", "SLURM_NTASKS": "9"}
    before = dict(os.environ)
    on_path("sbatch", "exit 1")
    with pytest.raises(SubmissionError):
        submit(task, Resources())
    assert dict(os.environ) == before


def test_outside_of_one_the_users_slurm_variables_count(task, state, tmp_path):
    os.environ["SLURM_TIME_FORMAT"] = "relative"
    submit(task, Resources())
    assert "SLURM_TIME_FORMAT=relative\n" in (tmp_path / "bin/sbatch.env").read_text()


# What goes wrong


@pytest.mark.parametrize("act", [submit, batch_script])
def test_without_slurm(task, monkeypatch, tmp_path, act):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SubmissionError, match=r"sbatch and srun are not on the path; .* use --cluster local"):
        act(task, Resources())
    assert not Path(task.run_dir).exists()


@pytest.mark.parametrize("count", [1, 2])
def test_sbatch_refuses(task, state, on_path, capfd, count):
    on_path("sbatch", 'echo "sbatch: error: invalid partition specified: gpuu" >&2; exit 1')
    tasks = several(task, count)
    with pytest.raises(SubmissionError, match="sbatch refused the job: see above; clusters differ in --partition, --account"):
        submit_array(tasks, Resources(partition="gpuu"))
    assert "invalid partition specified: gpuu" in capfd.readouterr().err
    assert submission_of(Path(tasks[0].run_dir)) is None
    on_path("sbatch", SBATCH)
    assert len(submit_array(tasks, Resources())) == count, "the same command, mended, is taken"


def test_what_is_kept_of_a_submission(tmp_path):
    assert submission_of(tmp_path) is None
    (tmp_path / "submission.json").write_text(json.dumps(asdict(Submission("7", "log", "today", ("5",)))))
    assert submission_of(tmp_path) == Submission("7", "log", "today", ("5",))


def test_debug_runs_here_and_opens_a_debugger_on_an_error(task, monkeypatch):
    opened = []
    monkeypatch.setattr("pdb.post_mortem", lambda: opened.append(True))
    monkeypatch.setattr(sys.modules[task.module] if task.module in sys.modules else __import__(task.module), "run", broken)
    with pytest.raises(ZeroDivisionError):
        debug(task, Resources())
    assert opened


def broken(config: object, run_dir: Path) -> None:
    assert run_dir.is_dir()
    raise ZeroDivisionError
