"""python jobs/status.py, as a user sees it."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from starting import tool

from jobs import status
from launch.history import Record


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A folder with three runs, on a machine without Slurm."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    now = time.time()
    for age, (name, record) in enumerate(
        {
            "clip_zero_shot/default": Record(1, job="", how="finished", progress=12),
            "lxmert_finetune/long-ago": Record(1, job="", how="failed", message="error: loss nan at step 21"),
            "lxmert_finetune/at-work": Record(1, job="31"),
        }.items(),
        1,
    ):
        run_dir = tmp_path / "runs" / name
        (run_dir / "attempts").mkdir(parents=True)
        (run_dir / "config.yaml").write_text("steps: 80\n")
        (run_dir / "attempts/0001.json").write_text(json.dumps(asdict(record)))
        for path in (run_dir / "config.yaml", run_dir / "attempts/0001.json"):
            os.utime(path, (now - 3600 * age, now - 3600 * age))
    (tmp_path / "runs/lxmert_finetune/long-ago/metrics.jsonl").write_text('{"step": 20, "epoch": 1, "loss": 0.69314}\n')
    os.utime(tmp_path / "runs/lxmert_finetune/long-ago/metrics.jsonl", (now - 5 * 86400,) * 2)
    (tmp_path / "runs/clip_zero_shot/default/metrics.json").write_text(
        json.dumps({"figures": {"i2t": {"R@1": 4.0}, "t2i": {"R@1": 5.0}, "rsum": 123.45}})
    )
    return tmp_path


def test_the_table(place, capsys):
    assert tool("status") == 0
    assert [re.sub(r" +", " ", line).strip() for line in capsys.readouterr().out.splitlines()] == [
        "state step loss rsum tries seen run",
        "finished 12 blocks 123.5 1 0 s clip_zero_shot/default",
        "failed 20 25% 0.6931 1 2 h lxmert_finetune/long-ago",
        "loss nan at step 21",
        "unknown 1 3 h lxmert_finetune/at-work",
        "job 31: squeue: squeue is not on the path",
    ]


@pytest.mark.parametrize("asked", ["runs/lxmert_finetune", "runs/lxmert_finetune/long-ago", "."])
def test_some_runs(place, capsys, monkeypatch, asked):
    if asked == ".":
        monkeypatch.chdir("runs/lxmert_finetune")
    assert tool("status", asked) == 0
    out = capsys.readouterr().out
    assert "lxmert_finetune/long-ago" in out and "clip_zero_shot" not in out


def test_runs_at_work_come_first_and_the_oldest_are_left_out(place, capsys, monkeypatch, on_path_slurm):
    monkeypatch.setattr(status, "MOST", 2)
    on_path_slurm("31|RUNNING|None|n1")
    tool("status")
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("running") and lines[2].strip() == "job 31 on n1" and lines[3].startswith("finished")
    assert lines[4:] == ["and 1 older: --all shows them"]
    tool("status", "--all")
    assert "long-ago" in capsys.readouterr().out


@pytest.fixture
def on_path_slurm(place):
    def answer(line: str) -> None:
        (place / "squeue").write_text(f"#!/bin/bash\necho '{line}'\n")
        (place / "squeue").chmod(0o755)

    return answer


def test_a_line_fits_the_terminal(place, capsys, monkeypatch):
    (place / "runs/lxmert_finetune/long-ago").rename(place / f"runs/lxmert_finetune/{'x' * 60}_seed-3")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    tool("status")
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100 and any("..." in line and line.endswith("xx_seed-3") for line in lines)


@pytest.mark.parametrize("arguments", [(), ("nowhere",), ("runs",)])
def test_no_runs(tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    assert "no run here; jobs leave theirs in runs/<job>/<name>" in str(tool("status", *arguments))


def test_hundreds_of_runs_take_less_than_a_second(place, capsys):
    for number in range(300):
        run_dir = place / f"runs/clip_finetune/run-{number}"
        (run_dir / "attempts").mkdir(parents=True)
        (run_dir / "config.yaml").write_text("steps: 80\n")
        (run_dir / "attempts/0001.json").write_text(json.dumps(asdict(Record(1, job=str(number)))))
        (run_dir / "metrics.jsonl").write_text('{"step": 20, "epoch": 1, "loss": 0.69314}\n' * 300)
    begun = time.process_time()
    assert tool("status", "--all") == 0
    assert time.process_time() - begun < 1
    assert capsys.readouterr().out.count("clip_finetune/run-") == 300
