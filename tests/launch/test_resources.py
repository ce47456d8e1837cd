"""What a job may ask for."""

from __future__ import annotations

import pytest

from launch.resources import Resources


@pytest.mark.parametrize("name", ["nodes", "minutes", "cpus_per_gpu", "memory_per_gpu_gb"])
def test_at_least_one(name):
    with pytest.raises(ValueError, match=rf"--{name.replace('_', '-')} 0: must be at least 1"):
        Resources(**{name: 0})


def test_gpus():
    with pytest.raises(ValueError, match="--gpus-per-node -1: must be 0 or more"):
        Resources(gpus_per_node=-1)
    assert [Resources(gpus_per_node=gpus).processes_per_node for gpus in (0, 1, 4)] == [1, 1, 4]


@pytest.mark.parametrize("minutes", [0.0, -1.0, float("nan")])
def test_patience(minutes):
    with pytest.raises(ValueError, match=rf"--stalled-minutes {minutes}: must be above 0"):
        Resources(stalled_minutes=minutes)


@pytest.mark.parametrize(("minutes", "seconds"), [(1, 15), (2, 24), (5, 60), (10, 120), (11, 120), (7 * 24 * 60, 120)])
def test_seconds_to_stop(minutes, seconds):
    """Two minutes, and at most a fifth of a short limit; Slurm itself may be half a minute early."""
    assert Resources(minutes=minutes).seconds_to_stop == seconds
