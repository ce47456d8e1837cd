"""A real HTTP server on loopback, with the faults that servers have."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FileServer:
    """Files by their path, and what was asked for."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    lengths: bool = True
    """Whether answers say how long they are."""
    etags: bool = True
    seconds: float = 0.0
    """Of waiting before each 64 KiB."""
    failures: list[int] = field(default_factory=list)
    """Answers of the next requests."""
    cut: list[int] = field(default_factory=list)
    """After so many bytes the next answers break off."""
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Path and range of each request."""
    sent: int = 0

    def bytes_asked(self) -> int:
        """By ranges, the first byte's alone not counted."""
        spans = [re.fullmatch(r"bytes=(\d+)-(\d+)", one) for _, one in self.asked]
        return sum(int(span[2]) - int(span[1]) + 1 for span in spans if span and span[2] != "0")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: FileServer

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        state, wanted = self.state, self.headers.get("Range", "")
        state.asked.append((self.path, wanted))
        data = state.files.get(self.path.split("?")[0])
        if state.failures or data is None:
            return self._empty(state.failures.pop(0) if state.failures else 404)
        etag = f'"{hashlib.md5(data).hexdigest()}"' if state.etags else ""
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted) if state.ranges else None
        if not span or self.headers.get("If-Range", etag) != etag:
            return self._answer(200, etag, data, {})
        first, last = int(span[1]), min(int(span[2] or len(data)), len(data) - 1)
        if first >= len(data):
            return self._empty(416)
        return self._answer(206, etag, data[first : last + 1], {"Content-Range": f"bytes {first}-{last}/{len(data)}"})

    def _answer(self, code: int, etag: str, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(code)
        headers |= {"ETag": etag} if etag else {}
        headers |= {"Content-Length": str(len(data))} if self.state.lengths else {}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        most = self.state.cut.pop(0) if self.state.cut and len(data) > 1 else len(data)
        self.close_connection = most < len(data) or not self.state.lengths
        try:
            for start in range(0, most, 65536):
                time.sleep(self.state.seconds)
                block = data[start : min(start + 65536, most)]
                self.wfile.write(block)
                self.state.sent += len(block)
        except OSError:
            self.close_connection = True

    def _empty(self, code: int) -> None:
        self.send_response(code)
        self.send_header("Content-Length", "0")
        self.end_headers()


class QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None: ...


@contextmanager
def serving() -> Iterator[FileServer]:
    state = FileServer()
    server = QuietServer(("127.0.0.1", 0), type("OwnHandler", (Handler,), {"state": state}))
    state.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
