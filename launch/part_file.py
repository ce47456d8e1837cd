"""A file that is fetched in pieces, in any order, beside its final name; after `kill -9` only the rest is missing.

`<name>.part` holds the bytes, `<name>.part.json` which pieces of it are there and what they are pieces of. A piece is noted
after it is safe on the disk. `<name>` itself appears when all is there and the digest is right.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from launch.parallel import in_parallel
from launch.run_folder import write_text

PIECE = 8 * 2**20
"""Bytes."""
MIB = 2**20
Fetch = Callable[[int, int], Iterable[bytes]]
"""From a start and a length to these bytes, in chunks of any size."""


class TransferError(ValueError):
    """A file that cannot be fetched, sent or stored; the message says what to do."""


class PartFile:
    """The part of `path`; `identity` says what it is a part of: a part of anything else is thrown away. Use it in a `with`."""

    def __init__(self, path: Path, size: int, identity: Mapping[str, str]) -> None:
        self.path, self.size = path, size
        self._state = path.with_name(f"{path.name}.part.json")
        self._identity = {**identity, "bytes": str(size), "piece": str(PIECE)}
        self._changing = threading.Lock()
        self._stop = threading.Event()
        self._there: set[int] = set()
        self._open = ExitStack()

    def __enter__(self) -> PartFile:
        with ExitStack() as opening:
            self._file = opening.enter_context(held(self.path))
            self._there = self._read_state()
            check_space(self.path.parent, self.size - self.done, str(self.path))
            os.ftruncate(self._file, self.size)
            self._open = opening.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def _read_state(self) -> set[int]:
        try:
            kept = json.loads(self._state.read_text())
            if kept["identity"] != self._identity:
                print(f"{self.path}: has changed where it comes from: fetched anew", flush=True)
                return set()
            if os.fstat(self._file).st_size != self.size:  # the part was removed
                return set()
            return {int(piece) for piece in kept["pieces"] if 0 <= int(piece) < self._count}
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return set()

    @property
    def _count(self) -> int:
        return -(-self.size // PIECE)

    def _length(self, piece: int) -> int:
        return min(PIECE, self.size - piece * PIECE)

    @property
    def done(self) -> int:
        """Bytes that are there."""
        return sum(self._length(piece) for piece in self._there)

    def fill(self, fetch: Fetch, threads: int, pieces_at_once: int = 1) -> Iterator[int]:
        """Fetch what is missing, some pieces in a row at once; gives the bytes of each such row."""
        yield from in_parallel(lambda row: self._receive(row, fetch), self._rows(pieces_at_once), threads, self._stop)

    def _rows(self, longest: int) -> list[range]:
        """Missing pieces, neighbours together."""
        rows: list[range] = []
        for piece in range(self._count):
            if piece in self._there:
                continue
            if rows and rows[-1].stop == piece and len(rows[-1]) < longest:
                rows[-1] = range(rows[-1].start, piece + 1)
            else:
                rows.append(range(piece, piece + 1))
        return rows

    def _receive(self, row: range, fetch: Fetch) -> int:
        """Fetch a row of pieces and keep each as soon as it is whole; its bytes."""
        start, length = row.start * PIECE, sum(map(self._length, row))
        piece, data = row.start, bytearray()
        for chunk in fetch(start, length):
            data += chunk
            while piece < row.stop and len(data) >= self._length(piece):
                self._keep(piece, data[: self._length(piece)])
                del data[: self._length(piece)]
                piece += 1
            if self._stop.is_set():
                return 0
        if piece != row.stop or data:
            raise TransferError(
                f"{self.path}: {length} bytes from {start} were asked for, others came; give the same command again"
            )
        return length

    def _keep(self, piece: int, data: bytearray) -> None:
        written = 0
        while written < len(data):
            written += os.pwrite(self._file, memoryview(data)[written:], piece * PIECE + written)
        os.fdatasync(self._file)
        with self._changing:
            self._there.add(piece)
            write_text(self._state, json.dumps({"identity": self._identity, "pieces": sorted(self._there)}))

    def finish(self, digests: Mapping[str, str]) -> dict[str, str]:
        """Check the digests that are known, by algorithm, and give the file its name. Returns its sha256 with those."""
        found = give_name(self.path, digests)
        self._state.unlink(missing_ok=True)
        return found

    def discard(self) -> None:
        """Throw away what is there."""
        self._there.clear()
        self._state.unlink(missing_ok=True)


@contextmanager
def held(path: Path) -> Iterator[int]:
    """The open part of a file that this process alone fetches; TransferError if another one does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(part_of(path), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TransferError(f"{path}: another process is fetching it; wait for it or end it") from None
        except OSError:  # a file system without locks
            pass
        yield file
    finally:
        os.close(file)


def part_of(path: Path) -> Path:
    """Where the bytes of a file are until it is whole."""
    return path.with_name(f"{path.name}.part")


def give_name(path: Path, digests: Mapping[str, str]) -> dict[str, str]:
    """The part of a file becomes the file, if the digests that are known are right; its sha256 and these."""
    part = part_of(path)
    found = file_digests(part, {"sha256", *digests})
    for name, expected in digests.items():
        if found[name] != expected:
            raise TransferError(
                f"{path}: its {name} is {found[name]}, expected {expected}: it was damaged on its way, or is another version of the "
                f"file; remove {part} to fetch it anew"
            )
    part.replace(path)
    return found


def check_space(folder: Path, needed: int, what: str) -> None:
    """TransferError if a file system has not so many bytes left."""
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise TransferError(
            f"{what}: {needed / 1e9:,.2f} GB are needed and {free / 1e9:,.2f} GB are free under {folder.resolve()}; free some space or "
            "choose another folder"
        )


def file_digests(path: Path, names: Iterable[str]) -> dict[str, str]:
    """Digests of a file by algorithm (md5, sha256), in hexadecimal."""
    running = {name: hashlib.new(name, usedforsecurity=False) for name in names}
    with path.open("rb") as file:
        while block := file.read(MIB):
            for digest in running.values():
                digest.update(block)
    return {name: digest.hexdigest() for name, digest in running.items()}
