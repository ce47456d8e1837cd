"""How a job ends that cannot go on."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from launch.failure import leave


def told(error: Exception, logs: Path | None = None) -> str:
    """The message that an error ends the program with."""
    try:
        raise error
    except Exception as raised:
        with pytest.raises(SystemExit) as end:
            leave(raised, logs)
    assert isinstance(end.value.code, str)  # exit code 1
    return end.value.code


def test_a_mistake_is_one_line_and_its_traceback_is_kept(tmp_path):
    assert told(ValueError("--this 3: must be 2"), tmp_path) == f"error: --this 3: must be 2\n(traceback: {tmp_path}/error-0.txt)"
    kept = (tmp_path / "error-0.txt").read_text()
    assert kept.startswith("Traceback") and kept.endswith("ValueError: --this 3: must be 2\n")


def test_every_rank_keeps_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "3")
    assert "error-3.txt" in told(ValueError("x"), tmp_path)


def test_without_a_folder_nothing_is_kept(tmp_path):
    assert told(ValueError("x"), tmp_path / "removed") == told(ValueError("x")) == "error: x"
    assert not list(tmp_path.iterdir())


def test_anything_else_is_a_whole_traceback(tmp_path):
    message = told(KeyError("bug"), tmp_path)
    assert message.startswith("Traceback") and "KeyError: 'bug'" in message and "error-0.txt" in message


@pytest.mark.parametrize("fail", [lambda: int("x"), lambda: Path("\0").read_text(), lambda: np.ones(2) @ np.ones(3)])
def test_a_value_error_of_a_library_is_no_message_for_the_user(fail):
    """Even where it comes out of C code and the innermost frame is a line of ours."""
    try:
        fail()
    except ValueError as error:
        with pytest.raises(SystemExit, match=r"^Traceback"):
            leave(error)


FULL = "error: no space left on the disk{}; what was finished before is whole: free some space and run the same command again"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk(number):
    reason = os.strerror(number)
    assert told(OSError(number, reason, "runs/x/model.safetensors")) == FULL.format(" while writing runs/x/model.safetensors")
    assert told(OSError(number, reason)) == FULL.format("")
    assert told(RuntimeError(f"Can't close dataset (file write failed, error message = '{reason}')")) == FULL.format("")
    assert (
        told(ValueError(f"x.h5: no room for 3 MB ({reason})")) == f"error: x.h5: no room for 3 MB ({reason})"
    )  # ours says it better


def test_a_full_disk_behind_another_error():
    try:
        try:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise RuntimeError("serialization failed") from error
    except RuntimeError as error:
        with pytest.raises(SystemExit, match=r"^error: no space left on the disk"):
            leave(error)


def test_a_disk_too_full_for_the_traceback(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "Full")

    monkeypatch.setattr(Path, "write_text", full)
    assert told(ValueError("x"), tmp_path) == "error: x"
