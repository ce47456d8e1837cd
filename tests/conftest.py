"""Fixtures shared by several test folders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from real_azurite import Azurite, running_azurite
from real_browser import running_browser
from real_slurm import Cluster, running_cluster

# Before torch is imported: a forked process would wait for ever for its parent's threads, and processes of the
# tests that run side by side would wait for each other's cores.
os.environ["OMP_NUM_THREADS"] = "1"

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real test data, which is not part of the project: MISRANK_TEST_DATA, or shared/data beside the checkout."""
    folder = Path(os.environ.get("MISRANK_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real test data: {folder} does not exist (set MISRANK_TEST_DATA)")
    return folder


@pytest.fixture(scope="session")
def running() -> Iterator[Cluster]:
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture
def cluster(running: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A Slurm of two nodes without jobs, which sbatch and `--cluster slurm` find during this test only; mark such tests slurm."""
    monkeypatch.setenv("SLURM_CONF", str(running.folder / "slurm.conf"))
    yield running
    running.clear()


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    with running_azurite(tmp_path_factory.mktemp("azurite")) as azurite:
        yield azurite


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Chromium, driven by selenium; mark such tests browser."""
    with running_browser(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser
