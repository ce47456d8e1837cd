"""Run a job over all combinations of some of its options, and compare what comes of them; on Slurm as one job array.

python jobs/sweep.py lxmert_finetune --over seed=1,2,3 --over learning_rate=1e-4,3e-4 --corpus data/coco --at-once 4
python jobs/sweep.py lxmert_predict --over checkpoint=runs/a/checkpoints/best,runs/b/checkpoints/best --metric t2i_R@1

The job's own flags are the same in all runs; `python jobs/<job>.py --help` lists them. Given again, the command starts what
is neither finished nor at work, and prints the table of what is finished: mean and deviation over the seeds, best run.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from launch import slurm
from launch.failure import clear_ending
from launch.options import command_line_with_rest
from launch.planning import run_here
from launch.run_folder import check_name
from launch.status import Status, statuses
from launch.submission import submit_array
from launch.sweep import Element, as_markdown, elements, save_summary, summary, sweep_name
from launch.watching import watch


@dataclass(frozen=True)
class Options:
    over: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="OPTION=VALUE,VALUE")] = ()
    """An option of the job and its values, as seed=1,2,3; may be given for several options."""
    at_once: int = 0
    """On Slurm: runs at work at the same time; 0 = as many as Slurm gives."""
    metric: str = "rsum"
    """Figure to compare, of the best validation or of the ranking: rsum, i2t_R@1, t2i_R@10 ..."""
    name: str = ""
    """Folder of the table under runs/sweep/; by default the job, the values and what else differs from its defaults."""
    cluster: Literal["auto", "slurm", "local"] = "auto"
    """auto: Slurm where one is set up, else local. local: on this machine, one run after the other."""
    follow: bool = False
    """On Slurm: wait until all runs are over; the exit code is 1 if one did not finish."""
    dry_run: bool = False
    """Print what would be started and do nothing."""


def main() -> None:
    job, options, flags = _command()
    if options.at_once < 0:
        raise ValueError(f"--at-once {options.at_once}: must be 0 or more")
    check_name(options.name)
    sweep = elements(job, options.over, flags)
    folder = Path("runs", "sweep", options.name or sweep_name(job, sweep))
    found = _stand(sweep)
    left = [element for element, status in zip(sweep, found, strict=True) if not (status.state == "finished" or status.at_work)]
    if options.dry_run:
        print(*(f"{'would run' if element in left else 'is there'}: {element.plan.folder}" for element in sweep), sep="\n")
        return
    if options.cluster == "slurm" or (options.cluster == "auto" and slurm.is_set_up()):
        _on_slurm(sweep, left, options)
    else:
        _here(left)
    found = _stand(sweep)
    result = summary(sweep, found, options.metric)
    save_summary(folder, {"job": job, **result})
    print(f"\n{as_markdown(result)}table: {folder / 'summary.md'}")
    waits = not options.follow and any(status.at_work for status in found)
    sys.exit(int(not waits and any(status.state != "finished" for status in found)))


def _command() -> tuple[str, Options, list[str]]:
    """The job, the sweep's own options, and the flags that are the job's."""
    words = sys.argv[1:]
    job = words.pop(0) if words and not words[0].startswith("-") else ""
    options, flags = command_line_with_rest(Options, words, "jobs/sweep.py JOB", __doc__ or "")
    if not job:
        raise ValueError("name a job first, as in: jobs/sweep.py lxmert_finetune --over seed=1,2,3")
    return job, options, flags


def _stand(sweep: Sequence[Element]) -> list[Status]:
    return statuses([element.plan.run_dir for element in sweep])


def _on_slurm(sweep: Sequence[Element], left: Sequence[Element], options: Options) -> None:
    if left:
        made = submit_array([element.plan.task for element in left], left[0].plan.resources, at_once=options.at_once)
        print(f"submitted {len(left)} of {len(sweep)} runs: job {made[0].job.split('_')[0]}, logs: {Path(made[0].log).parent}")
    jobs = [status.job for status in _stand(sweep) if status.at_work and status.job]
    if not options.follow:
        if jobs:
            print("the same command with --follow waits for them; python jobs/status.py shows how they get on")
        return
    try:
        for states in watch(jobs) if jobs else ():
            count = Counter(state.state.lower() for state in states.values())
            print(
                time.strftime("%H:%M:%S "), ", ".join(f"{number} {state}" for state, number in sorted(count.items())), flush=True
            )
    except KeyboardInterrupt:
        print("\nthe runs live on; the same command shows them again", file=sys.stderr)
        sys.exit(130)


def _here(left: Sequence[Element]) -> None:
    for number, element in enumerate(left, 1):
        print(f"== {number} of {len(left)}: {', '.join(f'{key}={value}' for key, value in element.values.items())}")
        if run_here(element.plan):
            print("this run failed: see above", file=sys.stderr, flush=True)


if __name__ == "__main__":
    with clear_ending():
        main()
