"""The ways to start a job lead to the same results: submitted, as a batch script, from inside an allocation."""

from __future__ import annotations

import resource
import sys

import pytest
from lab import ROOT, SMALL, Job, outcome

pytestmark = pytest.mark.slurm


def test_a_batch_script(lab, unbroken):
    """Its flags are passed on, sbatch's options win over its lines, and after a preemption it goes on like a submitted job."""
    options = ("--partition=spot", "--nodes=2", "--ntasks-per-node=1", "--export=NONE")
    job = lab.batch("lxmert_finetune", "script", "--config", "training.yaml", options=options)
    job.wait_for_progress()
    lab.cluster.preempt(job.number)
    job.wait_for_end()
    assert lab.cluster.details(job.number)["NumNodes"] == "2"
    assert job.ends == ["preempted", "finished"]
    assert outcome(job.run_dir) == unbroken[2]


def test_from_inside_an_allocation(lab, unbroken):
    """The new job gets its own nodes and tasks, not those of the job it is started from."""
    command = f"cd '{lab.folder}' && '{sys.executable}' '{ROOT}/jobs/lxmert_finetune.py' --config training.yaml --name inside --nodes 2 {' '.join(SMALL)}"
    outer = lab.cluster.submit("--ntasks=3", "--mem=200", command=command, cwd=lab.folder)
    lab.cluster.wait_for_state(outer, "COMPLETED", 60)
    printed = (lab.folder / f"slurm-{outer}.out").read_text()
    number = printed.split("\njob ")[1].split(",")[0]
    job = Job(lab.cluster, number, lab.folder / "runs/lxmert_finetune/inside", lab.folder / "none")
    job.wait_for_end()
    assert lab.cluster.details(number)["NumNodes"] == "2"
    assert outcome(job.run_dir) == unbroken[2]


def test_submitting_is_quick(lab):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    lab.train("quick", "--partition", "gpu")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1


def test_what_would_be_submitted(lab):
    done = lab.job(
        "lxmert_finetune",
        "--config",
        "training.yaml",
        "--name",
        "dry",
        "--nodes",
        "2",
        "--gpus-per-node",
        "3",
        *SMALL,
        "--dry-run",
    )
    assert done.returncode == 0 and not (lab.folder / "runs/lxmert_finetune/dry").exists()
    assert lab.cluster.run("sbatch", "--test-only", "/dev/stdin", cwd=lab.folder).returncode  # no script
    (lab.folder / "dry.sh").write_text(done.stdout)
    tried = lab.cluster.run("sbatch", "--test-only", "dry.sh", cwd=lab.folder)
    assert tried.returncode == 0 and "using 6 processors on nodes n[1-2]" in tried.stderr
