"""One job over all combinations of some of its options, and what comes of each setting, over its seeds."""

from __future__ import annotations

import hashlib
import itertools
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launch.options import as_flags
from launch.planning import Plan, load_job, plan
from launch.results import better, results_of
from launch.run_folder import run_name, write_text
from launch.status import Status

SEED = "seed"
"""The option whose values are repetitions, not settings."""


class SweepError(ValueError):
    """Combinations that cannot be, or a figure that no run has."""


@dataclass(frozen=True)
class Element:
    """One combination."""

    values: Mapping[str, str]
    """Of the options that the sweep goes over, as they were written."""
    plan: Plan


def elements(job: str, over: Sequence[str], flags: Sequence[str]) -> list[Element]:
    """All combinations of `over` ("seed=1,2,3"), each checked by the job's own parser; the flags are the same in all."""
    choices = _choices(over)
    config_type, found = load_job(job, "sweep").Config, []
    for chosen in itertools.product(*choices.values()):
        values = dict(zip(choices, chosen, strict=True))
        where = f"{job} with {', '.join(f'{key}={value}' for key, value in values.items())}"
        found.append(Element(values, plan(job, [*flags, *as_flags(config_type, values, f"--over for {job}")], where)))
    folders = [element.plan.folder for element in found]
    twice = [folder for folder in folders if folders.count(folder) > 1]
    if twice:
        raise SweepError(f"--over: two combinations are the same run, {twice[0]}; name each value once")
    return found


def _choices(over: Sequence[str]) -> dict[str, list[str]]:
    choices: dict[str, list[str]] = {}
    for text in over:
        name, equals, values = text.partition("=")
        key = name.replace("-", "_")
        if not (equals and all(values.split(","))):
            raise SweepError(f"--over {text}: expected an option and its values, as seed=1,2,3")
        if key in choices:
            raise SweepError(f"--over {text}: {name} has values already; list them all in one --over")
        choices[key] = values.split(",")
    if not choices:
        raise SweepError("--over: name an option and its values, as --over seed=1,2,3; it may be given for several options")
    return choices


def sweep_name(job: str, sweep: Sequence[Element]) -> str:
    """The job, what the sweep goes over, and what else differs from the job's defaults."""
    keys = list(sweep[0].values)
    over = [f"{key}-{'+'.join(dict.fromkeys(element.values[key] for element in sweep))}" for key in keys]
    same = run_name(sweep[0].plan.config, without=keys)
    name = "_".join([job, *over, *([] if same == "default" else [same])])
    if len(name) > 100 or not name.replace("+", "").isascii():
        name = f"{name[:90]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return name.replace("/", ".")


def summary(sweep: Sequence[Element], found: Sequence[Status], metric: str) -> dict[str, Any]:
    """What came of each setting of everything but the seed. Only finished runs count; the others are listed by their state.

    Deviations are those of a sample (n - 1), None for a single run.
    """
    settings: dict[tuple[tuple[str, str], ...], list[dict[str, Any]]] = {}
    for element, status in zip(sweep, found, strict=True):
        values = tuple((key, value) for key, value in element.values.items() if key != SEED)
        row: dict[str, Any] = {"run": element.plan.folder, "state": status.state}
        row |= {SEED: element.values[SEED]} if SEED in element.values else {}
        if status.state == "finished":
            row["value"] = _value(element.plan.run_dir, metric)
        settings.setdefault(values, []).append(row)
    rows = [_setting(dict(values), runs, metric) for values, runs in settings.items()]
    best = None
    for row in rows:
        if row["best"] is not None and (best is None or better(metric, row["best"], best["best"])):
            best = row
    return {"metric": metric, "settings": rows, "best_run": best and best["best_run"]}


def _value(run_dir: Path, metric: str) -> float | None:
    figures = results_of(run_dir).figures
    if figures and metric not in figures:
        raise SweepError(f"--metric {metric}: {run_dir} has no such figure; it has {', '.join(figures)}")
    return figures.get(metric)


def _setting(values: Mapping[str, str], runs: list[dict[str, Any]], metric: str) -> dict[str, Any]:
    counted = [run for run in runs if run.get("value") is not None]
    numbers = [run["value"] for run in counted]
    best = None
    for run in counted:
        if best is None or better(metric, run["value"], best["value"]):
            best = run
    return {
        "options": values,
        "runs": runs,
        "finished": sum(run["state"] == "finished" for run in runs),
        "mean": statistics.fmean(numbers) if numbers else None,
        "deviation": statistics.stdev(numbers) if len(numbers) > 1 else None,
        "best": best and best["value"],
        "best_run": best and best["run"],
    }


def as_markdown(result: Mapping[str, Any]) -> str:
    """A summary as a table that reads well in a terminal too."""
    metric, settings = result["metric"], result["settings"]
    head = [*settings[0]["options"], "finished", f"mean {metric}", "sd", "best"]
    rows = [head, *(_cells(setting) for setting in settings)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    notes = [note for setting in settings for note in _left_out(setting, metric)]
    notes.append("sd: standard deviation of a sample (n - 1) over the seeds")
    if result["best_run"]:
        notes.append(f"best run: {result['best_run']}")
    return "\n".join([*lines, "", *(f"- {note}" for note in notes)]) + "\n"


def _cells(setting: Mapping[str, Any]) -> list[str]:
    mean, deviation, best = ("-" if setting[key] is None else f"{setting[key]:.2f}" for key in ("mean", "deviation", "best"))
    seed = next((f" (seed {run[SEED]})" for run in setting["runs"] if run["run"] == setting["best_run"] and SEED in run), "")
    return [*setting["options"].values(), f"{setting['finished']} of {len(setting['runs'])}", mean, deviation, best + seed]


def _left_out(setting: Mapping[str, Any], metric: str) -> Iterator[str]:
    """The runs that do not count in a mean, and why."""
    for run in setting["runs"]:
        if run.get("value") is None:
            values = setting["options"] | ({SEED: run[SEED]} if SEED in run else {})
            why = f"finished without {metric}" if run["state"] == "finished" else run["state"]
            yield f"not counted: {', '.join(f'{key}={value}' for key, value in values.items())} ({why})"


def save_summary(folder: Path, result: Mapping[str, Any]) -> None:
    """summary.json and summary.md."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "summary.json", json.dumps(result, indent=1) + "\n")
    write_text(folder / "summary.md", as_markdown(result))
