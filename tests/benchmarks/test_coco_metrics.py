"""The benchmark's two sides agree on part of COCO's test, and a limit that does not hold is noticed."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from pathlib import Path

import pytest

from ranking.matrix import write_ranking

FILE = Path(__file__).parents[2] / "benchmarks" / "coco_metrics.py"


@pytest.fixture
def benchmark(monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a module that would read JSON faster
        pytest.importorskip("eccv_caption", reason="the package carries COCO's ids and what judges hold right")
    spec = importlib.util.spec_from_file_location("coco_metrics", FILE)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "coco_metrics", module)
    monkeypatch.syspath_prepend(FILE.parent)  # where its processes find it
    spec.loader.exec_module(module)
    return module


def test_every_figure_is_eccv_captions(benchmark, tmp_path):
    path = tmp_path / "ranking.h5"
    write_ranking(path, benchmark.made_up(400, 1))
    ours, theirs = benchmark.our_figures(path), benchmark.their_figures(path)
    assert len(theirs) == 28
    assert ours == pytest.approx(theirs, abs=1e-12)
    assert len({round(value, 9) for value in ours.values()}) > 20  # not all of them 0 or 1


def test_the_limits_decide(benchmark, monkeypatch, capsys):
    assert benchmark.run(benchmark.Config(images=100))
    assert "28 figures" in capsys.readouterr().out
    for limit in ("MOST_SECONDS", "MOST_BYTES"):
        with monkeypatch.context() as patch:
            patch.setattr(benchmark, limit, 0)
            assert not benchmark.run(benchmark.Config(images=100))
    monkeypatch.setattr(
        benchmark, "_alone", lambda work, path: ({"figure": 0.5 if work is benchmark.our_figures else 0.51}, 0.0, 0)
    )
    assert benchmark.run(benchmark.Config(images=100))
    assert not benchmark.run(benchmark.Config(images=100, reference=True))
