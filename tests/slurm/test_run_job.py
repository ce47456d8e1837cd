"""The batch scripts, run with a srun and a scontrol of the test's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SRUN = 'echo "srun $*" >>"$LOG"; while [[ $1 == --* ]]; do shift; done; SLURM_STEP_ID=0 SLURM_PROCID=0 SLURM_NTASKS=1 SLURM_LOCALID=0 "$@"'
SCONTROL = 'echo "scontrol $*" >>"$LOG"; [ "$1" = show ] && echo "JobState=RUNNING PreemptTime=$PREEMPTED"'


@pytest.fixture
def checkout(tmp_path) -> Path:
    """What the scripts see of the checkout, and the programs of a Slurm node."""
    for name in ("slurm", "jobs"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "bin").mkdir()
    for name, script in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


def batch(checkout: Path, *arguments: str, **environment: str) -> tuple[subprocess.CompletedProcess[str], str]:
    """Run slurm/make_scenes.sh as Slurm would, from a copy elsewhere: the ended process and what was asked of Slurm."""
    spooled = checkout / "slurm_script"
    spooled.write_text((ROOT / "slurm/make_scenes.sh").read_text())
    path = f"{checkout / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    given = {"PATH": path, "LOG": str(checkout / "log"), "SLURM_SUBMIT_DIR": str(checkout), "SLURM_JOB_ID": "7"}
    given |= {"SLURM_CPUS_PER_TASK": "4", "SLURM_EXPORT_ENV": "NONE", "PREEMPTED": "None", **environment}
    done = subprocess.run(
        ["bash", spooled, *arguments], cwd="/", env=os.environ | given, capture_output=True, text=True, check=False
    )
    log = checkout / "log"
    return done, log.read_text() if log.exists() else ""


def test_a_script_runs_its_job_with_the_flags_it_was_given(checkout):
    small = ["--train", "2", "--val", "2", "--test", "2", "--size", "32", "--folder", "my data/scenes"]
    done, asked = batch(checkout, *small, "--name", "x")
    assert done.returncode == 0, done.stderr
    assert asked == f"srun --kill-on-bad-exit=1 python jobs/make_scenes.py --cluster allocation {' '.join(small)} --name x\n"
    assert (checkout / "my data/scenes/corpus.json").exists()
    assert (checkout / "runs/make_scenes/x/config.yaml").exists()


def test_the_exit_code_is_the_jobs(checkout):
    done, asked = batch(checkout, "--train", "0")
    assert done.returncode == 1 and "error: " in done.stderr
    assert "requeue" not in asked


def test_a_preempted_job_is_queued_again(checkout):
    """A task that ends early in the grace time would otherwise make the job a failed one."""
    done, asked = batch(checkout, "--train", "0", PREEMPTED="2026-11-21T09:00:00")
    assert done.returncode == 1 and asked.endswith("scontrol show job 7\nscontrol requeue 7\n")


def test_submitted_from_elsewhere(checkout, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    done, asked = batch(checkout, SLURM_SUBMIT_DIR=str(elsewhere))
    assert done.returncode == 2 and not asked
    assert done.stderr == "submit from the checkout, or set MISRANK_ROOT to it\n"
    done, _ = batch(checkout, "--help", SLURM_SUBMIT_DIR=str(elsewhere), MISRANK_ROOT=str(checkout))
    assert done.returncode == 0 and "usage: jobs/make_scenes.py" in done.stdout
