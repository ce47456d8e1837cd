"""A job as something submitit can carry: names and plain values, so that it survives edits and requeues."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from launch.attempt import own_run_folder, part_of
from launch.failure import forget, leave
from launch.history import Record
from launch.options import rebuild
from launch.process_group import Place, find_place, meet
from launch.resources import Resources
from launch.run_folder import make_run_folder, remember_job, save_environment


@dataclass(frozen=True)
class Task:
    """One job with its options and its run folder; calling it runs the job in this process."""

    module: str
    """The job's module: jobs.<stem>."""
    values: dict[str, Any]
    run_dir: str
    started: dict[str, Any]
    """How it was started, for environment.json: command and resources."""

    @property
    def name(self) -> str:
        """The job's name: its file's stem."""
        return self.module.removeprefix("jobs.")

    def __call__(self) -> None:
        """Run, and end the program with a message if that fails."""
        try:
            self.run()
        except Exception as error:
            leave(error, _logs(Path(self.run_dir)))

    def run(self) -> None:
        folder, job = Path(self.run_dir), importlib.import_module(self.module)
        place = find_place() or Place()
        if place.rank and not job.RESOURCES.gpus_per_node:
            return  # a job for one process
        with ExitStack() as stack:
            record = stack.enter_context(self._begun(folder)) if place.rank == 0 else Record(0)
            number = meet(folder / "attempts", place, record.number)
            asked = Resources(**self.started["resources"])
            record = replace(record, number=number)
            stack.enter_context(part_of(folder, record, place.rank, asked.stalled_minutes, asked.seconds_to_stop / 2))
            job.run(rebuild(job.Config, self.values), folder)

    @contextmanager
    def _begun(self, folder: Path) -> Iterator[Record]:
        """In the main process alone: the folder, held, with a new attempt in it."""
        make_run_folder(folder, self.values)
        with own_run_folder(folder, _logs(folder)) as record:
            forget(_logs(folder))
            save_environment(folder, self.started)
            if record.job:
                remember_job(folder, record.job)
            yield record


def _logs(run_dir: Path) -> Path:
    """Where this start of the job writes its logs."""
    return Path(os.environ.get("SUBMITIT_FOLDER", run_dir / "logs"))
