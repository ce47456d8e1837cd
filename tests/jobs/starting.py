"""Jobs as a user starts them, in this process or in one of their own."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from unittest import mock

from launch.entry import main
from launch.failure import clear_ending

JOBS = Path(__file__).resolve().parents[2] / "jobs"
TINY = {
    "lxmert_finetune": "--checkpoint scratch --width 32 --heads 2 --language-layers 1 --vision-layers 1 --cross-layers 1 --batch-size 8",
    "clip_finetune": "--checkpoint scratch --width 32 --heads 2 --layers 1 --image-size 24 --projection 16 --batch-size 8",
}
"""Options of models that train within a second."""


def start(job: str, *arguments: object) -> int | str | None:
    """Start a job in this process, in the folder where the test stands: its exit code, or the message it ends with."""
    module = importlib.import_module(f"jobs.{job}")
    with (
        mock.patch.object(sys, "argv", [f"jobs/{job}.py", "--cluster", "local", *map(str, arguments)]),
        mock.patch.dict(os.environ),
    ):
        try:
            main(module.Config, module.RESOURCES, module.run)
        except SystemExit as end:
            return end.code
    return 0


def start_alone(job: str, *arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    """Start a job in a process of its own, in a folder."""
    command = [sys.executable, JOBS / f"{job}.py", "--cluster", "local", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def tool(name: str, *arguments: object) -> int | str | None:
    """Call one of the tools beside the jobs in this process: its exit code, or the message it ends with."""
    module = importlib.import_module(f"jobs.{name}")
    before = signal.getsignal(signal.SIGTERM)
    try:
        with mock.patch.object(sys, "argv", [f"jobs/{name}.py", *map(str, arguments)]), clear_ending():
            module.main()
    except SystemExit as end:
        return end.code
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0
