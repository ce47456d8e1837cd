"""One large file over HTTP: in parallel ranges where the server has them, gone on with after a stop, checked, renamed when whole."""

from __future__ import annotations

import http.client
import os
import re
import ssl
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from launch.meter import meter
from launch.part_file import PartFile, TransferError, check_space, give_name, held

CHUNK = 2**18
PIECES_AT_ONCE = 8
"""In one request: 64 MiB, so that most of the time goes to bytes and not to new connections."""
SECONDS_OF_SILENCE = 60.0
RETRIES = 5
FIRST_WAIT = 1.0
"""Seconds before the first retry; each further one waits twice as long."""
BROKEN = (URLError, ConnectionError, TimeoutError, ssl.SSLError, http.client.HTTPException)
"""What a network does, and no disk."""
PASSING = (408, 425, 429, 500, 502, 503, 504)
"""Answers after which the same request may succeed a moment later."""
ADVICE = {
    401: "it wants a login: fetch the file by hand and put it there",
    403: "the server refuses it: fetch the file by hand and put it there",
    404: "no such file there: the address may have changed; fetch the file by hand and put it there",
    410: "the file is gone; look for another source and put the file there",
}


class _Changed(Exception):
    """The file on the server is no longer the one that was begun."""


@dataclass(frozen=True)
class Remote:
    """What a server says of a file."""

    url: str
    size: int | None
    etag: str
    modified: str
    ranges: bool

    @property
    def validator(self) -> dict[str, str]:
        """The header by which a server sends a range only of the same file. A weak ETag does not promise the same bytes."""
        strong = self.etag if not self.etag.startswith("W/") else ""
        return {"If-Range": strong or self.modified} if strong or self.modified else {}


def download(
    url: str, path: Path, *, size: int | None = None, digests: Mapping[str, str] | None = None, threads: int = 4, before: int = 0
) -> bool:
    """Fetch `url` to `path`; False if the file stands there already. `size` (bytes) and `digests` ({"md5": hex}) are checked if given.

    Stopped in the middle, the same call fetches only the rest, if the server sends ranges; a file that has changed meanwhile is
    fetched anew. `before` is for the meter. TransferError tells what is wrong and what to do.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise TransferError(f"{shown(url)}: only http and https can be fetched; fetch the file by hand and put it at {path}")
    if path.exists():
        _check_size(path, path.stat().st_size, size)
        return False
    for _ in range(3):
        try:
            _attempt(_ask(url, path), path, size, digests or {}, threads, before)
            return True
        except _Changed:
            continue
    raise TransferError(f"{path}: {shown(url)} changes again and again while it is fetched; try another time")


def shown(url: str) -> str:
    """An address without its query, which may hold a signature."""
    return urlsplit(url)._replace(query="", fragment="").geturl()


def _attempt(remote: Remote, path: Path, size: int | None, digests: Mapping[str, str], threads: int, before: int) -> None:
    if remote.size is not None:
        _check_size(path, remote.size, size, f" on {urlsplit(remote.url).netloc}")
    if not (remote.ranges and remote.size is not None):
        _in_one_go(remote, path, size, digests, before)
        return
    identity = {"url": shown(remote.url), "etag": remote.etag, "modified": remote.modified}
    with PartFile(path, remote.size, identity) as part, meter(path.name, part.size, part.done, before) as advance:
        try:
            for count in part.fill(lambda start, length: _range(remote, path, start, length), threads, PIECES_AT_ONCE):
                advance(count)
        except _Changed:
            print(f"{path}: changed on the server: fetched anew", flush=True)
            part.discard()
            raise
        part.finish(digests)


def _check_size(path: Path, found: int, expected: int | None, where: str = "") -> None:
    if expected is not None and found != expected:
        raise TransferError(
            f"{path}: has {found:,} bytes{where}, expected {expected:,}: "
            + ("another version, or an address that has changed" if where else "remove or replace it")
        )


def _ask(url: str, path: Path) -> Remote:
    """What there is to fetch, learnt from a request of its first byte: some servers refuse HEAD."""
    try:
        with _opened(url, path, {"Range": "bytes=0-0"}) as answer:
            etag, modified = answer.headers.get("ETag", ""), answer.headers.get("Last-Modified", "")
            if answer.status == 206:
                return Remote(url, _whole_size(answer.headers.get("Content-Range", "")), etag, modified, True)
            length = answer.headers.get("Content-Length", "")
            return Remote(url, int(length) if length.isdecimal() else None, etag, modified, False)
    except _Changed:  # an empty file has no first byte
        return Remote(url, None, "", "", False)


def _whole_size(content_range: str) -> int | None:
    found = re.fullmatch(r"bytes \d+-\d+/(\d+)", content_range.strip())
    return int(found[1]) if found else None


@contextmanager
def _opened(url: str, path: Path, headers: Mapping[str, str]) -> Iterator[Any]:
    """An answer of the server, retried where that may help; a refusal is a TransferError."""
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity", "User-Agent": "misrank", **headers})
    failures = 0
    while True:
        try:
            answer = urllib.request.urlopen(request, timeout=SECONDS_OF_SILENCE)
            break
        except (OSError, http.client.HTTPException) as error:
            failures += 1
            _wait_or_give_up(error, url, path, failures)
    with answer:
        yield answer


def _wait_or_give_up(error: Exception, url: str, path: Path, failures: int) -> None:
    if isinstance(error, HTTPError):
        error.close()
        if error.code == 416:
            raise _Changed
        if error.code not in PASSING or failures > RETRIES:
            advice = ADVICE.get(error.code, "try again later, or fetch the file by hand and put it there")
            raise TransferError(f"{path}: {shown(url)}: {error.code} {error.reason}; {advice}")
    reason = error.reason if isinstance(error, URLError) else error
    if isinstance(reason, ssl.SSLCertVerificationError):
        raise TransferError(
            f"{path}: {shown(url)}: its certificate is not trusted here ({reason.verify_message}); SSL_CERT_FILE names others"
        )
    if failures > RETRIES:
        raise TransferError(
            f"{path}: {shown(url)} cannot be reached or read ({reason or type(error).__name__}); what came is kept, the same command goes "
            "on with it; nodes of a cluster often have no network: then use --cluster local where there is one"
        )
    time.sleep(min(60.0, FIRST_WAIT * 2 ** (failures - 1)))


def _range(remote: Remote, path: Path, start: int, length: int) -> Iterator[bytes]:
    """The bytes of a range; a connection that breaks is opened again at the byte it came to."""
    got = failures = 0
    while got < length:
        headers = {"Range": f"bytes={start + got}-{start + length - 1}", **remote.validator}
        try:
            with _opened(remote.url, path, headers) as answer:
                _check_same(remote, answer, start + got)
                while got < length and (chunk := answer.read(min(CHUNK, length - got))):
                    got += len(chunk)
                    failures = 0
                    yield chunk
            if got < length:
                raise ConnectionError("the connection ended early")
        except (OSError, http.client.HTTPException) as error:
            failures += 1
            _wait_or_give_up(error, remote.url, path, failures)


def _check_same(remote: Remote, answer: Any, start: int) -> None:
    """Servers that do not know If-Range may still name the ETag; all name the size."""
    placed = answer.headers.get("Content-Range", "")
    etag = answer.headers.get("ETag", "")
    if (
        answer.status != 206
        or not placed.startswith(f"bytes {start}-")
        or _whole_size(placed) != remote.size
        or etag != remote.etag
    ):
        raise _Changed


def _in_one_go(remote: Remote, path: Path, size: int | None, digests: Mapping[str, str], before: int) -> None:
    """From a server without ranges: a connection that breaks means to begin anew."""
    expected = remote.size if remote.size is not None else size
    check_space(path.parent, expected or 0, str(path))
    with held(path) as part:
        failures = 0
        while True:
            try:
                got = _stream(remote, path, part, before)
                if expected is None or got == expected:
                    break
                raise ConnectionError(f"{got:,} of {expected:,} bytes came")
            except BROKEN as error:
                failures += 1
                _wait_or_give_up(error, remote.url, path, failures)
        give_name(path, digests)


def _stream(remote: Remote, path: Path, part: int, before: int) -> int:
    """Write the whole file into its open part; the bytes that came."""
    with (
        _opened(remote.url, path, {}) as answer,
        os.fdopen(part, "r+b", closefd=False) as file,
        meter(path.name, remote.size, 0, before) as advance,
    ):
        file.seek(0)
        file.truncate()
        while chunk := answer.read(CHUNK):
            file.write(chunk)
            advance(len(chunk))
        file.flush()
        os.fsync(part)
        return file.tell()
