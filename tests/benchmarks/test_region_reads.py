from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

FILE = Path(__file__).parents[2] / "benchmarks" / "region_reads.py"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark with a small file."""
    spec = importlib.util.spec_from_file_location("region_reads", FILE)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "region_reads", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "MADE", (200, 36, 256))
    return module


def test_both_sides_are_told(benchmark: ModuleType, capsys: pytest.CaptureFixture[str]):
    benchmark.run(benchmark.Config())
    printed = capsys.readouterr().out
    assert "200 of 200 images, 36 regions of 256 numbers, 64 at once" in printed and "ratio" in printed


def test_a_slow_store_is_noticed(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    benchmark.make(tmp_path / "regions-x.h5", 20, 3, 4)
    seconds = iter([1.0, 1.3] * 5 + [1.0, 1.2] * 5)  # bare, store
    monkeypatch.setattr(benchmark, "timed", lambda call: next(seconds))
    config = benchmark.Config(tmp_path / "regions-x.h5")
    assert not benchmark.run(config)
    assert benchmark.run(config)
