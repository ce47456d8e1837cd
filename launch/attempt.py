"""One attempt at a run, from within: it holds the run folder, hears signals, is watched, and leaves in good order.

Handlers only note a signal. A job that asks (`asked_to_stop`) saves at its next step boundary, all processes together, and
calls `leave`; for any other job, whose files are whole at every moment, the handler acts at once. A thread watches over the
main one, which may be stuck in a collective where no handler runs.
"""

from __future__ import annotations

import faulthandler
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from launch import history, slurm
from launch.failure import first_line
from launch.history import Record
from launch.run_folder import RunFolderError, lock, remove_unused

STAY, STOP, GIVE_WAY = 0, 1, 2
"""What an attempt can be asked: nothing; to end (SIGTERM); to end and be queued again (SIGUSR2, of Slurm or submitit)."""
STALLED, REPLACED = 75, 76
"""Exit codes of a process that its watch has ended."""
SECONDS_TO_SAVE = 60.0
"""After a signal the job has so long to come to its next step boundary and to save; then it is queued again as it stands."""
SECONDS_BETWEEN_LOOKS = 5.0
"""How often an attempt looks whether it was replaced."""
SECONDS_TO_BE_REPLACED = 75.0
"""So long an orphan may take to see that: a network disk shows another node's files up to a minute late."""
ENDING = ("CANCELLED", "COMPLETING")
"""States of a job whose processes are being ended. One whose step ends alone, as a process of it failed, is RUNNING."""


class Attempt:
    """This process's part in an attempt; `training.supervision.Supervisor` says what a job may ask of it."""

    def __init__(
        self, run_dir: Path, record: Record, rank: int, stalled_minutes: float, seconds_to_save: float | None = None
    ) -> None:
        self._run_dir, self._record, self._rank = run_dir, record, rank
        self._patience = stalled_minutes * 60
        self._seconds_to_save = seconds_to_save or SECONDS_TO_SAVE
        self._asked, self._listening, self._leaving = STAY, False, False
        self._beat: float | None = None
        self._pid = os.getpid()

    # What a job says and asks

    def asked_to_stop(self) -> int:
        """STAY, STOP or GIVE_WAY, as far as this process has heard. Who asks must save and `leave` at the next boundary."""
        self._listening = True
        return self._asked

    def beat(self) -> None:
        """The job gets on. After the first beat, a silence of `--stalled-minutes` ends the process."""
        self._beat = time.monotonic()

    def check(self) -> None:
        """To be called before anything is written: ends a process whose attempt was replaced."""
        if history.is_replaced(self._run_dir, self._record.number):
            print(f"attempt {self._record.number} was replaced by a later one: it leaves without writing", flush=True)
            os._exit(REPLACED)

    def saved(self, progress: int) -> None:
        """So many steps or blocks are on the disk. In the main process only."""
        self._record = history.update(self._run_dir, self._record, progress=progress)

    def leave(self, asked: int) -> NoReturn:
        """End as asked, after everything was saved: all processes call it with the same value."""
        queued_by_the_watch, self._leaving = self._leaving, True
        job = slurm.own_job_id()
        if not job:
            self._end("stopped")
            sys.exit(128 + signal.SIGTERM)
        if self._rank == 0 and not queued_by_the_watch:
            self._give_way(job) if asked == GIVE_WAY else self._end(_why_ended(slurm.show_job(job)))
        time.sleep(600)  # Slurm ends us. Leaving with code 0 would say that the job is complete
        sys.exit(1)

    def _give_way(self, job: str) -> None:
        shown = slurm.show_job(job)
        if shown.get("JobState") in ENDING:  # cancelled since: queued again, it would come back to life
            self._end(_why_ended(shown))
            return
        how: history.How = "preempted" if slurm.was_preempted(shown) else "time limit"
        self._end(how)
        if how == "time limit" and history.futile_attempts(self._run_dir) >= history.MOST_FUTILE:
            message = (
                f"{history.MOST_FUTILE} attempts saved nothing new before their time limit: raise --minutes or lower --save-every"
            )
            self._end("failed", message)
            sys.exit(f"error: {message}")
        print(f"{how}: queued again, it goes on where it is", flush=True)
        slurm.requeue(job)

    def _end(self, how: history.How, message: str = "") -> None:
        if self._rank == 0:
            self._record = history.update(self._run_dir, self._record, ended=history.now(), how=how, message=message)

    # Signals and the watch

    @contextmanager
    def watched(self) -> Iterator[Attempt]:
        """Hear signals and be watched in here; the record says at the end how it went."""
        before = {number: signal.signal(number, self._hear) for number in (signal.SIGTERM, signal.SIGUSR2)}
        read, write = os.pipe()
        os.set_blocking(write, False)
        wakeup = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        over = threading.Event()
        watch = threading.Thread(target=self._watch, args=(read, over), daemon=True)
        watch.start()
        try:
            yield self
            self._end("finished")
        except KeyboardInterrupt:
            self._end("stopped")
            raise
        except Exception as error:
            with suppress(OSError):  # the disk may be full
                self._end("failed", first_line(error))
            raise
        finally:
            over.set()
            watch.join()
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(read)
            os.close(write)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a loader worker: its process lets it go on until the job has saved
            return
        self._asked = max(self._asked, GIVE_WAY if number == signal.SIGUSR2 else STOP)
        if self._leaving or self._listening:
            return
        if number == signal.SIGUSR2 or not slurm.own_job_id():
            self.leave(self._asked)

    def _watch(self, read: int, over: threading.Event) -> None:
        """In a thread of its own. The bytes of the wake-up pipe come even while the main thread is stuck in C."""
        heard: float | None = None
        looked = time.monotonic()
        while not over.is_set():
            if select.select([read], [], [], 0.2)[0]:
                numbers = os.read(read, 100)
                if heard is None and signal.SIGUSR2 in numbers:
                    heard = time.monotonic()
            now = time.monotonic()
            if heard is not None and now - heard > self._seconds_to_save and not self._leaving:
                self._leave_unsaved()
            if self._beat is not None and now - self._beat > self._patience and not self._leaving:
                self._leave_stalled()
            if now - looked > SECONDS_BETWEEN_LOOKS:
                looked = now
                with suppress(OSError):  # a network disk may have its moments
                    self.check()

    def _leave_unsaved(self) -> None:
        self._leaving = True
        if self._rank == 0 and slurm.own_job_id():
            print(f"no step boundary within {self._seconds_to_save:.0f} s of the signal: the last checkpoint stands", flush=True)
            try:
                self._give_way(slurm.own_job_id())
            except (slurm.SlurmError, SystemExit) as error:
                print(error, file=sys.stderr, flush=True)
                os._exit(1)

    def _leave_stalled(self) -> None:
        print(
            f"error: process {self._rank} got no step done in {self._patience / 60:g} minutes (--stalled-minutes); where it stands:",
            file=sys.stderr,
            flush=True,
        )
        faulthandler.dump_traceback()
        with suppress(OSError):
            self._end("stalled")
        os._exit(STALLED)


@contextmanager
def own_run_folder(run_dir: Path, logs: Path) -> Iterator[Record]:
    """Hold the run folder and begin an attempt; RunFolderError if another one is at work in it.

    Left unused by an error, it is removed; on Slurm it stays, for what comes after may try again.
    """
    before = history.latest(run_dir)
    same_job = before is not None and before.job != "" and before.job == slurm.own_job_id()
    if before is not None and not same_job and _is_at_work(before):
        raise RunFolderError(_held_by(run_dir, before))
    orphaned = same_job and before is not None and before.restarts < slurm.own_restarts()
    with lock(run_dir) as locked:
        if not locked() and not orphaned:
            raise RunFolderError(_held_by(run_dir, before))
        try:
            record = history.begin(run_dir, logs)
        except FileExistsError:  # at the same moment, where there are no locks
            raise RunFolderError(_held_by(run_dir, history.latest(run_dir))) from None
        if not _wait_until(locked, SECONDS_TO_BE_REPLACED):  # the orphan finds itself replaced
            print(f"{before} has not left the run folder: it can write nothing more there", flush=True)
        try:
            yield record
        except BaseException:
            if not record.job:
                remove_unused(run_dir)
            raise


def _held_by(run_dir: Path, record: Record | None) -> str:
    who = f" ({record})" if record else ""
    return f"{run_dir}: another process is at work here{who}; wait for it, end it, or choose another --name"


def _is_at_work(record: Record) -> bool:
    """Whether the Slurm job of an attempt still runs, or waits to go on with it. Of other processes the lock tells."""
    try:
        return record.may_go_on and not slurm.job_states([record.job])[record.job].over
    except slurm.SlurmError:
        return False


def _wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def _why_ended(shown: dict[str, str]) -> history.How:
    """After a SIGTERM: Slurm sends the same for a cancellation, a preemption, a requeue by hand and the end of a failed job."""
    if slurm.was_preempted(shown):
        return "preempted"
    return "cancelled" if shown.get("JobState") in ENDING and not slurm.has_restarted(shown) else ""


class _Unattended(Attempt):
    """Where a job runs outside any attempt: in a notebook, say."""

    def __init__(self) -> None:
        super().__init__(Path(), Record(0), 0, 0.0)

    def beat(self) -> None: ...
    def check(self) -> None: ...
    def saved(self, progress: int) -> None: ...


_current: Attempt | None = None


def current() -> Attempt:
    """The attempt that this process is part of."""
    return _current or _Unattended()


@contextmanager
def part_of(
    run_dir: Path, record: Record, rank: int, stalled_minutes: float, seconds_to_save: float | None = None
) -> Iterator[None]:
    """This process takes part in an attempt."""
    global _current
    with Attempt(run_dir, record, rank, stalled_minutes, seconds_to_save).watched() as _current:
        try:
            yield
        finally:
            _current = None
