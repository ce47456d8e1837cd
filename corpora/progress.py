"""Progress of long work: a bar on a terminal, a few plain lines in a log."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Collection, Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 30.0

T = TypeVar("T")


def progress(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Yields the items and tells on stderr how far it is: a tqdm bar on a terminal, otherwise at most one line every 30 s and a last one.

    `total` is taken from the items where they have a length. Only the first process of a process group (RANK 0) speaks.
    """
    if total is None and isinstance(items, Collection):
        total = len(items)
    if os.environ.get("RANK", "0") != "0":
        return iter(items)
    if sys.stderr.isatty():
        return iter(tqdm(items, what, total))
    return _lines(items, what, total)


def _lines(items: Iterable[T], what: str, total: int | None) -> Iterator[T]:
    start = said = time.monotonic()
    done = 0
    for item in items:
        yield item
        done += 1
        if time.monotonic() - said >= SECONDS_BETWEEN_LINES:
            said = time.monotonic()
            _say(what, done, total, said - start)
    _say(what, done, total, time.monotonic() - start)


def _say(what: str, done: int, total: int | None, seconds: float) -> None:
    of = f" of {total}" if total is not None else ""
    print(f"{what}: {done}{of}, {seconds:.0f} s, {done / max(seconds, 1e-9):.1f} a second", file=sys.stderr, flush=True)
