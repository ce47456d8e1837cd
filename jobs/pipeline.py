"""Run the stages that a YAML file lists, each after those it needs: on Slurm all submitted at once, else one after the other.

python jobs/pipeline.py jobs/demo/pipeline.yaml --name demo
python jobs/pipeline.py coco.yaml --partition gpu --follow
python jobs/pipeline.py coco.yaml --dry-run

Given again, the command skips what is finished and goes on with the rest. A stage:

  lxmert_rank:
      job: lxmert_predict
      config: options.yaml  # a file of the job's options
      options: {checkpoint: "{lxmert}/checkpoints/best"}  # these win over it; {lxmert} is the run folder of stage lxmert
      resources: {minutes: 60}
      after: [scenes]  # beside the stages that the options name
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro

from launch import slurm
from launch.failure import clear_ending
from launch.following import verdict
from launch.options import command_line, given
from launch.pipeline import Stage, finished, hand_on, read_pipeline
from launch.planning import run_here
from launch.resources import Resources
from launch.slurm import JobState
from launch.status import Status, statuses
from launch.submission import submission_of
from launch.watching import watch


@dataclass(frozen=True)
class Options:
    file: tyro.conf.Positional[Path]
    """YAML file of stages."""
    name: str = ""
    """Name of the pipeline: its run folders are runs/<job>/<name>-<stage>. By default, the file's name."""
    cluster: Literal["auto", "slurm", "local"] = "auto"
    """auto: Slurm where one is set up, else local. local: on this machine, one stage after the other."""
    follow: bool = False
    """On Slurm: show how the stages get on until all are over; the exit code is 1 if one failed."""
    dry_run: bool = False
    """Print what would be done and do nothing."""
    resources: Resources = field(default_factory=Resources)
    """Flags given here hold for every stage and win over the file; the rest is as file and job have it."""


def main() -> None:
    options = command_line(Options, "jobs/pipeline.py", __doc__ or "")
    stages = read_pipeline(options.file, options.name or options.file.stem, given(options.resources, sys.argv[1:]))
    found = dict(zip((stage.name for stage in stages), statuses([stage.plan.run_dir for stage in stages]), strict=True))
    done = finished(stages, found)
    if options.dry_run:
        _tell(stages, found, done)
    elif options.cluster == "slurm" or (options.cluster == "auto" and slurm.is_set_up()):
        _on_slurm(stages, found, done, options.follow)
    else:
        _here(stages, done)


def _line(stages: Sequence[Stage], *cells: str) -> str:
    """A line of the table: stage, job, run folder, after."""
    widths = [max(len(stage.name) for stage in stages), 12, max(len(stage.plan.folder) for stage in stages)]
    return "  ".join([*(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=False)), *cells[3:]]).rstrip()


def _tell(stages: Sequence[Stage], found: Mapping[str, Status], done: set[str]) -> None:
    print(_line(stages, "stage", "would", "run folder", "after"))
    for stage in stages:
        what = "be skipped" if stage.name in done else "stay at work" if found[stage.name].at_work else "run"
        awaited = [name for name in stage.after if name not in done]
        print(_line(stages, stage.name, what, stage.plan.folder, ", ".join(awaited)))


# On Slurm


def _on_slurm(stages: Sequence[Stage], found: Mapping[str, Status], done: set[str], follow: bool) -> None:
    jobs: dict[str, str] = {}
    print(_line(stages, "stage", "job", "run folder", "after"))
    for stage, job, awaited in hand_on(stages, found, done):
        if job:
            jobs[stage.name] = job
        awaits = ", ".join(name for name in stage.after if jobs.get(name) in awaited)
        print(_line(stages, stage.name, job or "finished", stage.plan.folder, awaits), flush=True)
    if follow and jobs:
        _follow([stage for stage in stages if stage.name in jobs], jobs)
    elif jobs:
        print("the same command with --follow shows how they get on, and so does python jobs/status.py")


def _follow(stages: Sequence[Stage], jobs: Mapping[str, str]) -> None:
    """Show the stages' changes of state; end the program with a code other than 0 if one did not end well."""
    shown: dict[str, JobState] = {}
    try:
        for states in watch(jobs.values()):
            for name, job in jobs.items():
                if states[job] != shown.get(job):
                    print(f"{time.strftime('%H:%M:%S')}  {name}: {states[job]}", flush=True)
            shown = states
    except KeyboardInterrupt:
        print("\nthe jobs live on; the same command shows them again", file=sys.stderr)
        sys.exit(130)
    failed, dropped = _outcome(stages, {name: shown[job].state for name, job in jobs.items()})
    for stage in (stage for stage in stages if stage.name in failed):
        print(f"\nstage {stage.name} failed", _why(stage, jobs[stage.name], shown[jobs[stage.name]]), sep="\n", file=sys.stderr)
    _close(failed, dropped)


def _why(stage: Stage, job: str, state: JobState) -> str:
    submission = submission_of(stage.plan.run_dir)
    if submission is None or submission.job != job:  # a job of a batch script
        return f"job {job} ended as {state}"
    return verdict(stage.plan.run_dir, submission, state)


def _outcome(stages: Sequence[Stage], states: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """The stages that failed, and those that were cancelled because of them."""
    failed: list[str] = []
    dropped: list[str] = []
    for stage in stages:
        if states[stage.name] == "CANCELLED" and {*failed, *dropped} & {*stage.after}:
            dropped.append(stage.name)
        elif states[stage.name] != "COMPLETED":
            failed.append(stage.name)
    return failed, dropped


# Here


def _here(stages: Sequence[Stage], done: set[str]) -> None:
    failed: list[str] = []
    dropped: list[str] = []
    for number, stage in enumerate(stages, 1):
        head = f"== {stage.name} ({number} of {len(stages)})"
        if stage.name in done:
            print(f"{head}: finished, {stage.plan.folder}")
        elif {*failed, *dropped} & {*stage.after}:
            dropped.append(stage.name)
        else:
            print(f"{head}: {stage.plan.task.name}")
            if run_here(stage.plan):
                failed.append(stage.name)
                print(f"stage {stage.name} failed: see above", file=sys.stderr, flush=True)
    _close(failed, dropped)


def _close(failed: Sequence[str], dropped: Sequence[str]) -> None:
    if failed:
        lost = f"\nnot run because of that: {', '.join(dropped)}" if dropped else ""
        sys.exit(f"\nfailed: {', '.join(failed)}{lost}\nwhen the cause is mended, the same command goes on with them")


if __name__ == "__main__":
    with clear_ending():
        main()
