"""Many small images from many hosts: fetched at once, each proved whole before it is kept."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from corpora.image_checks import verified
from preprocess.http_fetch import Fetcher, FetchError, Limits

PAUSE = 1.0
"""Seconds before another try."""

Item = tuple[str, Path]


@dataclass(frozen=True)
class Outcome:
    """What came of one URL: the bytes in its file, or the reason why there is none."""

    url: str
    size: int = 0
    fault: str = ""
    reached: bool = True
    """Whether a server answered at all."""


def download_images(wanted: Iterable[Item], limits: Limits) -> Iterator[Outcome]:
    """Fetch each (url, file), in any order. A file is written aside and renamed, so one that is there is whole.

    A fault of a URL is an Outcome; OSError (a full disk) ends the work.
    """
    turns = _Turns(limits)
    try:
        for item in wanted:
            turns.add(item)
            if turns.running >= 2 * limits.threads:
                yield turns.ended()
        while turns.running:
            yield turns.ended()
    finally:
        turns.pool.shutdown(cancel_futures=True)


class _Turns:
    """Whose turn it is: a host with many images keeps its others waiting, and no thread waits with them."""

    def __init__(self, limits: Limits) -> None:
        self.pool = ThreadPoolExecutor(limits.threads)
        self.fetcher = Fetcher(limits)
        self.per_host = limits.per_host
        self.running = 0
        self._of_host: Counter[str] = Counter()
        self._waiting: dict[str, deque[Item]] = {}
        self._done: SimpleQueue[tuple[str, Future[Outcome]]] = SimpleQueue()

    def add(self, item: Item) -> None:
        host = host_of(item[0])
        if self._of_host[host] < self.per_host:
            self._start(host, item)
        else:
            self._waiting.setdefault(host, deque()).append(item)

    def ended(self) -> Outcome:
        """The outcome that comes next; the host's next image is begun."""
        host, future = self._done.get()
        self.running -= 1
        self._of_host[host] -= 1
        if host in self._waiting:
            self._start(host, self._waiting[host].popleft())
            if not self._waiting[host]:
                del self._waiting[host]
        elif not self._of_host[host]:
            del self._of_host[host]  # there are very many hosts
        return future.result()

    def _start(self, host: str, item: Item) -> None:
        self.running += 1
        self._of_host[host] += 1
        self.pool.submit(_save, self.fetcher, *item).add_done_callback(lambda future: self._done.put((host, future)))


def host_of(url: str) -> str:
    """The host, and the port if one is given, of any text that may be a URL."""
    return url.partition("://")[2].partition("/")[0].lower()


def _save(fetcher: Fetcher, url: str, path: Path) -> Outcome:
    try:
        data = _image(fetcher, url)
    except FetchError as error:
        return Outcome(url, fault=str(error), reached=error.reached)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(data)
    part.replace(path)
    return Outcome(url, len(data))


def _image(fetcher: Fetcher, url: str) -> bytes:
    for tries_left in reversed(range(fetcher.limits.tries)):
        try:
            data = fetcher.get(url)
            break
        except FetchError as error:
            if not (error.passing and tries_left):
                raise
            time.sleep(PAUSE)
    try:
        verified(data)
    except ValueError as error:
        raise FetchError(f"not an image ({error})") from None
    return data
