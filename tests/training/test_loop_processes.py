"""Three processes with gloo between them, against one process."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from real_processes import in_processes
from tiny_training import Run, history, link, make, same, stopper, weights

from training.sampling import step_samples

SIZE = 3
"""With two, any order of the sums gives the same bits."""
LEARNING = {"batch_size": 12, "steps": 20, "save_every": 4, "evaluate_every": 6}


def attempt(folder: Path, name: str, run: Run) -> None:
    """Run, and keep the error that this process met."""
    try:
        run()
    except Exception as error:
        (folder / f"{name}-{os.environ['RANK']}.txt").write_text(f"{type(error).__name__}: {error}")


def sample_order(folder: Path) -> None:
    seen = []

    def noting(samples, generator):
        seen.append(samples)
        return make(samples, generator)

    Run(folder / "whole", LEARNING, dropout=0.0, make=noting)()
    np.save(folder / f"samples-{os.environ['RANK']}.npy", np.stack(seen[1:]))  # the first are those of the warm-up


def resume(folder: Path) -> None:
    Run(folder / "unbroken", LEARNING)()
    for _ in range(2):
        attempt(folder, "stopped", Run(folder / "broken", LEARNING, make=stopper(8)))
    Run(folder / "broken", LEARNING)()


def not_a_number(folder: Path) -> None:
    """In one of the processes only."""
    seen = []

    def spoil(loss):
        seen.append(loss)
        return loss * math.nan if os.environ["RANK"] == "1" and len(seen) == 8 else loss

    attempt(folder, "nan", Run(folder / "nan", LEARNING, loss=spoil))


def full_disk(folder: Path) -> None:
    """The main process alone saves, so it alone meets a full disk."""

    def fail(part: Path) -> None:
        if "00000008" in part.name:
            raise OSError(28, "No space left on device")

    attempt(folder, "full", Run(folder / "full", LEARNING, save=fail))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where the processes left their runs, made one after the other in one process group."""
    folder = tmp_path_factory.mktemp("processes")
    scenarios = (sample_order, resume, not_a_number, full_disk)
    assert in_processes(SIZE, lambda: [scenario(folder) for scenario in scenarios]) == [0] * SIZE
    return folder


def errors(folder: Path, name: str) -> list[str]:
    return [(folder / f"{name}-{rank}.txt").read_text() for rank in range(SIZE)]


def test_the_processes_share_every_batch_in_order(folder):
    parts = [np.load(folder / f"samples-{rank}.npy") for rank in range(SIZE)]
    expected = [step_samples(30, 12, 42, step) for step in range(20)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), expected)


def test_the_weights_are_those_of_one_process(folder, tmp_path):
    Run(tmp_path, LEARNING, dropout=0.0)()
    for key, value in weights(tmp_path).items():
        torch.testing.assert_close(weights(folder / "whole")[key], value, rtol=1e-4, atol=1e-5)
    for one, other in zip(history(tmp_path), history(folder / "whole"), strict=True):
        assert one.keys() == other.keys()
        assert one.get("loss", 0) == pytest.approx(other.get("loss", 0), abs=1e-5)


def test_a_stopped_run_ends_with_the_same_bits(folder):
    assert errors(folder, "stopped") == ["Stop: "] * SIZE
    same(folder / "broken", folder / "unbroken")


def test_nan_in_one_process_stops_all_with_its_samples(folder):
    samples = step_samples(30, 12, 42, 6)[4:8]
    for error in errors(folder, "nan"):
        assert error.startswith("TrainingError: loss nan at step 7, learning rate ")
        assert f"samples: {', '.join(f'caption-{i}' for i in samples)}. The last" in error
    assert all(value.isfinite().all() for value in weights(folder / "nan").values())


def test_a_save_that_fails_stops_all(folder):
    for error in errors(folder, "full"):
        assert error.startswith("OSError: [Errno 28] No space left on device: ")
    assert link(folder / "full", "last") == "step-00000006"
