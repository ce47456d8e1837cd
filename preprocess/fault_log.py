"""Why URLs could not be fetched, so that they are not tried again: one JSON line each, one file a job, safe to be killed at any byte."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType

from corpora.pieces import Part


class FaultLog:
    """Appends the faults of one part."""

    def __init__(self, folder: Path, part: Part) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / _name(part)
        whole = _whole_lines(path.read_bytes()) if path.exists() else b""
        self._file = path.open("r+b" if path.exists() else "wb")
        self._file.truncate(len(whole))
        self._file.seek(len(whole))
        self._start = len(whole)

    def add(self, url: str, reason: str) -> None:
        self._file.write(json.dumps({"url": url, "reason": reason}).encode() + b"\n")
        self._file.flush()

    def discard(self) -> None:
        """Take back what was added."""
        self._file.truncate(self._start)
        self._file.seek(self._start)

    def __enter__(self) -> FaultLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()


def read_faults(folder: Path) -> dict[str, str]:
    """URL -> reason of all parts, whatever number of jobs there were."""
    lines = [line for path in sorted(folder.glob("faults-*.jsonl")) for line in _whole_lines(path.read_bytes()).splitlines()]
    return {row["url"]: row["reason"] for row in map(json.loads, lines)}


def forget_faults(folder: Path, part: Part) -> None:
    """Let a part's URLs be tried again; all of them if it is the only part."""
    for path in folder.glob("faults-*.jsonl" if part.count == 1 else _name(part)):
        path.unlink()


def _name(part: Part) -> str:
    return f"faults-{part.number}-of-{part.count}.jsonl"


def _whole_lines(text: bytes) -> bytes:
    """Without the line that a killed job did not end."""
    return text[: text.rfind(b"\n") + 1]
