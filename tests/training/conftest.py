"""Fixtures shared by the tests of the training loop."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums must not depend on how many cores the machine has."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny run that nothing stopped."""
    from real_processes import in_processes
    from tiny_training import Run

    run_dir = tmp_path_factory.mktemp("unbroken")
    assert in_processes(1, Run(run_dir)) == [0]
    return run_dir
