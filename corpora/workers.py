"""Tasks done by several processes, which end when the process that started them is killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import Any, TypeVar

from corpora.store import StoreError

T = TypeVar("T")


def in_processes(function: Callable[..., T], tasks: Sequence[tuple[Any, ...]], workers: int = 0) -> Iterator[T]:
    """function(*task) of every task, in the order in which they are done; one a core at a time, or `workers`.

    A single task is done here. The function must be found by its name in a module, and what it raises is raised here. StoreError if
    a process was killed.
    """
    workers = min(workers or len(os.sched_getaffinity(0)), len(tasks))
    if workers <= 1:
        yield from (function(*task) for task in tasks)
        return
    context = multiprocessing.get_context("spawn")  # a fork may inherit a lock that another thread holds
    executor = ProcessPoolExecutor(workers, context, _leave_with_parent)
    try:
        yield from (task.result() for task in as_completed([executor.submit(function, *task) for task in tasks]))
    except BrokenProcessPool:
        raise StoreError("a worker process was killed, by lack of memory perhaps; run again with fewer --workers") from None
    finally:
        executor.shutdown(cancel_futures=True)


def _leave_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends the workers
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_leave_after, args=(parent.sentinel,), daemon=True).start()


def _leave_after(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
