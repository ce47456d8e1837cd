"""A fixture shared by the tests of the training loop."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny run that nothing stopped."""
    from tiny_training import Run

    run_dir = tmp_path_factory.mktemp("unbroken")
    Run(run_dir)()
    return run_dir
