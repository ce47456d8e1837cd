"""What becomes of a Slurm job whose processes ended badly: queue it again, or say why not. Called last in every batch script.

    python -m launch.aftermath <exit code of srun>

An error that would come again (a wrong option, a loss that is not finite, no memory) ends the job. A process that was killed
or got stuck, or a machine's fault, is tried again as long as the run gets on.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from launch import failure, history, slurm
from launch.attempt import REPLACED, STALLED
from launch.history import MOST_FUTILE, Record
from launch.run_folder import run_folder_of


def main(code: int) -> None:
    """End the batch script: with srun's exit code, or never, as Slurm ends a job that is queued again."""
    job = slurm.own_job_id()
    found, shown = _newest_attempt(job), slurm.show_job(job)
    # Of a replaced attempt's processes srun kills all but one, so that its code is rarely REPLACED
    if code in (0, REPLACED) or slurm.has_restarted(shown) or (found and found[1].restarts > slurm.own_restarts()):
        sys.exit(code)
    if found and found[1].restarts < slurm.own_restarts():  # this start ended before it could begin an attempt: it counts as one
        found = found[0], history.begin(found[0], Path(found[1].logs))
    if slurm.was_preempted(shown):  # with a grace time the job would count as failed
        if found:
            history.update(*found, ended=history.now(), how="preempted")
        _queue_again(job, found, "preempted")
    if found is None:
        sys.exit(code)
    run_dir, record = found
    if record.how == "finished":  # what is asked for is there: a crash of a process that was ending is no reason to begin again
        print(f"srun ended with exit code {code} after the job had finished", flush=True)
        sys.exit(0)
    if not _would_come_again(job, run_dir, record):
        _after_crash(run_dir, record, code)
        _queue_again(job, found, "queued again, it goes on from what is on the disk")
    sys.exit(code)


def _would_come_again(job: str, run_dir: Path, record: Record) -> bool:
    """Whether the attempt ended by an error that a new one would meet as well. It is noted then, and told."""
    errors = failure.recorded(Path(record.logs))
    causes = [error for error in errors if not error.transient]
    if causes:
        _fail(run_dir, record, record.message if causes[0].rank == 0 and record.message else causes[0].last_line)
        if causes[0].rank != 0:  # rank 0's stands in this log already
            print(f"process {causes[0].rank} failed first:\n{causes[0].trace}", flush=True)
    elif record.how == "failed" and not errors:  # a full disk took no more
        _fail(run_dir, record, record.message)
    elif slurm.ran_out_of_memory(job, Path(record.logs)):
        _fail(run_dir, record, failure.out_of_memory("Slurm's limit"))
    else:
        return False
    return True


def _newest_attempt(job: str) -> tuple[Path, Record] | None:
    """The run folder and the newest attempt in it, if that is one of this job."""
    run_dir = run_folder_of(job)
    record = history.latest(run_dir) if run_dir else None
    return (run_dir, record) if run_dir and record and record.job == job else None


def _fail(run_dir: Path, record: Record, message: str) -> None:
    history.update(run_dir, record, ended=history.now(), how="failed", message=message)
    print(message, flush=True)


def _after_crash(run_dir: Path, record: Record, code: int) -> None:
    """Note that the attempt crashed or got stuck; gives up if that has happened too often without getting on."""
    how: history.How = "stalled" if code == STALLED or record.how == "stalled" else "crashed"
    message = f"a process was ended by signal {code - 128}" if code > 128 else f"srun ended with exit code {code}"
    history.update(run_dir, record, ended=history.now(), how=how, message=message)
    print(f"{how}: {message}", flush=True)
    if history.futile_attempts(run_dir) >= MOST_FUTILE:
        print(f"error: {MOST_FUTILE} attempts in a row ended so and saved nothing new: given up", flush=True)
        sys.exit(code)


def _queue_again(job: str, found: tuple[Path, Record] | None, why: str) -> None:
    print(why, flush=True)
    if found:
        failure.forget(Path(found[1].logs))  # or the next start's aftermath might take them for its own
    slurm.requeue(job)
    time.sleep(600)  # Slurm ends this script
    sys.exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
