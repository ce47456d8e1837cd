"""The benchmark runs on a few images, and a limit that does not hold is noticed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "benchmarks" / "image_packing.py"


@pytest.fixture
def benchmark(monkeypatch):
    spec = importlib.util.spec_from_file_location("image_packing", FILE)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "image_packing", module)
    monkeypatch.syspath_prepend(FILE.parent)  # where its processes find it
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "DIFFERENT", 10)
    return module


def test_both_limits_decide(benchmark, monkeypatch, capsys):
    config = benchmark.Config(few=600, many=800, side=64, workers=1)
    monkeypatch.setattr(benchmark, "LEAST_RATE", 0)
    monkeypatch.setattr(benchmark, "MOST_GROWTH", 1e9)
    assert benchmark.run(config)
    printed = capsys.readouterr().out
    assert "800 synthetic images of 64 x 64 pixels" in printed and "per core, of the bare loop" in printed
    monkeypatch.setattr(benchmark, "LEAST_RATE", 1e9)
    assert not benchmark.run(config)
