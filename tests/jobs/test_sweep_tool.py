"""python jobs/sweep.py: real jobs, on this machine and on a real Slurm."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from starting import TINY, start, tool

SMALL = ("--train", 8, "--val", 4, "--test", 4, "--size", 32)
ON_SLURM = ("--cluster", "slurm", "--memory-per-gpu-gb", 2, "--cpus-per-gpu", 1, "--minutes", 5)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_here_one_run_after_the_other(capfd):
    sweep = ("make_scenes", *SMALL, "--over", "folder=data/a,data/b", "--cluster", "local", "--name", "two")
    Path("data").mkdir()
    Path("data/b").write_text("in the way")
    assert tool("sweep", *sweep, "--dry-run") == 0
    assert capfd.readouterr().out.count("would run: runs/make_scenes/folder-a") == 1 and not Path("runs").exists()
    assert tool("sweep", *sweep) == 1
    out = capfd.readouterr().out
    assert "== 1 of 2: folder=data/a\n" in out
    assert "- not counted: folder=data/b (not begun)\n" in out  # a mistake in a first start leaves no folder
    Path("data/b").unlink()
    assert tool("sweep", *sweep) == 0
    out = capfd.readouterr().out
    assert "== 1 of 1: folder=data/b\n" in out
    assert "| data/b | 1 of 1   | -         | -  | -    |" in out and "folder=data/b (finished without rsum)" in out
    assert out.endswith("table: runs/sweep/two/summary.md\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name a job first"),
        (("make_scenes",), "--over: name an option and its values"),
        (("make_scense", "--over", "seed=1"), "no job 'make_scense' (did you mean 'make_scenes'?)"),
        (("make_scenes", "--over", "seed=1", "--trian", 4), "Unrecognized options: --trian, 4"),
        (("make_scenes", "--over", "seed=1", "--at-once", -1), "--at-once -1: must be 0 or more"),
        (("make_scenes", "--over", "seed=1", "--name", "a/b"), "--name 'a/b': use letters"),
    ],
)
def test_mistakes_are_told_before_anything_is_done(arguments, message):
    assert message in str(tool("sweep", *arguments))
    assert not Path("runs").exists()


@pytest.mark.slurm
def test_on_slurm_three_seeds_are_one_array(cluster, capfd):
    assert start("make_scenes", *SMALL) == 0
    options = (*TINY["clip_finetune"].split(), "--steps", 2, "--evaluate-every", 1)
    sweep = ("clip_finetune", *options, *ON_SLURM, "--over", "seed=1,2,3", "--at-once", 2, "--name", "seeds")
    assert tool("sweep", *sweep) == 0
    out = capfd.readouterr().out
    assert "submitted 3 of 3 runs: job " in out and "- not counted: seed=3 (pending)\n" in out
    job = out.partition("job ")[2].partition(",")[0]
    assert cluster.ask("squeue", "--noheader", "--array", f"--jobs={job}", "--format=%i").split().__len__() == 3
    assert tool("sweep", *sweep, "--follow") == 0
    out = capfd.readouterr().out
    assert "submitted" not in out and "3 completed\n" in out and "| 3 of 3   |" in out
    result = json.loads(Path("runs/sweep/seeds/summary.json").read_text())
    values = [run["value"] for run in result["settings"][0]["runs"]]
    assert result["settings"][0]["mean"] == pytest.approx(sum(values) / 3)
    assert Path(result["best_run"], "checkpoints/best").exists()
    assert tool("sweep", *sweep) == 0 and "submitted" not in capfd.readouterr().out
