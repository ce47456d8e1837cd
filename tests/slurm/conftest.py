"""A folder with a corpus to work in, and what unbroken runs give: made once for all tests on the cluster."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from lab import ROOT, TRAINING, Lab, outcome

Outcome = tuple[dict[str, str], list[dict[str, Any]]]


@pytest.fixture(scope="session")
def place(tmp_path_factory) -> Path:
    """Has a space in its name, as some users' folders do."""
    folder = tmp_path_factory.mktemp("slurm") / "my place"
    folder.mkdir()
    for name in ("slurm", "jobs"):
        (folder / name).symlink_to(ROOT / name)
    (folder / ".venv").mkdir()
    (folder / ".venv/bin").symlink_to(Path(sys.executable).parent)
    scenes = ["--train", "60", "--val", "10", "--test", "200", "--size", "32", "--cluster", "local"]
    subprocess.run([sys.executable, ROOT / "jobs/make_scenes.py", *scenes], cwd=folder, check=True, capture_output=True)
    (folder / "training.yaml").write_text(yaml.safe_dump(TRAINING))
    return folder


@pytest.fixture
def lab(cluster, place) -> Lab:
    return Lab(cluster, place)


@pytest.fixture(scope="session")
def unbroken(place) -> dict[int, Outcome]:
    """By number of processes: what a training leaves that nothing has interrupted, on this machine without Slurm."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    outcomes = {}
    for processes in (1, 2):
        where = [
            "--config",
            "training.yaml",
            "--name",
            f"unbroken-{processes}",
            "--cluster",
            "local",
            "--gpus-per-node",
            str(processes),
        ]
        command = [sys.executable, ROOT / "jobs/lxmert_finetune.py", *where]
        subprocess.run(command, cwd=place, env=environment, check=True, capture_output=True)
        outcomes[processes] = outcome(place / "runs/lxmert_finetune" / f"unbroken-{processes}")
    return outcomes
