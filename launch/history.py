"""The attempts at a run, as files: who made each, how far it came and how it ended.

A run takes as many attempts as it is preempted, runs out of time or loses its node. `attempts/0003.json` in the run folder
is the third. The number is also a fencing token: an attempt that finds a higher one than its own has been replaced, perhaps
without Slurm having reached its node, and must write nothing more.
"""

from __future__ import annotations

import json
import os
import socket
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from launch.run_folder import write_text
from launch.slurm import own_job_id, own_restarts

How = Literal["", "finished", "failed", "crashed", "stalled", "time limit", "preempted", "cancelled", "stopped"]
FUTILE: tuple[How, ...] = ("crashed", "stalled", "time limit")
"""Ends after which a job is queued again only if it gets on: a preemption or a lost node is not its fault."""
MOST_FUTILE = 3
"""So many attempts in a row that saved nothing new are given up."""


def now() -> str:
    """The time, for records."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Record:
    """One attempt."""

    number: int
    job: str = field(default_factory=own_job_id)
    """Slurm's job id; empty outside Slurm."""
    restarts: int = field(default_factory=own_restarts)
    """How often Slurm had started that job again."""
    host: str = field(default_factory=lambda: os.environ.get("SLURMD_NODENAME", socket.gethostname()))
    pid: int = field(default_factory=os.getpid)
    logs: str = ""
    """Where its processes leave their errors."""
    started: str = field(default_factory=now)
    began_at: int = 0
    """What was on the disk when it began: training steps, or ranked blocks."""
    progress: int = 0
    """What was on the disk when it last saved."""
    ended: str = ""
    how: How = ""
    """How it ended; empty while it runs, and for ever if it was killed on the spot."""
    message: str = ""

    @property
    def may_go_on(self) -> bool:
        """Whether its Slurm job, if that is not over, is still at this run."""
        return self.job != "" and self.how in ("", "preempted", *FUTILE)

    def __str__(self) -> str:
        return f"{f'job {self.job}' if self.job else f'process {self.pid}'} on {self.host}, since {self.started}"


NAMES = {part.name for part in fields(Record)}


def records(run_dir: Path) -> list[Record]:
    """All attempts, the oldest first."""
    found = []
    for path in sorted((run_dir / "attempts").glob("[0-9]*.json")):
        try:
            kept = json.loads(path.read_text())
        except ValueError:  # made a moment ago, by open("x") below
            kept = {}
        known = {name: value for name, value in kept.items() if name in NAMES}  # another version of the code may know others
        found.append(
            Record(**{"job": "", "restarts": 0, "host": "", "pid": 0, "started": ""} | known | {"number": int(path.stem)})
        )
    return found


def latest(run_dir: Path) -> Record | None:
    """The newest attempt."""
    found = records(run_dir)
    return found[-1] if found else None


def begin(run_dir: Path, logs: Path) -> Record:
    """Make the next record. From now on, earlier attempts find themselves replaced."""
    before = latest(run_dir)
    progress = before.progress if before else 0
    record = Record(before.number + 1 if before else 1, logs=str(logs), began_at=progress, progress=progress)
    path = _path(run_dir, record.number)
    path.parent.mkdir(exist_ok=True)
    with path.open("x") as file:  # fails where another one takes the same number
        json.dump(asdict(record), file)
    (path.parent / "newest").write_text(f"{record.number}\n")
    return record


def update(run_dir: Path, record: Record, **changes: object) -> Record:
    """The record with some changes, kept."""
    record = replace(record, **changes)  # type: ignore[arg-type]
    write_text(_path(run_dir, record.number), json.dumps(asdict(record)))
    return record


def is_replaced(run_dir: Path, number: int) -> bool:
    """Whether a later attempt has begun.

    A network disk may say for a minute that a new file is not there. A file that is there it looks at anew when that is opened.
    """
    if number == 0:
        return False
    try:
        newest = int((run_dir / "attempts" / "newest").read_text() or 0)
    except FileNotFoundError:
        newest = 0
    return newest > number or _path(run_dir, number + 1).exists()


def futile_attempts(run_dir: Path) -> int:
    """How many attempts of the newest job in a row ended by their own fault without anything new on the disk."""
    found = records(run_dir)
    count = 0
    for record in reversed(found):
        if record.progress > record.began_at or record.job != found[-1].job:  # a new job is a new try
            break
        count += record.how in FUTILE
    return count


def _path(run_dir: Path, number: int) -> Path:
    return run_dir / "attempts" / f"{number:04d}.json"
