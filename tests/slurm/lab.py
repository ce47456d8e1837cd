"""Real jobs of this project on a real Slurm: how tests start them, wait for them and compare what they leave."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from real_slurm import Cluster

from launch.history import Record, records

ROOT = Path(__file__).resolve().parents[2]
TRAINING = {
    "corpus": "data/scenes",
    "checkpoint": "scratch",
    "width": 64,
    "heads": 2,
    "language_layers": 2,
    "vision_layers": 2,
    "cross_layers": 2,
    "batch_size": 32,
    "steps": 120,
    "save_every": 10,
    "evaluate_every": 60,
    "validation_images": 10,
    "learning_rate": 1e-3,
}
"""A small LXMERT with dropout: some 8 s of steps on one core."""
SMALL = ("--memory-per-gpu-gb", "2", "--cpus-per-gpu", "1", "--minutes", "5")


class Job:
    """One submitted job, and the run folder it works in."""

    def __init__(self, cluster: Cluster, number: str, run_dir: Path, log: Path) -> None:
        self.cluster, self.number, self.run_dir, self._log = cluster, number, run_dir, log

    @property
    def log(self) -> str:
        """What the terminal of process 0 would show, of all attempts."""
        return self._log.read_text() if self._log.exists() else ""

    @property
    def attempts(self) -> list[Record]:
        return records(self.run_dir)

    @property
    def ends(self) -> list[str]:
        """How the attempts ended."""
        return [attempt.how for attempt in self.attempts]

    def wait_for_progress(self, steps: int = 10, attempt: int = 1) -> None:
        """Until the given attempt has this many steps, or blocks, on the disk."""

        def come() -> bool:
            assert self.cluster.state(self.number) != "FAILED", self.log
            return len(self.attempts) >= attempt and self.attempts[attempt - 1].progress >= steps

        self.cluster.wait_for(come, 60, f"{steps} steps of {self.run_dir}")

    def wait_for_steps(self) -> None:
        """Until the first steps are logged: training is under way."""
        metrics = self.run_dir / "metrics.jsonl"
        self.cluster.wait_for(lambda: metrics.exists() and metrics.stat().st_size, 60, f"the first steps of {self.run_dir}")

    def wait_for_end(self, state: str = "COMPLETED", seconds: float = 90) -> None:
        over = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")
        self.cluster.wait_for(lambda: self.cluster.state(self.number) in over, seconds, f"the end of job {self.number}")
        assert self.cluster.state(self.number) == state, self.log

    def processes(self) -> list[int]:
        """Process ids of the Python processes at work on this run, by rank; they are found by their environment."""
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                environment = dict(re.findall(r"([A-Z_]+)=([^\0]*)", (path / "environ").read_text()))
                command = (path / "cmdline").read_bytes().split(b"\0")
            except OSError:  # it has ended
                continue
            if environment.get("SLURM_JOB_ID") == self.number and "SLURM_PROCID" in environment and b"python" in command[0]:
                found[int(environment["SLURM_PROCID"])] = int(path.name)
        return [found[rank] for rank in sorted(found)]


class Lab:
    """A folder in which a user stands, on a cluster."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder

    def job(self, name: str, *flags: object) -> subprocess.CompletedProcess[str]:
        """Start a job file, as a user does."""
        return self.cluster.run(sys.executable, ROOT / "jobs" / f"{name}.py", *flags, cwd=self.folder)

    def train(self, name: str, *flags: object, nodes: int = 1, processes: int = 1) -> Job:
        """Submit the training; `processes` are those of a node."""
        place = ("--nodes", nodes, "--gpus-per-node", processes)
        return self.submitted("lxmert_finetune", name, "--config", self.folder / "training.yaml", *place, *flags)

    def submitted(self, job: str, name: str, *flags: object) -> Job:
        done = self.job(job, "--name", name, *SMALL, *flags)
        assert done.returncode == 0, done.stderr
        number, log = re.search(r"^job (\d+), log: (.*)$", done.stdout, re.M).groups()
        return Job(self.cluster, number, self.folder / "runs" / job / name, Path(log))

    def batch(self, script: str, name: str, *flags: object, options: tuple[object, ...] = ()) -> Job:
        """sbatch one of the scripts in slurm/."""
        number = self.cluster.ask(
            "sbatch",
            "--parsable",
            "--mem=2G",
            "--cpus-per-task=1",
            *options,
            f"slurm/{script}.sh",
            "--name",
            name,
            *flags,
            cwd=self.folder,
        )
        return Job(self.cluster, number, self.folder / "runs" / script / name, self.folder / f"{script}-{number}.log")


def digests(folder: Path) -> dict[str, str]:
    """Files of a folder by their content."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def outcome(run_dir: Path) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """What must be the same, bit for bit, however often a training was interrupted: its last state and its history."""
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        row.pop("samples_per_second", None)
    return digests(run_dir / "checkpoints" / "last"), rows
