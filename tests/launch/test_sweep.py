"""Sweeps: combinations, and what is said of them, worked out by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from launch.options import OptionError
from launch.planning import PlanError
from launch.status import Status
from launch.sweep import Element, SweepError, as_markdown, elements, save_summary, summary, sweep_name

TWO = ["seed=1,2,3", "learning-rate=1e-4,3e-4"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_all_combinations_are_runs_as_the_job_would_name_them():
    sweep = elements("clip_finetune", TWO, ["--steps=5", "--minutes=3"])
    assert [(element.values["seed"], element.values["learning_rate"]) for element in sweep] == [
        (seed, rate) for seed in "123" for rate in ("1e-4", "3e-4")
    ]
    assert sweep[1].plan.folder == "runs/clip_finetune/steps-5_learning_rate-0.0003_seed-1"
    assert {element.plan.resources.minutes for element in sweep} == {3}
    assert sweep_name("clip_finetune", sweep) == "clip_finetune_seed-1+2+3_learning_rate-1e-4+3e-4_steps-5"


def test_a_long_name_is_cut_and_stays_apart():
    names = {
        sweep_name(
            "clip_finetune", elements("clip_finetune", ["seed=1"], [f"--checkpoint={'x' * 40}/{c}", f"--corpus={'y' * 40}"])
        )
        for c in "ab"
    }
    assert len(names) == 2 and all(len(name) <= 100 for name in names)


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ([], "--over: name an option and its values"),
        (["seed"], "--over seed: expected an option and its values"),
        (["seed=1,,2"], "--over seed=1,,2: expected"),
        (["seed=1", "seed=2"], "--over seed=2: seed has values already"),
        (["seed=1,1"], "two combinations are the same run, runs/clip_finetune/seed-1"),
        (["sed=1"], r"--over for clip_finetune: unknown option 'sed' \(did you mean 'seed'\?\)"),
        (["seed=1,x"], "clip_finetune with seed=x: Error parsing --seed"),
        (["batch_size=4,0"], "clip_finetune with batch_size=0: --batch-size 0: must be 1 or more"),
    ],
)
def test_mistakes_are_named(over, message):
    with pytest.raises((SweepError, PlanError, OptionError), match=message):
        elements("clip_finetune", over, [])


def ended(element: Element, state: str, rsum: float | None) -> Status:
    """A run that stands so, with this figure in its folder."""
    if rsum is not None:
        element.plan.run_dir.mkdir(parents=True)
        row = {"step": 5, "validation": {"rsum": rsum, "i2t_MedR": rsum / 10}}
        (element.plan.run_dir / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    return Status(element.plan.run_dir, (), None, "", state)  # type: ignore[arg-type]


@pytest.fixture
def sweep() -> list[Element]:
    return elements("clip_finetune", TWO, [])


@pytest.fixture
def found(sweep) -> list[Status]:
    """1e-4: 100, 104 and one that runs. 3e-4: 90, one that failed, one without a figure."""
    states = [
        ("finished", 100.0),
        ("finished", 90.0),
        ("finished", 104.0),
        ("failed", 300.0),
        ("running", 500.0),
        ("finished", None),
    ]
    return [ended(element, *state) for element, state in zip(sweep, states, strict=True)]


def test_only_finished_runs_count(sweep, found):
    slow, fast = summary(sweep, found, "rsum")["settings"]
    assert slow["options"] == {"learning_rate": "1e-4"} and fast["options"] == {"learning_rate": "3e-4"}
    assert (slow["finished"], slow["mean"], slow["best"]) == (2, 102.0, 104.0)
    assert slow["deviation"] == pytest.approx(math.sqrt(8))  # ((-2)^2 + 2^2) / (2 - 1)
    assert (fast["finished"], fast["mean"], fast["deviation"], fast["best"]) == (2, 90.0, None, 90.0)
    assert [run["state"] for run in slow["runs"]] == ["finished", "finished", "running"]
    assert summary(sweep, found, "rsum")["best_run"] == sweep[2].plan.folder


def test_the_table_says_what_is_missing(sweep, found):
    assert as_markdown(summary(sweep, found, "rsum")) == (
        "| learning_rate | finished | mean rsum | sd   | best            |\n"
        "|---------------|----------|-----------|------|-----------------|\n"
        "| 1e-4          | 2 of 3   | 102.00    | 2.83 | 104.00 (seed 2) |\n"
        "| 3e-4          | 2 of 3   | 90.00     | -    | 90.00 (seed 1)  |\n"
        "\n"
        "- not counted: learning_rate=1e-4, seed=3 (running)\n"
        "- not counted: learning_rate=3e-4, seed=2 (failed)\n"
        "- not counted: learning_rate=3e-4, seed=3 (finished without rsum)\n"
        "- sd: standard deviation of a sample (n - 1) over the seeds\n"
        "- best run: runs/clip_finetune/learning_rate-0.0001_seed-2\n"
    )


def test_of_ranks_the_lowest_is_best(sweep, found):
    result = summary(sweep, found, "i2t_MedR")
    assert result["best_run"] == sweep[1].plan.folder and result["settings"][0]["best"] == 10.0


def test_a_figure_that_no_run_has(sweep, found):
    with pytest.raises(SweepError, match=r"--metric R@1: .* has no such figure; it has rsum, i2t_MedR"):
        summary(sweep, found, "R@1")


def test_nothing_is_finished():
    sweep = elements("clip_finetune", ["seed=1"], [])
    result = summary(sweep, [ended(sweep[0], "pending", None)], "rsum")
    assert result["best_run"] is None and result["settings"][0]["mean"] is None
    assert "| 0 of 1   | -         | -  | -    |" in as_markdown(result)


def test_the_table_is_kept(tmp_path, sweep, found):
    result = summary(sweep, found, "rsum")
    save_summary(tmp_path / "runs/sweep/x", result)
    assert json.loads((tmp_path / "runs/sweep/x/summary.json").read_text()) == result
    assert (tmp_path / "runs/sweep/x/summary.md").read_text() == as_markdown(result)
    assert not list(Path("runs/sweep/x").glob("*.part"))
