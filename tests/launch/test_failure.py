"""How a job ends that cannot go on."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from launch.failure import Recorded, first_line, forget, leave, recorded


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


# What processes leave behind

FRAMES = 'Traceback (most recent call last):\n  File "x.py", line 1, in <module>\n    f()\n    ^^^\n'


def left(folder: Path, name: str, line: str, time: int) -> None:
    (folder / name).write_text(f"{FRAMES}{line}\n")
    os.utime(folder / name, ns=(time, time))


def test_the_earliest_error_comes_first(tmp_path):
    left(tmp_path, "error-0.txt", "RuntimeError: Connection closed by peer", 2)
    left(tmp_path, "error-10.txt", "ValueError: no", 1)
    assert [(error.rank, error.last_line) for error in recorded(tmp_path)] == [
        (10, "ValueError: no"),
        (0, "RuntimeError: Connection closed by peer"),
    ]
    assert recorded(tmp_path / "none") == []


def test_jobs_that_share_a_folder(tmp_path, monkeypatch):
    for name in ("error-7_1-0.txt", "error-7_10-0.txt", "error-7-0.txt", "error-0.txt"):
        left(tmp_path, name, name, 1)
    assert [error.last_line for error in recorded(tmp_path)] == ["error-0.txt"]
    assert [error.last_line for error in recorded(tmp_path, "7_1")] == ["error-7_1-0.txt"]
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert [error.last_line for error in recorded(tmp_path)] == ["error-7-0.txt"]
    assert told(ValueError("x"), tmp_path).endswith("error-7-0.txt)")
    forget(tmp_path)
    assert recorded(tmp_path) == [] and len(list(tmp_path.iterdir())) == 3


def error(text: str) -> Recorded:
    return Recorded(0, text)


@pytest.mark.parametrize(
    "line",
    [
        "RuntimeError: [../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:54321",
        "torch.distributed.DistBackendError: NCCL error in: NCCLUtils.hpp:219, unhandled system error, NCCL version 2.14.3\n"
        "ncclSystemError: System call (e.g. socket, malloc) or external library call failed or device error.\n"
        "Last error:\nsocketProgress: Connection closed by remote peer n2<43210>",
        "torch.AcceleratorError: CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be "
        "asynchronously reported at some other API call.\nCompile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.",
        "torch.distributed.DistStoreError: Timed out after 601 seconds waiting for clients. 1/2 clients joined.",
        "OSError: [Errno 5] Input/output error: 'data/images.h5'",
        "OSError: [Errno 116] Stale file handle",
        "RuntimeError: DataLoader worker (pid 123) is killed by signal: Killed. ",
        "RuntimeError: DataLoader worker (pid(s) 18603, 18604) exited unexpectedly",
        "ConnectionResetError: [Errno 104] Connection reset by peer",
    ],
)
def test_what_may_be_gone_the_next_time(line):
    assert error(FRAMES + line).transient
    assert error(
        f"{FRAMES}ValueError: x\n\nDuring handling of the above exception, another exception occurred:\n\n{FRAMES}{line}"
    ).transient


@pytest.mark.parametrize(
    "line",
    [
        "ValueError: --batch-size 3: must be even",
        "training.loop.TrainingError: loss nan at step 7",
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
        "RuntimeError: CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.",
        "KeyError: 'cause'",
        "RuntimeError: Caught ValueError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
        '  File "y.py", line 2, in g\n    h()\nValueError: bad image in shard 3',
    ],
)
def test_what_would_come_again(line):
    assert not error(FRAMES + line).transient


def test_the_error_itself():
    assert error(f"{FRAMES}ValueError: one\n  two\nthree").last_line == "ValueError: one"
    assert error("").last_line == ""
    assert error(f"{FRAMES}ConnectionError: echo\n\nThe above\n\n{FRAMES}ValueError: no").last_line == "ValueError: no"


def test_an_error_in_one_line():
    assert first_line(KeyError("a\nb")) == "KeyError: 'a\\nb'"
    assert first_line(RuntimeError("a\nb")) == "RuntimeError: a"


@pytest.mark.parametrize(
    ("raised", "where"),
    [
        (MemoryError(), "on this machine"),
        (RuntimeError("CUDA out of memory. Tried to allocate\nmore"), "CUDA out of memory. Tried to allocate"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "[enforce fail] DefaultCPUAllocator: can't"),
        (np._core._exceptions._ArrayMemoryError((10**9, 10**9), np.dtype(float)), "Unable to allocate"),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), "[Errno 12] Cannot allocate memory"),
    ],
)
def test_out_of_memory(raised, where):
    message = told(raised)
    assert message.startswith(f"error: out of memory ({where}") and "lower --batch-size or --pair-batch" in message
    assert "--memory-per-gpu-gb" in message and "\n" not in message
