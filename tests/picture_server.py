"""A web of pictures on this machine: hosts that are whole, slow, broken, gone, endless, or that tell lies."""

from __future__ import annotations

import gzip
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from drawing import jpeg


class Server(ThreadingHTTPServer):
    """Counts what is asked for and how many ask at once; `url` is where it is."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.asked: Counter[str] = Counter()
        self.agents: set[str] = set()
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        self.pause = 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: object) -> None:
        """Clients that hang up are what is tested."""


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        server = self.server
        with server.lock:
            server.asked[self.path] += 1
            server.agents.add(self.headers["User-Agent"])
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
        try:
            time.sleep(server.pause)
            getattr(self, f"answer_{urlsplit(self.path).path.split('/')[1]}")()
        finally:
            with server.lock:
                server.at_once -= 1

    def send(self, body: bytes, status: int = 200, length: int | None = -1, **headers: str) -> None:
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(len(body) if length < 0 else length))
        else:
            self.close_connection = True
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def answer_ok(self) -> None:
        self.send(jpeg(int(self.path.rpartition("/")[2])))

    def answer_gone(self) -> None:
        self.send(b"<html>gone</html>", 404)

    def answer_busy(self) -> None:
        """503 the first time only."""
        self.send(b"", 503) if self.server.asked[self.path] == 1 else self.send(jpeg(1))

    def answer_html(self) -> None:
        self.send(b"<html>Please log in</html>", Content_Type="image/jpeg")

    def answer_truncated(self) -> None:
        """Fewer bytes than were announced."""
        self.send(jpeg(2)[:300], length=len(jpeg(2)))
        self.close_connection = True

    def answer_torn(self) -> None:
        """Half a picture and no length by which that could be seen."""
        self.send(jpeg(2)[:-40], length=None)

    def answer_unlengthy(self) -> None:
        self.send(jpeg(2), length=None)

    def answer_empty(self) -> None:
        self.send(b"")

    def answer_huge(self) -> None:
        self.send(b"", length=10**12)
        self.close_connection = True

    def answer_endless(self) -> None:
        self.send(jpeg(3), length=None)
        while True:
            self.wfile.write(bytes(1 << 16))

    def answer_bomb(self) -> None:
        self.send(gzip.compress(bytes(50_000_000)), Content_Encoding="gzip")

    def answer_drip(self) -> None:
        """A byte now and then: no read ever times out."""
        self.send(b"", length=10_000)
        while True:
            self.wfile.write(b"x")
            time.sleep(0.05)

    def answer_dripping_header(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        while True:
            self.wfile.write(b"x")
            time.sleep(0.05)

    def answer_silent(self) -> None:
        time.sleep(30)

    def answer_hangup(self) -> None:
        self.close_connection = True

    def answer_nonsense(self) -> None:
        self.wfile.write(b"\x00\xff\xfe nothing like HTTP\r\n\r\n")
        self.close_connection = True

    def answer_moved(self) -> None:
        self.send(b"<html>elsewhere</html>", 302, Location="/ok/5")

    def answer_round(self) -> None:
        self.send(b"", 302, Location=self.path)

    def answer_away(self) -> None:
        self.send(b"", 302, Location="file:///etc/passwd")


@contextmanager
def picture_server() -> Iterator[Server]:
    server = Server()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
