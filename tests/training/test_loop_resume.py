"""A run is stopped in every way and started again: weights and history are those of an unbroken run, bit for bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from real_processes import die, killed, small_disk
from tiny_training import Run, Stop, history, link, same, stopper, weights

from training.loop import TrainingError


@pytest.mark.parametrize("call", [1, 5, 6, 11, 12, 23, 45])
def test_stopped_at_any_step_by_an_exception(unbroken, tmp_path, call):
    """Before the first checkpoint, right after one, between two, between a log and a checkpoint, at the last step."""
    with pytest.raises(Stop):
        Run(tmp_path, make=stopper(call))()
    Run(tmp_path)()
    same(tmp_path, unbroken)


def test_killed_again_and_again(unbroken, tmp_path):
    """kill -9 while a step is made, while a checkpoint is written, and while it validates."""
    killed(Run(tmp_path, make=stopper(8, die)))
    killed(Run(tmp_path, save=lambda folder: die() if "00000020" in folder.name else None))
    killed(Run(tmp_path, rsum=lambda step, loss: die() if step == 33 else 600 - loss))
    Run(tmp_path)()
    same(tmp_path, unbroken)


@pytest.mark.parametrize("moment", ["training.checkpoints.point", "training.checkpoints.prune"])
def test_killed_after_the_best_checkpoint_was_written(unbroken, tmp_path, moment, monkeypatch):
    """The link `best` is set again at the next start, before anything is deleted."""

    def run() -> None:
        from training import checkpoints

        before = getattr(checkpoints, moment.split(".")[-1])
        monkeypatch.setattr(moment, lambda folder, step, best: die() if step == 11 else before(folder, step, best))
        Run(tmp_path)()

    killed(run)
    with pytest.raises(Stop):
        Run(tmp_path, make=stopper(1))()
    assert link(tmp_path, "best") == "step-00000011"
    Run(tmp_path)()
    same(tmp_path, unbroken)


def test_killed_from_outside_as_a_process_of_its_own(unbroken, tmp_path):
    """Loader workers and all; the run then goes on without workers."""
    argument = json.dumps({"run_dir": str(tmp_path), "workers": 1})
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())}
    child = subprocess.Popen([sys.executable, str(Path(__file__).with_name("tiny_training.py")), argument], env=environment)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("checkpoints/step-*")):
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    child.kill()
    assert child.wait() == -9
    assert history(tmp_path) != history(unbroken), "the process was killed too late for this test"
    Run(tmp_path)()
    same(tmp_path, unbroken)


def test_loader_workers(unbroken, tmp_path):
    with pytest.raises(Stop):
        Run(tmp_path, workers=2, rsum=lambda step, loss: 600 - loss if step < 33 else stopper(1)(None, None))()
    Run(tmp_path, workers=2)()
    same(tmp_path, unbroken)


def test_a_finished_run_started_again_changes_nothing(unbroken, tmp_path):
    first = Run(tmp_path)()
    assert Run(tmp_path)() == first
    same(tmp_path, unbroken)


def test_dropout_and_seed_matter(unbroken, tmp_path):
    """Otherwise the tests above could not fail."""
    for number, other in enumerate((Run(tmp_path / "0", dropout=0.0), Run(tmp_path / "1", {"seed": 43}))):
        other()
        assert not torch.equal(weights(tmp_path / str(number))["0.weight"], weights(unbroken)["0.weight"])


def test_best_that_went_with_a_damaged_checkpoint(tmp_path):
    """Step 22 replaced the best of step 11, which was deleted; then 22 turns out to be damaged: what is left has no best."""
    with pytest.raises(Stop):
        Run(tmp_path, make=stopper(23))()
    os.truncate(tmp_path / "checkpoints" / "step-00000022" / "optimizer.pt", 10)
    with pytest.raises(Stop):
        Run(tmp_path, make=stopper(1))()
    assert link(tmp_path, "last") == "step-00000020"
    Run(tmp_path)()
    assert (tmp_path / "checkpoints" / "best" / "model.safetensors").exists()


@pytest.mark.parametrize(
    "changed, said",
    [({"batch_size": 10}, "batch_size 8 there and 10 here"), ({"seed": 1, "clip": 2.0}, "clip 1.0 there and 2.0 here, seed 42")],
)
def test_other_options_on_resume_are_refused(unbroken, changed, said):
    with pytest.raises(TrainingError, match=f"step-00000045: saved by a run with other options .{said}.* choose another --name"):
        Run(unbroken, changed)()


def test_saving_more_often_is_no_other_run(unbroken, tmp_path):
    with pytest.raises(Stop):
        Run(tmp_path, make=stopper(20))()
    Run(tmp_path, {"save_every": 2})()
    assert history(tmp_path) == history(unbroken)


def test_full_disk_at_a_save(tmp_path):
    """The same command goes on from the checkpoint before, once there is room."""
    with small_disk(tmp_path / "disk", 1) as disk:

        def fill(folder: Path) -> None:
            if "00000010" in folder.name:
                (folder / "more").write_bytes(bytes(1 << 20))

        with pytest.raises(OSError, match=r"No space left on device: .*step-00000010"):
            Run(disk, save=fill)()
        assert link(disk, "last") == "step-00000005"
        Run(disk)()
        assert [row["step"] for row in history(disk)] == [11, 20, 22, 33, 40, 44, 45, 45]
