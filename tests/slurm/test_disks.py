"""Disks that are full or read-only, files that are damaged or left over."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from lab import ROOT, Lab, digests, outcome
from real_processes import small_disk

pytestmark = pytest.mark.slurm


def fill(folder: Path, but: int) -> Path:
    """Leave only so many bytes free."""
    ballast = folder / "ballast"
    with ballast.open("wb") as file:
        file.write(b"\0" * (shutil.disk_usage(folder).free - but))
    return ballast


def settle(lab: Lab, folder: Path) -> Lab:
    """A place like the lab's, elsewhere."""
    for name in ("slurm", "jobs", ".venv", "data", "training.yaml"):
        (folder / name).symlink_to(lab.folder / name)
    return Lab(lab.cluster, folder)


def test_the_disk_is_full_when_a_checkpoint_is_written(lab, unbroken, tmp_path):
    with small_disk(tmp_path / "disk", 40) as disk:
        there = settle(lab, disk)
        job = there.train("full")
        job.wait_for_progress()
        ballast = fill(disk, 100_000)
        job.wait_for_end("FAILED")
        assert (
            "no space left on the disk while writing" in job.log and "free some space and run the same command again" in job.log
        )
        assert lab.cluster.details(job.number)["Restarts"] == "0"
        ballast.unlink()
        again = there.train("full")
        again.wait_for_end()
        assert again.attempts[1].began_at >= 10
        assert outcome(job.run_dir) == unbroken[1]


def test_the_disk_is_full_when_a_ranking_is_written(lab, ranked, tmp_path):
    checkpoint, whole = ranked
    with small_disk(tmp_path / "disk", 12) as disk:
        there = settle(lab, disk)
        ballast = fill(disk, 2_000_000)  # the code that is submitted takes one of them
        job = there.submitted("lxmert_predict", "full", *rank(checkpoint))
        lab.cluster.wait_for(lambda: job.attempts, 30, "the start")
        rest = disk / "more"
        rest.write_bytes(b"\0" * (shutil.disk_usage(disk).free - 30_000))
        job.wait_for_end("FAILED")
        assert "no space left on the disk" in job.log and not (job.run_dir / "ranking-test.h5").exists()
        ballast.unlink()
        again = there.submitted("lxmert_predict", "full", *rank(checkpoint))
        again.wait_for_end()
        assert digests(job.run_dir)["ranking-test.h5"] == whole


@pytest.fixture(scope="session")
def ranked(place, unbroken) -> tuple[Path, str]:
    """A checkpoint, and the digest of the ranking file that an unbroken job makes with it."""
    checkpoint = place / "runs/lxmert_finetune/unbroken-1/checkpoints/best"
    command = [sys.executable, ROOT / "jobs/lxmert_predict.py", *rank(checkpoint), "--name", "unbroken", "--cluster", "local"]
    subprocess.run(command, cwd=place, check=True, capture_output=True)
    return checkpoint, digests(place / "runs/lxmert_predict/unbroken")["ranking-test.h5"]


def rank(checkpoint: Path) -> tuple[object, ...]:
    return "--corpus", "data/scenes", "--checkpoint", checkpoint, "--pair-batch", "64"


def test_a_checkpoint_is_damaged(lab, unbroken):
    """One bit of the newest one: found by its checksum, and the one before it is used. What a dead job left is cleared away."""
    job = lab.train("damaged")
    job.wait_for_progress(20)
    lab.cluster.ask("scancel", job.number)
    job.wait_for_end("CANCELLED")
    last = (job.run_dir / "checkpoints" / "last").resolve()
    content = bytearray((last / "model.safetensors").read_bytes())
    content[len(content) // 2] ^= 1
    (last / "model.safetensors").write_bytes(content)
    (job.run_dir / "checkpoints" / ".step-00000099.part").mkdir()
    (job.run_dir / "metrics.jsonl.part").write_text('{"step": 3, "lo')
    again = lab.train("damaged")
    again.wait_for_end()
    assert f"checkpoint {last} is damaged (model.safetensors has changed or is cut short); trying the one before it" in again.log
    assert outcome(job.run_dir) == unbroken[1]
    assert not list(job.run_dir.rglob("*.part"))


def test_a_block_of_a_ranking_is_damaged(lab, ranked):
    checkpoint, whole = ranked
    job = lab.submitted("lxmert_predict", "damaged", *rank(checkpoint))
    lab.cluster.wait_for(lambda: list(job.run_dir.glob("*.part/*.npy")), 60, "the first block")
    os.kill(job.processes()[0], signal.SIGSTOP)
    lab.cluster.ask("scancel", job.number)
    job.wait_for_end("CANCELLED")
    block = sorted(job.run_dir.glob("*.part/*.npy"))[0]
    block.write_bytes(block.read_bytes()[:-7])
    again = lab.submitted("lxmert_predict", "damaged", *rank(checkpoint))
    again.wait_for_end()
    assert f"{block}: damaged, it will be scored again" in again.log
    assert digests(job.run_dir)["ranking-test.h5"] == whole


def test_a_folder_for_logs_that_cannot_be_written(lab, tmp_path):
    """Slurm would end such a job at once and say nothing anywhere."""
    with small_disk(tmp_path / "disk", 10) as disk:
        there = settle(lab, disk)
        with read_only(disk):
            done = there.job("lxmert_finetune", "--config", "training.yaml", "--name", "x")
            assert done.returncode == 1
            assert done.stderr.startswith(f"error: {disk}/runs") and "Read-only file system" in done.stderr
        assert not lab.cluster.ask("squeue", "--noheader")


@contextmanager
def read_only(disk: Path):
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
