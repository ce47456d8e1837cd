"""The five ways in, and how a job file ends."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobs import make_scenes
from launch import entry
from launch.options import Command, Launch
from launch.resources import Resources
from launch.submission import Submission

JOB = Path(__file__).resolve().parents[2] / "jobs" / "make_scenes.py"
RUN = make_scenes.run


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("shutil.which", lambda name: None)


def start(*arguments: str) -> int | str | None:
    """Start make_scenes as the command line would, in this process; its exit code or last message."""
    sys.argv = ["jobs/make_scenes.py", *arguments]
    try:
        entry.main(make_scenes.Config, make_scenes.RESOURCES, RUN)
    except SystemExit as end:
        return end.code
    return 0


@pytest.fixture(autouse=True)
def own_arguments(monkeypatch):
    monkeypatch.setattr(sys, "argv", sys.argv)


def failing(monkeypatch, error: BaseException) -> None:
    def run(config: make_scenes.Config, run_dir: Path) -> None:
        raise error

    monkeypatch.setattr(make_scenes, "run", run)


# The ways in


@pytest.mark.parametrize(
    ("asked", "environment", "sbatch", "cluster"),
    [
        ("auto", {}, False, "local"),
        ("auto", {}, True, "slurm"),
        ("auto", {"SLURM_JOB_ID": "1", "SLURM_STEP_ID": "0", "SLURM_PROCID": "0"}, True, "allocation"),  # srun
        ("auto", {"SLURM_JOB_ID": "1"}, True, "slurm"),  # a shell of salloc
        ("auto", {"WORLD_SIZE": "2", "RANK": "1"}, True, "allocation"),  # torchrun
        ("local", {}, True, "local"),
        ("debug", {}, True, "debug"),
        ("slurm", {}, False, "slurm"),
        ("allocation", {}, True, "allocation"),
    ],
)
def test_where_it_runs(monkeypatch, capsys, asked, environment, sbatch, cluster):
    os.environ |= environment
    monkeypatch.setattr("launch.slurm.is_set_up", lambda: sbatch)
    assert entry._cluster(Command(None, Launch(cluster=asked), Resources())) == cluster
    assert ("no Slurm is set up here: running on this machine" in capsys.readouterr().out) == (
        asked == "auto" and cluster == "local"
    )


@pytest.mark.parametrize(
    ("cluster", "resources", "way"),
    [
        ("allocation", Resources(gpus_per_node=4, nodes=2), "here"),
        ("local", Resources(), "here"),
        ("local", Resources(gpus_per_node=0), "here"),
        ("local", Resources(gpus_per_node=2), "processes"),
        ("slurm", Resources(), "slurm"),
        ("debug", Resources(), "debug"),
    ],
)
def test_how_it_starts(monkeypatch, tmp_path, cluster, resources, way):
    taken = []

    class Task(entry.Task):
        def __call__(self) -> None:
            taken.append("here")

    monkeypatch.setattr(entry, "run_processes", lambda task, resources: taken.append("processes"))
    monkeypatch.setattr(entry, "submit", lambda task, resources: taken.append("slurm") or Submission("7", "log", "today"))
    monkeypatch.setattr(entry, "debug", lambda task, resources: taken.append("debug"))
    entry._start(Task("jobs.x", {}, str(tmp_path), {}), cluster, resources, Launch())
    assert taken == [way]


@pytest.fixture
def followed(monkeypatch) -> list[tuple[object, ...]]:
    """What was submitted and shown; the job that is shown ends with code 3."""
    seen: list[tuple[object, ...]] = []
    monkeypatch.setattr(entry, "submit", lambda task, resources: seen.append(("submit",)) or Submission("7", "log", "today"))
    monkeypatch.setattr(entry, "follow", lambda run_dir, submission: seen.append(("follow", run_dir, submission.job)) or 3)
    return seen


def test_following_submits_and_ends_with_the_jobs_code(monkeypatch, followed, tmp_path, capsys):
    monkeypatch.setattr(entry, "job_at_work", lambda run_dir: None)
    assert start("--cluster", "slurm", "--follow", "--name", "x") == 3
    run_dir = tmp_path / "runs/make_scenes/x"
    assert followed == [("submit",), ("follow", run_dir, "7")]
    assert capsys.readouterr().out == f"run folder: {run_dir}\njob 7, log: log\n"


def test_following_shows_the_job_that_is_there(monkeypatch, followed, tmp_path):
    monkeypatch.setattr(entry, "job_at_work", lambda run_dir: Submission("6", "log", "today"))
    assert start("--cluster", "slurm", "--follow", "--name", "x") == 3
    assert followed == [("follow", tmp_path / "runs/make_scenes/x", "6")]


def test_without_following_it_submits_and_ends(followed):
    assert start("--cluster", "slurm") == 0 and followed == [("submit",)]


def test_a_dry_run_prints_the_script(monkeypatch, followed, capsys):
    monkeypatch.setattr(entry, "batch_script", lambda task, resources: f"#!/bin/bash\n# {task.name} {resources.minutes}")
    assert start("--cluster", "slurm", "--dry-run", "--minutes", "7") == 0
    assert capsys.readouterr().out == "#!/bin/bash\n# make_scenes 7\n" and followed == []
    assert not Path("runs").exists()


@pytest.mark.parametrize("cluster", ["auto", "local", "debug", "allocation"])
def test_a_dry_run_runs_nowhere(cluster):
    """Where there is no Slurm, it must not start the job."""
    assert "--dry-run: prints what Slurm would get, but this would run on --cluster" in str(
        start("--cluster", cluster, "--dry-run")
    )
    assert not Path("runs").exists()


def test_several_nodes_are_no_machine_of_ones_own():
    assert "--nodes 2: this machine is one node" in str(start("--cluster", "local", "--nodes", "2"))
    assert not Path("runs").exists()


def test_only_the_first_rank_names_the_run_folder(monkeypatch, capsys):
    failing(monkeypatch, ValueError("x"))
    os.environ |= {"WORLD_SIZE": "2", "RANK": "1"}
    start()
    assert "run folder" not in capsys.readouterr().out


# What is left


def test_a_job_that_runs(capsys, tmp_path):
    small = ("--folder", "made", "--train", "4", "--val", "2", "--test", "2", "--size", "32", "--name", "small")
    assert start(*small) == 0
    run_dir = tmp_path / "runs/make_scenes/small"
    assert f"run folder: {run_dir}\n" in capsys.readouterr().out
    made = {path.name for path in run_dir.iterdir()} - {"code.diff"}  # there while someone edits the code
    assert made == {".lock", "attempts", "config.yaml", "environment.json", "logs"}
    assert start("--config", "runs/make_scenes/small/config.yaml", "--name", "small") == 0
    assert "stands already" in capsys.readouterr().out
    assert "made with other options (train was 4 and is 5)" in str(start(*small, "--train", "5"))


def test_a_mistake_in_a_first_start_leaves_no_folder(monkeypatch):
    failing(monkeypatch, ValueError("--folder x: no"))
    assert start() == "error: --folder x: no"
    assert not list(Path("runs/make_scenes").iterdir())


def test_a_mistake_later_keeps_folder_and_traceback(monkeypatch, tmp_path):
    failing(monkeypatch, ValueError("no"))
    run_dir = tmp_path / "runs/make_scenes/default"
    run_dir.mkdir(parents=True)
    (run_dir / "metrics.json").write_text("{}")
    assert start() == f"error: no\n(traceback: {run_dir}/logs/error-0.txt)"
    assert (run_dir / "logs/error-0.txt").exists()


def test_a_bug_shows_its_traceback(monkeypatch):
    failing(monkeypatch, KeyError("bug"))
    assert str(start()).startswith("Traceback") and str(start()).endswith("KeyError: 'bug'")


def test_a_full_disk(monkeypatch):
    failing(monkeypatch, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert "free some space and run the same command again" in str(start())


def test_control_c(monkeypatch, capsys):
    failing(monkeypatch, KeyboardInterrupt())
    assert start() == 130
    assert capsys.readouterr().err == "\nstopped; the same command goes on where it was\n"


def test_a_mistake_on_the_command_line(capsys):
    assert "unknown option 'sed' (did you mean 'seed'?)" in str(refused_file("sed: 1"))
    assert start("--sed", "1") == 2 and "--seed" in capsys.readouterr().err
    assert "use letters, digits" in str(start("--name", "a/b"))
    assert not Path("runs").exists()


def refused_file(text: str) -> int | str | None:
    Path("options.yaml").write_text(text)
    return start("--config", "options.yaml")


@pytest.mark.parametrize(("unbuffered", "code"), [("1", 1), ("", 0)])
def test_a_reader_that_goes_away(unbuffered, code):
    """--help | head"""
    read, write = os.pipe()
    os.close(read)
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    help_ = [sys.executable, str(JOB), "--help"]
    done = subprocess.run(help_, stdout=write, stderr=subprocess.PIPE, text=True, check=False, env=environment)
    os.close(write)
    assert done.returncode == code and done.stderr == ""
