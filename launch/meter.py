"""How far a transfer is: a bar on a terminal, a few plain lines in a log, and a word to the attempt that it gets on."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

from launch import attempt

SECONDS_BETWEEN_LINES = 30.0
MIB = 2**20


@contextmanager
def meter(what: str, total: int | None, done: int = 0, before: int = 0) -> Iterator[Callable[[int], None]]:
    """Gives a function to call, from one thread, with every number of bytes that is safe on the disk.

    `total` and `done` are bytes of this transfer, `before` bytes of those that the same job has made before it.
    """
    start = said = time.monotonic()
    here = done
    on_terminal = sys.stderr.isatty()
    with tqdm(total=total, initial=done, desc=what, unit="B", unit_scale=True, disable=not on_terminal) as bar:

        def advance(count: int) -> None:
            nonlocal here, said
            here += count
            bar.update(count)
            if time.monotonic() - said >= SECONDS_BETWEEN_LINES:
                said = time.monotonic()
                attempt.current().saved((before + here) // MIB)
                if not on_terminal:
                    _say(what, here, total, here - done, said - start)

        yield advance
    attempt.current().saved((before + here) // MIB)
    if not on_terminal:
        _say(what, here, total, here - done, time.monotonic() - start)


def _say(what: str, here: int, total: int | None, new: int, seconds: float) -> None:
    of = f" of {total / 1e6:,.1f}" if total is not None else ""
    print(f"{what}: {here / 1e6:,.1f}{of} MB, {new / 1e6 / max(seconds, 1e-9):,.1f} MB/s", file=sys.stderr, flush=True)
