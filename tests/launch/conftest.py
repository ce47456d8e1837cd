"""An environment of the test's own, and a job that does as it is told."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import attempt_process
import pytest

from launch.run_folder import make_run_folder

PROBE = '''
from __future__ import annotations
import os, time
from dataclasses import dataclass
from pathlib import Path
from launch.resources import Resources

@dataclass(frozen=True)
class Config:
    what: str = "fine"
    """What each process does, by rank, separated by commas."""

RESOURCES = Resources()

def run(config: Config, run_dir: Path) -> None:
    from corpora.progress import progress  # the project's, wherever the user stands
    rank = os.environ.get("RANK", "0")
    seen = {key: os.environ.get(key, "") for key in ("WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "CUDA_VISIBLE_DEVICES")}
    (run_dir / f"rank-{rank}.txt").write_text(repr(seen))
    print(f"this is rank {rank}", flush=True)
    what = config.what.split(",")[int(rank)]
    if what == "bug":
        raise KeyError("cause")
    if what == "echo":
        time.sleep(1)
        raise RuntimeError("Connection closed by peer")
    if what == "mistake":
        raise ValueError("the same everywhere")
    if what == "kill":
        os.kill(os.getpid(), 9)
    if what == "sleep":
        time.sleep(100)
'''


@pytest.fixture(autouse=True)
def own_environment():
    """Whatever a test or the code it calls does to the environment ends with the test."""
    with mock.patch.dict(os.environ):
        for key in [
            key for key in os.environ if key.startswith(("SLURM_", "SUBMITIT_")) or key in ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        ]:
            del os.environ[key]
        yield


@pytest.fixture
def probe(tmp_path, monkeypatch) -> str:
    """The name of a job module that new processes can import; its option `what` says what each rank does."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules/probe_job.py").write_text(PROBE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    return "probe_job"


@pytest.fixture
def on_path(tmp_path, monkeypatch):
    """on_path(name, script): put a program of this name in front of the PATH."""

    def put(name: str, script: str) -> Path:
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/bash\n{script}\n")
        program.chmod(0o755)
        if str(program.parent) not in os.environ["PATH"]:
            monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        return program

    return put


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run folder in which nothing was made yet."""
    make_run_folder(tmp_path / "runs/job/x", {})
    return tmp_path / "runs/job/x"


@pytest.fixture
def begin(run_dir: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """begin(body, rank, minutes of patience): a process that takes part in an attempt, once it has said so much."""
    started = []
    (run_dir / "metrics.jsonl").touch()  # or a first start would take the folder away with it

    def start(body: str, rank: int = 0, patience: float = 30.0, until: str = "at work") -> subprocess.Popen[str]:
        process = attempt_process.start(run_dir, body, rank, patience)
        started.append(process)
        if until:
            line = process.stdout.readline()
            assert line.strip() == until, line + process.stderr.read()
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def in_slurm(on_path) -> Callable[..., Path]:
    """in_slurm(**fields): this is job 7, and scontrol says this of it; gives where requeues are noted."""

    def put(**fields: str) -> Path:
        os.environ |= {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "1"}
        shown = " ".join(f"{key}={value}" for key, value in {"JobState": "RUNNING", "PreemptTime": "None", **fields}.items())
        script = f'if [ "$1" = requeue ]; then echo "$@" >>"$0.requeues"; else echo "JobId=7 {shown}"; fi'
        on_path("squeue", 'echo "7|RUNNING|None|n1"')
        return on_path("scontrol", script).with_name("scontrol.requeues")

    return put
