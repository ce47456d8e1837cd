"""One small file over HTTP, within a limit of time and of size whatever the server does."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, HTTPError, IncompleteRead, NewConnectionError, ProxyError
from urllib3.response import BaseHTTPResponse

CHUNK = 1 << 16
SECONDS_TO_CONNECT = 10.0
REDIRECTS = 5
PASSING = (408, 429, 500, 502, 503, 504)
"""Answers after which the same request may succeed a moment later."""


class FetchError(Exception):
    """Why a URL gives no file, in few words, so that a log can be counted by them."""

    def __init__(self, reason: str, *, passing: bool = False, reached: bool = True) -> None:
        super().__init__(reason)
        self.passing = passing
        """Whether another try may succeed."""
        self.reached = reached
        """Whether a server answered at all."""


@dataclass(frozen=True)
class Limits:
    """What one file may cost, and how many are fetched at once."""

    threads: int = 32
    per_host: int = 4
    seconds: float = 30.0
    """For one file, its redirects included."""
    megabytes: float = 20.0
    tries: int = 2
    """After faults that may pass; all others are final."""
    user_agent: str = "misrank/0.1 (images of a public research corpus)"


class Fetcher:
    """Pools of connections, shared by all threads. Proxies are taken from the environment."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        options: dict[str, Any] = {
            "num_pools": 4 * limits.threads,
            "maxsize": limits.per_host,
            "headers": {"User-Agent": limits.user_agent, "Accept": "image/*,*/*;q=0.5"},
        }
        self._direct = _timed(urllib3.PoolManager(**options))
        proxies = {scheme: url for scheme, url in getproxies().items() if scheme in ("http", "https")}
        self._proxied = {scheme: _timed(urllib3.ProxyManager(url, **options)) for scheme, url in proxies.items()}

    def get(self, url: str) -> bytes:
        """The content of a URL; FetchError if there is none within the limits."""
        deadline = time.monotonic() + self.limits.seconds
        try:
            with _sockets_shut_at(deadline):
                data = self._follow(url, deadline)
        except FetchError:
            raise
        except Exception as error:  # one strange answer among three million must not end the work
            if time.monotonic() < deadline:
                raise _named(error) from None
        if time.monotonic() >= deadline:  # a socket that was shut looks like the end of an answer without a length
            raise FetchError(f"took longer than {self.limits.seconds:g} s", passing=True)
        return data

    def _follow(self, url: str, deadline: float) -> bytes:
        for _ in range(REDIRECTS + 1):
            left = max(0.01, deadline - time.monotonic())
            timeout = urllib3.Timeout(connect=min(SECONDS_TO_CONNECT, left), read=left)
            response = self._pools(url).request("GET", url, redirect=False, retries=False, timeout=timeout, preload_content=False)
            try:
                target = response.get_redirect_location()
                if not target:
                    return self._body(response)
            finally:
                response.close()  # what was not read to its end; else its connection is in the pool again
            url = urljoin(url, target)
        raise FetchError(f"more than {REDIRECTS} redirects")

    def _body(self, response: BaseHTTPResponse) -> bytes:
        if response.status != 200:
            raise FetchError(f"HTTP {response.status}", passing=response.status in PASSING)
        most = int(self.limits.megabytes * 1e6)
        too_large = FetchError(f"larger than {self.limits.megabytes:g} MB")
        length = response.headers.get("Content-Length", "")
        if length.isdecimal() and int(length) > most:
            raise too_large
        data = bytearray()
        for chunk in response.stream(CHUNK):
            data += chunk
            if len(data) > most:
                raise too_large
        return bytes(data)

    def _pools(self, url: str) -> urllib3.PoolManager:
        parts = urlsplit(url)
        if parts.scheme in self._proxied and not proxy_bypass(parts.hostname or ""):
            return self._proxied[parts.scheme]
        return self._direct


def _named(error: Exception) -> FetchError:
    if isinstance(error, NewConnectionError | ConnectTimeoutError | ProxyError):
        return FetchError(f"no connection ({type(error).__name__})", passing=True, reached=False)
    if any(isinstance(cause, IncompleteRead) for cause in (error, *error.args)):
        return FetchError("the answer was cut short", passing=True)
    reason = f"no usable answer ({type(error).__name__}: {str(error)[:120]})"
    return FetchError(reason, passing=isinstance(error, HTTPError | OSError))


# urllib3's timeouts begin anew with every byte: a server that sends one a second would keep a thread for ever. So the socket
# is shut when the time of the whole request is over.

_thread = threading.local()


@contextmanager
def _sockets_shut_at(deadline: float) -> Iterator[None]:
    """In this thread, until the block ends, every socket on which an answer is awaited is shut at the deadline."""
    _thread.deadline, _thread.timers = deadline, []
    try:
        yield
    finally:
        for timer in _thread.timers:
            timer.cancel()


def _watch(connection: HTTPConnection) -> None:
    timer = threading.Timer(max(0.0, _thread.deadline - time.monotonic()), _shut, [connection.sock])
    timer.daemon = True
    timer.start()
    _thread.timers.append(timer)


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # closed meanwhile
        socket.socket.shutdown(sock, socket.SHUT_RDWR)  # ssl's own shutdown is not safe while another thread reads


class _HTTP(HTTPConnection):
    def getresponse(self) -> Any:
        _watch(self)
        return super().getresponse()


class _HTTPS(HTTPSConnection):
    def getresponse(self) -> Any:
        _watch(self)
        return super().getresponse()


class _HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HTTP


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HTTPS


def _timed(pools: urllib3.PoolManager) -> urllib3.PoolManager:
    pools.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
    return pools
