"""What the terminal shows of a job elsewhere: its log as it grows, its changes of state, and in the end what went wrong."""

from __future__ import annotations

import codecs
import sys
import time
from pathlib import Path
from typing import TextIO

from launch import failure, history, slurm
from launch.submission import Submission

SECONDS_BETWEEN_QUESTIONS = 5.0
"""Slurm's controllers serve everybody."""


class Tail:
    """A log file that grows, copied to a stream."""

    def __init__(self, path: Path, stream: TextIO) -> None:
        self._path, self._stream, self._shown = path, stream, 0
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")  # a character may be written in two parts

    def show(self) -> None:
        """Copy what is new."""
        if self._path.exists():
            with self._path.open("rb") as log:
                log.seek(self._shown)
                self._stream.write(self._decoder.decode(log.read()))
                self._shown = log.tell()
        self._stream.flush()


def follow(run_dir: Path, submission: Submission) -> int:
    """Show a Slurm job until it is over; returns its exit code. Ctrl-C ends the showing only."""
    job, tail, shown, asked = submission.job, Tail(Path(submission.log), sys.stdout), None, 0.0
    try:
        while True:
            tail.show()
            if time.monotonic() - asked >= SECONDS_BETWEEN_QUESTIONS:
                asked = time.monotonic()
                state = _state(job)
                if str(state) != shown:
                    print(f"[job {job}: {state}]", flush=True)
                    shown = str(state)
                if state.over:
                    break
            time.sleep(0.2)
    except KeyboardInterrupt:
        print(f"\njob {job} lives on; the same command with --follow shows it again, scancel {job} ends it", file=sys.stderr)
        return 130
    tail.show()
    code = slurm.exit_code(job) or int(state.state != "COMPLETED")
    if code:
        print(verdict(run_dir, submission, state), file=sys.stderr, flush=True)
    return code


def _state(job: str) -> slurm.JobState:
    try:
        return slurm.job_states([job])[job]
    except slurm.SlurmError as error:  # Slurm's controller is sometimes restarted; the job lives on
        return slurm.JobState("UNKNOWN", str(error))


def verdict(run_dir: Path, submission: Submission, state: slurm.JobState) -> str:
    """How the job ended, with the traceback of the process that failed first."""
    attempt = history.latest(run_dir)
    why = attempt.message if attempt and attempt.job == submission.job else ""
    lines = [f"job {submission.job} ended as {state}{f': {why}' if why else ''}"]
    errors = failure.recorded(Path(submission.log).parent, submission.job) if state.state != "COMPLETED" else []
    causes = [error for error in errors if not error.transient] or errors
    if causes:
        lines.append(f"process {causes[0].rank} failed first:\n{causes[0].trace}")
    return "\n".join([*lines, f"log: {submission.log}"])
