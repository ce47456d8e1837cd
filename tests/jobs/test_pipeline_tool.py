"""python jobs/pipeline.py: real jobs, on this machine and on a real Slurm."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from starting import tool

SMALL = "train: 4, val: 2, test: 2, size: 32"
STAGES = f"""
scenes: {{job: make_scenes, options: {{folder: data/a, {SMALL}}}}}
middle: {{job: make_scenes, options: {{folder: data/b, {SMALL}}}, after: [scenes]}}
last: {{job: make_scenes, options: {{folder: data/c, {SMALL}}}, after: [middle]}}
other: {{job: make_scenes, options: {{folder: data/d, {SMALL}}}}}
"""
ON_SLURM = ("--cluster", "slurm", "--memory-per-gpu-gb", 1, "--cpus-per-gpu", 1, "--minutes", 2)


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """Where the stage in the middle cannot make its corpus: a file is in the way."""
    monkeypatch.chdir(tmp_path)
    Path("stages.yaml").write_text(STAGES)
    Path("data").mkdir()
    Path("data/b").write_text("in the way")
    return tmp_path


def mend() -> None:
    Path("data/b").unlink()


def pipeline(*arguments: object) -> int | str | None:
    return tool("pipeline", "stages.yaml", *arguments)


def rows(text: str) -> list[list[str]]:
    """The cells of a table's lines, without the first."""
    return [re.split(r"\s{2,}", line) for line in text.splitlines()[1:] if "runs/make_scenes" in line]


def test_what_would_be_done(place, capsys):
    assert pipeline("--dry-run") == 0
    assert rows(capsys.readouterr().out) == [
        ["scenes", "run", "runs/make_scenes/stages-scenes"],
        ["middle", "run", "runs/make_scenes/stages-middle", "scenes"],
        ["last", "run", "runs/make_scenes/stages-last", "middle"],
        ["other", "run", "runs/make_scenes/stages-other"],
    ]
    assert not Path("runs").exists()


def test_here_a_failure_stops_what_needs_it_and_the_next_call_goes_on(place, capfd):
    end = str(pipeline("--cluster", "local", "--name", "x"))
    assert end.startswith("\nfailed: middle\nnot run because of that: last\n")
    out, err = capfd.readouterr()
    heads = [line for line in out.splitlines() if line.startswith("==")]
    assert heads == ["== scenes (1 of 4): make_scenes", "== middle (2 of 4): make_scenes", "== other (4 of 4): make_scenes"]
    assert "data/b" in err and "stage middle failed: see above" in err
    mend()
    assert pipeline("--cluster", "local", "--name", "x") == 0
    heads = [line for line in capfd.readouterr().out.splitlines() if line.startswith("==")]
    assert heads == [
        "== scenes (1 of 4): finished, runs/make_scenes/x-scenes",
        "== middle (2 of 4): make_scenes",
        "== last (3 of 4): make_scenes",
        "== other (4 of 4): finished, runs/make_scenes/x-other",
    ]
    assert pipeline("--cluster", "local", "--name", "x", "--dry-run") == 0
    assert [row[1] for row in rows(capfd.readouterr().out)] == ["be skipped"] * 4


def test_mistakes_are_told_before_anything_is_done(place):
    assert str(pipeline("--name", "a/b")).startswith("error: --name 'a/b-scenes'")
    assert pipeline("--minutes", "x") == 2
    Path("stages.yaml").write_text("a: {job: make_scenes, after: [b]}")
    assert str(pipeline()) == "error: stages.yaml: stage a: after: no stage 'b'; stages: a"
    assert not Path("runs").exists()


@pytest.mark.slurm
def test_on_slurm_a_failure_cancels_what_needs_it_and_the_next_call_goes_on(cluster, place, capfd):
    end = str(pipeline(*ON_SLURM, "--follow"))
    assert end.startswith("\nfailed: middle\nnot run because of that: last\n")
    out, err = capfd.readouterr()
    table = rows(out)
    numbers = [int(row[1]) for row in table]
    assert numbers == list(range(numbers[0], numbers[0] + 4))
    assert [row[3:] for row in table] == [[], ["scenes"], ["middle"], []]
    assert re.search(r"\d\d:\d\d:\d\d  middle: FAILED", out) and "last: CANCELLED (DependencyNeverSatisfied)" in out
    assert f"stage middle failed\njob {numbers[1]} ended as FAILED" in err and "data/b" in err
    tool("status")
    seen = re.sub(r" +", " ", capfd.readouterr().out)
    assert "make_scenes/stages-last\n make_scenes/stages-middle failed, which it needed\n" in seen
    mend()
    assert pipeline(*ON_SLURM, "--follow") == 0
    assert [row[1] for row in rows(capfd.readouterr().out)] == ["finished", str(numbers[0] + 4), str(numbers[0] + 5), "finished"]
    assert Path("data/c/corpus.json").exists()
    assert pipeline(*ON_SLURM, "--follow") == 0
    assert [row[1] for row in rows(capfd.readouterr().out)] == ["finished"] * 4


@pytest.mark.slurm
def test_what_is_at_work_on_slurm_is_awaited(cluster, place, capfd):
    mend()
    cluster.ask("scontrol", "update", "partition=gpu", "state=down")  # jobs wait
    try:
        assert pipeline(*ON_SLURM) == 0
        first = rows(capfd.readouterr().out)
        assert pipeline(*ON_SLURM) == 0 and rows(capfd.readouterr().out) == first
        cluster.ask("scancel", first[0][1])  # the next two go with it, sooner or later
        assert pipeline(*ON_SLURM) == 0
        again = rows(capfd.readouterr().out)
        assert again[3] == first[3] and all(int(row[1]) > int(first[3][1]) for row in again[:3])
    finally:
        cluster.ask("scontrol", "update", "partition=gpu", "state=up")
    assert pipeline(*ON_SLURM, "--follow") == 0
    assert Path("data/c/corpus.json").exists()
