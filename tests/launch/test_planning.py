"""Runs that are planned: what is refused before anything starts, where they go, and how one runs here."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch.options import OptionError
from launch.planning import PlanError, plan, run_here
from launch.run_folder import RunFolderError, make_run_folder

SMALL = ["--train=4", "--val=2", "--test=2", "--size=32"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_plan_is_what_the_job_itself_would_do(tmp_path):
    planned = plan("make_scenes", ["--seed=3", "--minutes=7"], "here")
    assert planned.folder == "runs/make_scenes/seed-3" and planned.run_dir == tmp_path / planned.folder
    assert planned.task.module == "jobs.make_scenes" and planned.task.values["seed"] == 3 == planned.config.seed
    assert planned.resources.minutes == 7 == planned.task.started["resources"]["minutes"]
    assert not Path("runs").exists()


def test_resources_for_many_runs():
    asked = {"gpus_per_node": 8, "nodes": 2, "minutes": 9}
    needs_none, needs_some = (
        plan(job, ["--minutes=5"], "here", resources=asked).resources for job in ("make_scenes", "clip_zero_shot")
    )
    assert (needs_none.gpus_per_node, needs_none.nodes, needs_none.minutes) == (0, 1, 9)
    assert (needs_some.gpus_per_node, needs_some.nodes, needs_some.minutes) == (8, 2, 9)


@pytest.mark.parametrize(
    ("job", "flags", "message"),
    [
        ("make_scense", [], r"here: no job 'make_scense' \(did you mean 'make_scenes'\?\); jobs: blob_sync, "),
        ("sweep", [], "here: no job 'sweep'; jobs: "),
        ("../x", [], "no job"),
        ("make_scenes", ["--seed=x"], "here: Error parsing --seed: invalid literal for int.*: 'x'$"),
        ("make_scenes", ["--sed=1"], "here: Unrecognized options: --sed=1"),
        ("lxmert_finetune", ["--loss=sofmax"], "here: invalid choice 'sofmax' for argument '--loss'. Expected one of"),
        ("lxmert_finetune", ["--batch-size=0"], "here: --batch-size 0: must be 1 or more$"),
        ("make_scenes", ["--minutes=0"], "here: --minutes 0: must be at least 1$"),
        ("make_scenes", ["--config=none.yaml"], "here: --config none.yaml: cannot be read"),
    ],
)
def test_mistakes_are_named_with_their_place(job, flags, message):
    with pytest.raises((PlanError, OptionError), match=message):
        plan(job, flags, "here")


def test_a_name_that_other_options_took_gets_a_number():
    first = plan("make_scenes", ["--seed=1"], "here", "mine")
    make_run_folder(first.run_dir, first.task.values)
    second = plan("make_scenes", ["--seed=2"], "here", "mine")
    assert (first.run_dir.name, second.run_dir.name) == ("mine", "mine-2")
    make_run_folder(second.run_dir, second.task.values)
    assert plan("make_scenes", ["--seed=1"], "here", "mine").folder == first.folder
    assert plan("make_scenes", ["--seed=2"], "here", "mine").folder == second.folder
    assert plan("make_scenes", ["--seed=3"], "here", "mine").run_dir.name == "mine-3"
    with pytest.raises(RunFolderError, match="use letters"):
        plan("make_scenes", [], "here", "a/b")


def test_it_runs_here_in_a_process_of_its_own(capfd):
    planned = plan("make_scenes", [*SMALL, "--folder=made"], "here", "mine")
    assert run_here(planned) == 0
    assert Path("made/corpus.json").exists() and f"run folder: {planned.run_dir}" in capfd.readouterr().out
    assert run_here(plan("error_report", ["--rankings", "none.h5"], "here")) == 1
    assert "none.h5: no such ranking file" in capfd.readouterr().err


def test_its_process_ends_with_this_one(tmp_path):
    """A stand-in for Python tells who it is and waits."""
    (tmp_path / "python").write_text("#!/bin/bash\necho $$ >pid\nexec sleep 60\n")
    (tmp_path / "python").chmod(0o755)
    code = f"import sys; from launch.planning import *; sys.executable = './python'; run_here(plan('make_scenes', {SMALL}, ''))"
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path) as parent:
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            time.sleep(0.05)
        parent.send_signal(signal.SIGTERM)
        assert parent.wait(10) == 128 + signal.SIGTERM
    assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()


@pytest.fixture(autouse=True)
def own_handler():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)
