"""The benchmark runs on a few vectors and leaves its table, figures and plot."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

FILE = Path(__file__).parents[2] / "benchmarks" / "retrieval_time.py"


@pytest.fixture
def benchmark(monkeypatch):
    spec = importlib.util.spec_from_file_location("retrieval_time", FILE)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "retrieval_time", module)
    spec.loader.exec_module(module)
    return module


def test_table_figures_and_plot(benchmark, tmp_path, capsys):
    config = benchmark.Config(tmp_path / "out", 400, 20, 5, (8, 16), ("Flat", "SQ8", "IVF8,Flat"))
    rows = benchmark.run(config)
    assert [(row.type, row.dimension) for row in rows] == [(kind, size) for size in (8, 16) for kind in config.types]
    assert all(row.recall == 1 for row in rows if row.type == "Flat") and rows[2].recall < 1
    assert [round(row.bytes_a_vector) for row in rows[:2]] == [32, 8]
    table = (tmp_path / "out" / "table.md").read_text()
    assert table in capsys.readouterr().out and "| Flat | 16 |" in table
    assert len(json.loads((tmp_path / "out" / "figures.json").read_text())["rows"]) == 6
    assert Image.open(tmp_path / "out" / "plot.png").size[0] > 500


def test_a_gpu_has_a_panel_of_its_own(benchmark, tmp_path):
    config = benchmark.Config(tmp_path, types=("Flat", "HNSW32"), dimensions=(8, 16))
    rows = [benchmark.Row(kind, size, 1, 1, 1, 0.5, 0.1 if kind == "Flat" else None) for kind in config.types for size in (8, 16)]
    assert [axes.get_ylabel() for axes in benchmark.plot(rows, config).axes] == ["CPU ms a query", "GPU ms a query", "recall@10"]
    assert "| Flat | 8 | 1.0 | 1 | 1.000 | 0.500 | 0.100 |" in benchmark.as_table(rows, config)
    assert "| HNSW32 | 8 | 1.0 | 1 | 1.000 | 0.500 | - |" in benchmark.as_table(rows, config)


def test_the_vectors_are_of_one_length(benchmark, tmp_path):
    vectors, queries = benchmark.made_up(tmp_path / "v", 50, 5, 40)
    assert np.allclose(np.linalg.norm(np.concatenate([vectors.rows, queries]), axis=1), 1, atol=1e-5)
