"""Tests that need torchvision: the main environment has none, `bash setup.sh test` runs these in one that has."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import pytest

REASON = "no torchvision here; bash setup.sh test runs these in .venv-detector"


def detector(test: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a test as one of the detector's."""
    absent = importlib.util.find_spec("torchvision") is None
    return pytest.mark.detector(pytest.mark.skipif(absent, reason=REASON)(test))
