"""Azurite, Microsoft's own emulator of blob storage, on a free loopback port, and a proxy in front of it that counts and breaks."""

from __future__ import annotations

import base64
import http.client
import os
import re
import secrets
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

INSTALLED = Path(__file__).resolve().parents[1] / ".venv" / "azurite" / "node_modules" / ".bin" / "azurite-blob"


@dataclass(frozen=True)
class Azurite:
    """A running emulator with an account of its own."""

    port: int
    key: str
    account: str = "misranktest"

    def url(self, port: int = 0) -> str:
        return f"http://127.0.0.1:{port or self.port}/{self.account}"

    def connection_string(self, port: int = 0) -> str:
        return f"DefaultEndpointsProtocol=http;AccountName={self.account};AccountKey={self.key};BlobEndpoint={self.url(port)};"

    def container(self, name: str, public: bool = False) -> Any:
        """A new, empty container."""
        from azure.storage.blob import ContainerClient

        client = ContainerClient.from_connection_string(self.connection_string(), name)
        if client.exists():
            for blob in list(client.list_blob_names()):
                client.delete_blob(blob)
            client.set_container_access_policy({}, public_access="container" if public else None)
        else:
            client.create_container(public_access="container" if public else None)
        return client

    def sas(self, container: str, permission: str = "rl", hours: float = 1) -> str:
        from azure.storage.blob import generate_container_sas

        until = datetime.now(UTC) + timedelta(hours=hours)
        return generate_container_sas(self.account, container, account_key=self.key, permission=permission, expiry=until)


@contextmanager
def running_azurite(folder: Path) -> Iterator[Azurite]:
    program = str(INSTALLED) if INSTALLED.exists() else shutil.which("azurite-blob")
    if program is None or shutil.which("node") is None:
        pytest.skip("no Azurite: npm install --prefix .venv/azurite azurite (setup.sh test does it where there is npm)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        azurite = Azurite(free.getsockname()[1], base64.b64encode(secrets.token_bytes(48)).decode())
    flags = f"--blobPort {azurite.port} --location {folder} --skipApiVersionCheck --disableTelemetry --silent".split()
    environment = os.environ | {"AZURITE_ACCOUNTS": f"{azurite.account}:{azurite.key}"}
    log = (folder / "azurite.log").open("w")
    process = subprocess.Popen([program, *flags], env=environment, stdout=log, stderr=log)
    try:
        _wait(azurite.port, process)
        yield azurite
    finally:
        process.terminate()
        process.wait(30)
        log.close()


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            assert process.poll() is None, "Azurite has ended"
            time.sleep(0.1)
    raise TimeoutError("Azurite does not answer")


@dataclass
class Proxy:
    """What went through, and what is to go wrong."""

    port: int = 0
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path with query, and range of each request."""
    seconds: float = 0.0
    """Of waiting before each request that carries or asks for content."""
    refuse: dict[str, int] = field(default_factory=dict)
    """Answers to requests whose path holds a text."""

    def content(self, method: str) -> list[tuple[str, str, str]]:
        """The requests for, or of, parts of blobs."""
        if method == "GET":
            return [one for one in self.asked if one[0] == "GET" and one[2]]
        return [one for one in self.asked if one[0] == "PUT" and re.search(r"comp=block(&|$)|^[^?]*$", one[1])]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Proxy
    behind: int

    def log_message(self, *_: object) -> None: ...

    def _pass_on(self) -> None:
        span = self.headers.get("x-ms-range") or self.headers.get("Range") or ""
        self.state.asked.append((self.command, self.path, span))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if span or body:
            time.sleep(self.state.seconds)
        code = next((code for text, code in self.state.refuse.items() if text in self.path), 0)
        if code:
            self._answer(code, [("Content-Length", "0")], b"")
            return
        connection = http.client.HTTPConnection("127.0.0.1", self.behind, timeout=60)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            connection.putheader(name, value)
        try:
            connection.endheaders(body)
            reply = connection.getresponse()
            data = reply.read()
        except (OSError, http.client.HTTPException):
            self.close_connection = True
            return
        headers = [(name, value) for name, value in reply.getheaders() if not re.match("(?i)transfer-|connection|keep-", name)]
        if "content-length" not in {name.lower() for name, _ in headers}:
            headers.append(("Content-Length", str(len(data))))
        self._answer(reply.status, headers, data)
        connection.close()

    def _answer(self, code: int, headers: list[tuple[str, str]], data: bytes) -> None:
        try:
            self.send_response_only(code)
            for name, value in headers:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)
        except OSError:
            self.close_connection = True

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _pass_on


@contextmanager
def proxy_before(azurite: Azurite) -> Iterator[Proxy]:
    state = Proxy()
    handler = type("OwnHandler", (_Handler,), {"state": state, "behind": azurite.port})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    state.port = server.server_port
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
