"""What submitit carries, and how it runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import cloudpickle
import pytest

from launch import history
from launch.attempt import current
from launch.resources import Resources
from launch.run_folder import run_folder_of
from launch.task import Task


@pytest.fixture
def task(probe, tmp_path, monkeypatch) -> Task:
    monkeypatch.chdir(tmp_path)
    started = {"command": ["x"], "resources": asdict(Resources())}
    return Task(probe, {"what": "fine"}, str(tmp_path / "runs/probe_job/default"), started)


def test_it_is_names_and_plain_values_and_runs_anywhere(task, tmp_path):
    pickled = cloudpickle.dumps(task)
    assert len(pickled) < 1000 and b"launch.task" in pickled  # by reference: a requeued job may run mended code
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    code = "import pickle, sys; pickle.load(sys.stdin.buffer)()"
    path = f"{os.environ['PYTHONPATH']}:{Path(__file__).resolve().parents[2]}"
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-c", code], input=pickled, cwd=elsewhere, capture_output=True, check=True, env=environment
    )
    assert done.stdout == b"this is rank 0\n"
    run_dir = Path(task.run_dir)
    assert (run_dir / "config.yaml").read_text() == "what: fine\n"
    assert json.loads((run_dir / "environment.json").read_text())["command"] == ["x"]
    assert (run_dir / "rank-0.txt").exists()
    assert [(record.number, record.how) for record in history.records(run_dir)] == [(1, "finished")]


def test_a_slurm_job_is_remembered(task, monkeypatch):
    """By its number the end of the batch script finds the run."""
    os.environ |= {"SLURM_JOB_ID": "7", "SUBMITIT_FOLDER": str(Path(task.run_dir) / "logs/now")}
    task.run()
    assert run_folder_of("7") == Path(task.run_dir) and run_folder_of("8") is None
    (record,) = history.records(Path(task.run_dir))
    assert (record.job, record.logs) == ("7", str(Path(task.run_dir) / "logs/now"))


def test_a_failure_is_in_the_record_and_among_the_logs(task, monkeypatch):
    Path(task.run_dir).mkdir(parents=True)
    (Path(task.run_dir) / "metrics.json").touch()
    with pytest.raises(SystemExit, match="KeyError: 'cause'"):
        Task(task.module, {"what": "bug"}, task.run_dir, task.started)()
    (record,) = history.records(Path(task.run_dir))
    assert (record.how, record.message) == ("failed", "KeyError: 'cause'")
    assert (Path(task.run_dir) / "logs/error-0.txt").read_text().endswith("KeyError: 'cause'\n")
    task()
    assert not (Path(task.run_dir) / "logs/error-0.txt").exists(), "what an earlier start left would mislead"


def test_the_job_is_part_of_the_attempt(task, monkeypatch):
    seen = []
    monkeypatch.setattr(
        sys.modules.get(task.module) or __import__(task.module), "run", lambda *_: seen.append(current()._patience)
    )
    Task(task.module, task.values, task.run_dir, {"resources": {"stalled_minutes": 2.5}}).run()
    assert seen == [150.0]


def test_a_job_without_gpus_is_one_process(task, monkeypatch, probe):
    module = __import__(probe)
    monkeypatch.setattr(module, "RESOURCES", Resources(gpus_per_node=0))
    os.environ |= {"WORLD_SIZE": "2", "RANK": "1"}
    task.run()
    assert not Path(task.run_dir).exists()
    for name in ("WORLD_SIZE", "RANK"):
        del os.environ[name]
    task.run()
    assert (Path(task.run_dir) / "rank-0.txt").exists()


def test_only_the_main_process_begins_an_attempt(task):
    os.environ |= {"WORLD_SIZE": "2", "RANK": "1"}  # torchrun's
    Path(task.run_dir).mkdir(parents=True)
    replace(task, values={"what": "bug,fine"}).run()
    assert [path.name for path in Path(task.run_dir).iterdir()] == ["rank-1.txt"]
