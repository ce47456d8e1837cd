"""Jobs that meet: in one run folder, on one node, after another one; and the terminal that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from lab import ROOT, SMALL, outcome

pytestmark = pytest.mark.slurm


def test_two_jobs_for_one_run_folder(lab, unbroken):
    """The second says who is at work, whichever way it came, and the first goes on."""
    job = lab.train("twice")
    job.wait_for_progress()
    place = ("--config", "training.yaml", "--name", "twice")
    refused = lab.job("lxmert_finetune", *place, *SMALL)
    assert refused.returncode == 1 and f"job {job.number} of " in refused.stderr and "has this run already" in refused.stderr
    second = lab.batch("lxmert_finetune", "twice", "--config", "training.yaml", options=("--gres=none",))
    second.wait_for_end("FAILED")
    assert f"another process is at work here (job {job.number} on n" in second.log
    here = lab.job("lxmert_finetune", *place, "--cluster", "local")
    assert here.returncode == 1 and f"(job {job.number} on n" in here.stderr
    job.wait_for_end()
    assert job.ends == ["finished"]
    assert outcome(job.run_dir) == unbroken[1]


def test_two_jobs_on_one_node(lab, unbroken):
    """Each finds a free port of its own."""
    jobs = [lab.train(name, "--exclude", "n2", processes=2) for name in ("neighbour-a", "neighbour-b")]
    for job in jobs:
        job.wait_for_end()
        assert outcome(job.run_dir) == unbroken[2]


def test_another_number_of_processes(lab, unbroken):
    """The same global batches go on: equal to rounding. A number that does not divide them is refused."""
    job = lab.train("shrinks", nodes=2)
    job.wait_for_progress(20)
    lab.cluster.ask("scancel", job.number)
    job.wait_for_end("CANCELLED")
    refused = lab.train("shrinks", processes=3)
    refused.wait_for_end("FAILED")
    assert "--batch-size 32: must be a multiple of 3 processes x 1 accumulation steps" in refused.log
    again = lab.train("shrinks")
    again.wait_for_end()
    assert again.attempts[-1].began_at == job.attempts[0].progress
    rows, expected = outcome(job.run_dir)[1], unbroken[1][1]
    assert [row["step"] for row in rows] == [row["step"] for row in expected]
    assert rows[-2]["loss"] == pytest.approx(expected[-2]["loss"], abs=0.02)


def test_the_terminal_goes_away(lab, unbroken):
    """Ctrl-C ends the following only."""
    follow = [
        sys.executable,
        ROOT / "jobs/lxmert_finetune.py",
        "--config",
        "training.yaml",
        "--name",
        "followed",
        *SMALL,
        "--follow",
    ]
    here = ["env", "--default-signal=INT", *follow]  # what starts the tests with & has it ignored
    with subprocess.Popen(here, cwd=lab.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as terminal:
        number = next(line.split()[1].strip(",:") for line in terminal.stdout if line.startswith("job "))
        run_dir = lab.folder / "runs/lxmert_finetune/followed"
        lab.cluster.wait_for(lambda: (run_dir / "attempts/0001.json").exists(), 60, "the start")
        os.kill(terminal.pid, signal.SIGINT)
        assert terminal.wait(10) == 130
        assert f"job {number} lives on" in terminal.stderr.read()
    again = lab.cluster.run(*follow, cwd=lab.folder, timeout=90)
    assert again.returncode == 0, again.stderr
    assert f"job {number}, log: " in again.stdout and f"[job {number}: COMPLETED" in again.stdout
    assert outcome(run_dir) == unbroken[1]


def test_a_loss_that_is_not_finite(lab):
    """It would come again: the job ends, and --follow ends with its exit code and says why. Here without accounting."""
    with lab.cluster.without_sacct():
        done = lab.job(
            "lxmert_finetune", "--config", "training.yaml", "--name", "nan", *SMALL, "--learning-rate", "1e30", "--follow"
        )
    assert done.returncode == 1
    assert "TrainingError: " in done.stderr and " at step " in done.stderr and "lower --learning-rate" in done.stderr
    assert "ended as FAILED" in done.stderr and "\nlog: " in done.stderr


def test_what_waits_for_a_failed_job_is_cancelled(lab):
    """Else it would wait for ever."""
    (lab.folder / "stages.yaml").write_text(
        "train: {job: lxmert_finetune, options: {corpus: data/nowhere}}\n"
        "rank: {job: lxmert_predict, options: {corpus: data/scenes, checkpoint: '{train}/checkpoints/best'}}\n"
        "report: {job: error_report, options: {rankings: ['{rank}/ranking-test.h5']}}\n"
    )
    done = lab.cluster.run(
        sys.executable,
        ROOT / "jobs/pipeline.py",
        "stages.yaml",
        "--name",
        "doomed",
        *SMALL,
        "--follow",
        cwd=lab.folder,
        timeout=90,
    )
    assert done.returncode == 1
    assert "data/nowhere" in done.stdout + done.stderr and "cancelled" in (done.stdout + done.stderr).lower()
    assert not lab.cluster.ask("squeue", "--noheader")
