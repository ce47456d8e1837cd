from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from real_processes import die, killed

from training.tracking import Tracker, _run_id, read_history


def row(step: int, **values: object) -> dict[str, object]:
    return {"step": step, "loss": 1 / step, **values}


def test_rows_are_on_disk_at_once(tmp_path):
    with Tracker(tmp_path, 0, False, {}) as tracker:
        tracker.log(row(20))
        tracker.log({"step": 20, "validation": {"rsum": 3.5}})
        assert read_history(tmp_path / "metrics.jsonl") == [row(20), {"step": 20, "validation": {"rsum": 3.5}}]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_restart_drops_what_comes_again(tmp_path):
    with Tracker(tmp_path, 0, False, {}) as tracker:
        for step in (20, 40, 60):
            tracker.log(row(step))
    with Tracker(tmp_path, 40, False, {}) as tracker:
        tracker.log(row(60, again=True))
    assert read_history(tmp_path / "metrics.jsonl") == [row(20), row(40), row(60, again=True)]


def test_a_line_cut_short(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(json.dumps(row(20)) + "\n" + json.dumps(row(40))[:-3])
    assert read_history(tmp_path / "metrics.jsonl") == [row(20)]
    with Tracker(tmp_path, 40, False, {}) as tracker:
        tracker.log(row(40))
    assert read_history(tmp_path / "metrics.jsonl") == [row(20), row(40)]


def test_killed_at_the_restart(tmp_path, monkeypatch):
    with Tracker(tmp_path, 0, False, {}) as tracker:
        tracker.log(row(20))

    def restart() -> None:
        monkeypatch.setattr(Path, "replace", lambda *_: die())
        Tracker(tmp_path, 20, False, {})

    killed(restart)
    assert read_history(tmp_path / "metrics.jsonl") == [row(20)]


def test_nan_is_no_json(tmp_path):
    with Tracker(tmp_path, 0, False, {}) as tracker, pytest.raises(ValueError, match="not JSON compliant"):
        tracker.log({"step": 1, "loss": float("nan")})


def start(run_dir: Path, home: Path, step: int, *steps: int, fail: bool = False) -> None:
    """A process of its own that logs rows of these steps to an offline W&B run."""
    program = f"""
from pathlib import Path
from training.tracking import Tracker
with Tracker(Path({str(run_dir)!r}), {step}, True, {{"width": 16}}) as tracker:
    for step in {steps!r}:
        tracker.log({{"step": step, "loss": 1 / step}})
    tracker.log({{"step": {steps[-1]}, "validation": {{"rsum": 100.5}}}})
    {"raise KeyError('stopped')" if fail else ""}
"""
    environment = {**os.environ, "HOME": str(home), "WANDB_MODE": "offline", "TMPDIR": str(home / "tmp"), "WANDB_SILENT": "true"}
    ended = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert ended.returncode == int(fail), ended.stderr


def records(run_dir: Path, kind: str) -> list[dict[str, object]]:
    """Records of the one W&B run, as wandb's own tool reads them."""
    (log,) = run_dir.glob("wandb/offline-run-*/*.wandb")
    command = [str(Path(sys.executable).parent / "wandb"), "leet", "inspect", "--json", str(log)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [record[kind] for record in map(json.loads, lines) if record["type"] == kind]


def test_wandb_offline(tmp_path):
    """One run across restarts, with the whole history; nothing is left outside of the run folder."""
    run_dir, home = tmp_path / "runs" / "lxmert_finetune" / "a name", tmp_path / "home"
    (home / "tmp").mkdir(parents=True)
    run_dir.mkdir(parents=True)
    start(run_dir, home, 0, 20, 40, 60, fail=True)
    (first,) = records(run_dir, "run")
    assert records(run_dir, "exit")[0]["exit_code"] == 1
    start(run_dir, home, 40, 60, 80)
    (second,) = records(run_dir, "run")
    assert second["run_id"] == first["run_id"]
    assert (second["run_group"], second["display_name"], second["project"]) == ("lxmert_finetune", "a name", "misrank")
    assert second["config"]["update"]["width"] == 16  # type: ignore[index]
    items = [record["item"] for record in records(run_dir, "history")]
    assert [(item["step"], item["loss"]) for item in items] == [(step, pytest.approx(1 / step)) for step in (20, 40, 60, 80)]  # type: ignore[index]
    assert items[-1]["validation/rsum"] == 100.5  # type: ignore[index]
    assert [path for path in home.rglob("*") if path.is_file()] == []
    assert sorted(path.name for path in run_dir.iterdir()) == ["metrics.jsonl", "wandb"]


def test_a_folder_made_anew_is_another_wandb_run(tmp_path):
    first = _run_id(tmp_path, "job", "n" * 300)
    assert _run_id(tmp_path, "job", "n" * 300) == first
    (tmp_path / "run-id.txt").unlink()
    assert _run_id(tmp_path, "job", "n" * 300) != first
    assert len(first) <= 128
