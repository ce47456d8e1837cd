"""A process of its own that takes part in an attempt, for tests that signal, replace and watch it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from launch import history, source

PROGRAM = """
import ctypes, os, signal, sys, time
from pathlib import Path
from launch import attempt, history
attempt.SECONDS_BETWEEN_LOOKS = 0.3
attempt.SECONDS_TO_SAVE = float(os.environ.get("SAVE", "60"))
run_dir, rank, patience = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])

def say(what):
    print(what, flush=True)

def stuck_in_c():  # no Python handler runs there
    read, write = os.pipe()
    for number in (signal.SIGTERM, signal.SIGUSR2):  # no signal ends the read, as none ends a collective
        signal.siginterrupt(number, False)
    say("stuck")
    ctypes.CDLL(None).read(read, ctypes.create_string_buffer(1), 1)
    say("never")

def main():
    current = attempt.current()
    BODY

if rank == 0:
    with attempt.own_run_folder(run_dir, run_dir / "logs") as record, attempt.part_of(run_dir, record, 0, patience):
        main()
else:
    record = history.Record(1)
    with attempt.part_of(run_dir, record, rank, patience):
        main()
"""
LISTENING = """
    for _ in range(600):
        current.beat()
        asked = current.asked_to_stop()
        if _ == 0: say("at work")
        if asked:
            current.check(); current.saved(7)
            say(f"asked {asked}")
            current.leave(asked)
        time.sleep(0.05)
"""
DEAF = """
    say("at work")
    for _ in range(600):
        time.sleep(0.05)
    say("never")
"""
STUCK = """
    current.asked_to_stop(); current.beat(); stuck_in_c()
"""


def start(run_dir: Path, body: str, rank: int, patience: float) -> subprocess.Popen[str]:
    """Begin; `patience` in minutes."""
    command = [sys.executable, "-c", PROGRAM.replace("\n    BODY", body), str(run_dir), str(rank), str(patience)]
    environment = os.environ | {"PYTHONPATH": str(source.REPOSITORY)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def ended(process: subprocess.Popen[str], seconds: float = 10) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out, err


def latest(run_dir: Path) -> history.Record:
    record = history.latest(run_dir)
    assert record is not None
    return record


def wait_for(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
