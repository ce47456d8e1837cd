"""Say how the runs of this folder stand: one table, those at work first, then the newest.

python jobs/status.py
python jobs/status.py runs/lxmert_finetune
python jobs/status.py runs/lxmert_predict/default runs/error_report --all
"""

from __future__ import annotations

import shutil
import sys
import textwrap
import time
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import tyro

from launch.failure import clear_ending
from launch.options import command_line
from launch.results import Results, results_of
from launch.status import Status, statuses

MOST = 40
"""Runs that the table shows unless asked for all."""
COLUMNS = "{:<9} {:>12} {:>8} {:>6} {:>5} {:>8}  "
INDENT = " " * 10


@dataclass(frozen=True)
class Options:
    runs: tyro.conf.Positional[tuple[Path, ...]] = (Path("runs"),)
    """Run folders, or folders of them."""
    all: bool = False
    """Show all; otherwise those at work and the newest, 40 at most."""


def main() -> None:
    options = command_line(Options, "jobs/status.py", __doc__ or "")
    found = statuses(_run_folders(options.runs))
    newest_first = sorted(((not run.at_work, -_last_sign(run), run) for run in found), key=lambda each: each[:2])
    shown = newest_first if options.all else newest_first[:MOST]
    width = shutil.get_terminal_size((100, 24)).columns if sys.stdout.isatty() else 0
    print(COLUMNS.format("state", "step", "loss", "rsum", "tries", "seen") + "run")
    for _, minus_seen, run in shown:
        print(_row(run, results_of(run.run_dir), -minus_seen, width))
    if len(found) > len(shown):
        print(f"and {len(found) - len(shown)} older: --all shows them")


def _run_folders(places: tuple[Path, ...]) -> list[Path]:
    """The run folders at or below some places: those that hold a config.yaml. ValueError where there are none."""
    found: dict[Path, None] = {}
    for place in places:
        files = chain(*(place.glob(f"{'[!.]*/' * depth}config.yaml") for depth in range(3)))
        folders = [path.parent.absolute() for path in files]
        if not folders:
            raise ValueError(f"{place}: no run here; jobs leave theirs in runs/<job>/<name> where they are started")
        found |= dict.fromkeys(folders)
    return list(found)


def _last_sign(run: Status) -> float:
    """When a run last got on, in seconds: something was submitted, begun, saved or written."""
    files = ["submission.json", "metrics.jsonl", "metrics.json", "config.yaml"]
    if run.attempts:
        files.append(f"attempts/{run.attempts[-1].number:04d}.json")
    times = [(run.run_dir / file).stat().st_mtime for file in files if (run.run_dir / file).exists()]
    return max(times, default=0.0)


def _row(run: Status, results: Results, seen: float, width: int) -> str:
    """Its line; below it, why it stands so."""
    cells = (
        run.state,
        _progress(run, results),
        "" if results.loss is None else f"{results.loss:.4f}",
        f"{next(iter(results.figures.values())):.1f}" if results.figures else "",
        len(run.attempts) or "",
        _ago(time.time() - seen),
    )
    line = COLUMNS.format(*cells)
    name = run.name
    if width and len(line + name) > width:
        kept = (width - len(line) - 3) // 2
        name = f"{name[:kept]}...{name[-kept:]}"
    why = run.why.removeprefix("error: ")
    notes = textwrap.wrap(why, width or 100, initial_indent=INDENT, subsequent_indent=INDENT, max_lines=3, placeholder=" ...")
    return "\n".join([line + name, *notes])


def _progress(run: Status, results: Results) -> str:
    if results.step:
        return f"{results.step}" + (f" {results.share:5.0%}" if results.share is not None else "")
    blocks = run.attempts[-1].progress if run.attempts else 0
    return f"{blocks} blocks" if blocks else ""


def _ago(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"


if __name__ == "__main__":
    with clear_ending():
        main()
