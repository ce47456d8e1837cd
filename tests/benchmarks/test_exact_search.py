"""The benchmark runs on a few vectors, and a limit that does not hold is noticed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "benchmarks" / "exact_search.py"


@pytest.fixture
def benchmark(monkeypatch):
    spec = importlib.util.spec_from_file_location("exact_search", FILE)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "exact_search", module)
    monkeypatch.syspath_prepend(FILE.parent)  # where its process finds it
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "MOST_TIME", 1e9)
    monkeypatch.setattr(module, "MOST_COPIED", 1e9)
    return module


def test_the_limits_decide(benchmark, monkeypatch, capsys):
    config = benchmark.Config(count=200, dimension=8, top=5)
    assert benchmark.run(config)
    printed = capsys.readouterr().out
    assert "200 synthetic vectors of 8" in printed and "the same neighbours: 1.000000" in printed
    monkeypatch.setattr(benchmark, "from_cold", measured)
    for name in ("MOST_TIME", "MOST_MEMORY", "MOST_COPIED"):
        with monkeypatch.context() as patch:
            patch.setattr(benchmark, name, -1e18)
            patch.setattr(benchmark, "ProcessPoolExecutor", Here)
            assert not benchmark.run(config)


def measured(folder: Path, top: int) -> object:
    return sys.modules["exact_search"].Memory(0.1, 100, 200, 0.1)


class Here:
    """Does the work in this process."""

    def __init__(self, *_: object) -> None: ...
    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None: ...
    def submit(self, work, *given):
        from concurrent.futures import Future

        done: Future = Future()
        done.set_result(work(*given))
        return done
