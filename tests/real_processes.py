"""Processes that are killed with kill -9, groups of processes, and file systems that are full: real ones, for tests."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState


def die() -> None:
    """End this process as kill -9 does."""
    os.kill(os.getpid(), signal.SIGKILL)


def in_processes(size: int, action: Callable[[], object]) -> list[int]:
    """Run an action in so many processes, as torchrun or Slurm would start them; their exit codes, negative after a signal."""
    assert torch.get_num_threads() == 1, "a fork of a process with several threads waits for them for ever"
    with socket.socket() as any_port:
        any_port.bind(("127.0.0.1", 0))
        port = any_port.getsockname()[1]
    children = []
    for rank in range(size):
        child = os.fork()
        if child == 0:
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            _run(action, {key: str(value) for key, value in place.items()} if size > 1 else {})
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def _run(action: Callable[[], object], place: dict[str, str]) -> None:
    signal.alarm(60)  # a test may fail, not hang
    try:
        os.environ |= place
        AcceleratorState._reset_state(reset_partial_state=True)
        action()
        os._exit(0)
    except Exception as error:
        print(f"process {place.get('RANK', '0')}: {type(error).__name__}: {error}", flush=True)
    finally:
        os._exit(1)


def killed(action: Callable[[], object]) -> None:
    """Run an action in a process of its own and see that it ends by kill -9."""
    assert in_processes(1, action) == [-signal.SIGKILL]


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A real file system of this size, mounted at a new folder; skips where that takes rights we lack."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here (it takes root)")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
