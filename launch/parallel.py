"""Work that waits for the network, in several threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_parallel(work: Callable[[T], R], items: Iterable[T], threads: int, stop: threading.Event) -> Iterator[R]:
    """The results as they come, in any order. The first error is raised; `stop`, which long work looks at, is then set for the others."""
    executor = ThreadPoolExecutor(threads)
    try:
        for done in as_completed([executor.submit(work, item) for item in items]):
            yield done.result()
    except BaseException:
        stop.set()
        raise
    finally:
        executor.shutdown(cancel_futures=True)
