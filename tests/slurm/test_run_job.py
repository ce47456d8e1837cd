"""The batch scripts, run with a srun and a scontrol of the test's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from launch import history

ROOT = Path(__file__).resolve().parents[2]
SRUN = (
    'echo "srun $*" >>"$LOG"; [ -z "$CODE" ] || exit $CODE; while [[ $1 == --* ]]; do shift; done; '
    'SLURM_STEP_ID=0 SLURM_PROCID=0 SLURM_NTASKS=1 SLURM_LOCALID=0 "$@"'
)
"""With CODE the processes die at once."""
SCONTROL = (
    'echo "scontrol $*" >>"$LOG"; if [ "$1" = show ]; then echo "JobState=RUNNING PreemptTime=$PREEMPTED"; else kill $PPID; fi'
)
"""Of a job that is queued again Slurm ends the batch script."""
SMALL = ("--train", "2", "--val", "2", "--test", "2", "--size", "32", "--folder", "my data/scenes")
REQUEUED = "scontrol requeue 7\n"


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
    done, asked = batch(checkout, *SMALL, "--name", "x")
    assert done.returncode == 0, done.stderr
    assert (
        asked
        == f"srun --kill-on-bad-exit=1 --wait=0 python jobs/make_scenes.py --cluster allocation {' '.join(SMALL)} --name x\n"
    )
    assert (checkout / "my data/scenes/corpus.json").exists()
    assert (checkout / "runs/make_scenes/x/config.yaml").exists()


def test_the_exit_code_is_the_jobs(checkout):
    done, asked = batch(checkout, "--train", "0")
    assert done.returncode == 1 and "error: " in done.stderr
    assert "requeue" not in asked


def test_a_mistake_in_a_preempted_job(checkout):
    """A task that ends early in the grace time would otherwise make the job a failed one."""
    done, asked = batch(checkout, "--train", "0", PREEMPTED="2026-11-21T09:00:00")
    assert done.returncode == -15 and asked.endswith(f"scontrol show job 7\n{REQUEUED}")


def test_killed_again_and_again(checkout):
    """It is queued again, until that is in vain."""
    assert batch(checkout, *SMALL)[0].returncode == 0
    (run_dir,) = (checkout / "runs/make_scenes").iterdir()
    history.update(run_dir, history.records(run_dir)[0], how="")  # as if its node had been lost
    for restart in range(1, history.MOST_FUTILE):
        done, asked = batch(checkout, *SMALL, CODE="137", SLURM_RESTART_COUNT=str(restart))
        assert done.returncode == -15 and asked.endswith(REQUEUED) and asked.count(REQUEUED) == restart, done.stderr
    done, last = batch(checkout, *SMALL, CODE="137", SLURM_RESTART_COUNT="9")
    assert done.returncode == 137 and last.count(REQUEUED) == restart
    expected = [("7", ""), *[("7", "crashed")] * history.MOST_FUTILE]
    assert [(record.job, record.how) for record in history.records(run_dir)] == expected


def test_what_a_lost_node_still_runs_lets_the_job_be(checkout):
    """It has begun again elsewhere."""
    done, asked = batch(checkout, *SMALL, SLURM_RESTART_COUNT="1")
    assert done.returncode == 0
    (run_dir,) = (checkout / "runs/make_scenes").iterdir()
    before = history.latest(run_dir)
    (checkout / "bin/srun").write_text("#!/bin/bash\nexit 143\n")
    done, asked = batch(checkout, *SMALL, SLURM_RESTART_COUNT="0")
    assert done.returncode == 143 and REQUEUED not in asked and history.latest(run_dir) == before


def test_submitted_from_elsewhere(checkout, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    done, asked = batch(checkout, SLURM_SUBMIT_DIR=str(elsewhere))
    assert done.returncode == 2 and not asked
    assert done.stderr == "submit from the checkout, or set MISRANK_ROOT to it\n"
    done, _ = batch(checkout, "--help", SLURM_SUBMIT_DIR=str(elsewhere), MISRANK_ROOT=str(checkout))
    assert done.returncode == 0 and "usage: jobs/make_scenes.py" in done.stdout
