"""Tasks in processes: all are done, errors come through, and nobody stays when the parent is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from corpora.store import StoreError
from corpora.workers import in_processes


def test_one_task_is_done_here_and_several_elsewhere():
    assert list(in_processes(os.getpid, [()])) == [os.getpid()]
    assert os.getpid() not in set(in_processes(os.getpid, [(), (), ()], workers=2))


def test_all_results_come_in_any_order():
    assert sorted(in_processes(divmod, [(number, 3) for number in range(9)], workers=2)) == [divmod(n, 3) for n in range(9)]


def test_an_error_comes_through():
    with pytest.raises(ZeroDivisionError):
        list(in_processes(divmod, [(1, 0), (1, 1)], workers=2))


def test_a_killed_worker_is_one_clear_error():
    with pytest.raises(StoreError, match=r"a worker process was killed.*--workers"):
        list(in_processes(signal.raise_signal, [(signal.SIGKILL,), (signal.SIGKILL,)], workers=2))


def test_workers_leave_when_their_parent_is_killed():
    code = "import time\nfrom corpora.workers import in_processes\nif __name__ == '__main__': list(in_processes(time.sleep, [(60,)] * 2, 2))"
    parent = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    try:
        wait_for(lambda: len(members(parent.pid)) >= 3)  # the parent, two workers, perhaps multiprocessing's resource tracker
        time.sleep(0.5)
        parent.kill()
        parent.wait()
        wait_for(lambda: not members(parent.pid))
    finally:
        for left in members(parent.pid):
            os.kill(left, signal.SIGKILL)


def members(session: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=,stat=", "-s", str(session)], capture_output=True, text=True, check=False).stdout
    return [int(line.split()[0]) for line in found.splitlines() if not line.split()[1].startswith("Z")]


def wait_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
