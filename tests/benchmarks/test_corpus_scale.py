from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

FILE = Path(__file__).parents[2] / "benchmarks" / "corpus_scale.py"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("corpus_scale", FILE)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "corpus_scale", module)
    spec.loader.exec_module(module)
    return module


def test_killed_and_finished(benchmark: ModuleType, capsys: pytest.CaptureFixture[str]):
    assert benchmark.run(benchmark.Config(count=9000, dimension=16, index="IVF64,SQ8", parameters="nprobe=64"))
    said = capsys.readouterr().out
    assert "of 3 pieces of 4096 texts stand" in said and "9,000 texts over 9,000 images, the best 5 of each" in said
    assert float(said.partition("recall@5 against exact search: ")[2].split()[0]) > 0.9


def test_lines_that_are_missing_or_out_of_place_are_noticed(benchmark: ModuleType, tmp_path: Path):
    path = tmp_path / "retrieved.jsonl"
    for ids, good in ((["t0", "t1"], True), (["t0"], False), (["t1", "t0"], False), (["t0", "t1", "t2"], False)):
        path.write_text("".join(json.dumps({"id": one}) + "\n" for one in ids))
        assert benchmark.in_order(path, 2) == good


def test_a_text_is_near_its_image(benchmark: ModuleType):
    images, texts = (benchmark.made(range(500), kind, 64) for kind in ("images", "texts"))
    np.testing.assert_allclose(np.linalg.norm(texts, axis=1), 1, rtol=1e-5)
    assert ((texts @ images.T).argmax(axis=1) == np.arange(500)).mean() > 0.9
