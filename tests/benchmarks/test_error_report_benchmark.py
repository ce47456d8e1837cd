"""The benchmark makes a real report of a few images, and a limit that does not hold is noticed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "benchmarks" / "error_report.py"


@pytest.fixture
def benchmark(monkeypatch):
    spec = importlib.util.spec_from_file_location("error_report_benchmark", FILE)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "error_report_benchmark", module)
    spec.loader.exec_module(module)
    return module


def test_a_report_of_made_up_models(benchmark, tmp_path):
    corpus = benchmark.make_corpus(tmp_path / "corpus", benchmark.Config(images=20))
    split = corpus.split("test")
    assert (len(split.image_ids), len(set(split.text_ids))) == (20, 100)
    paths = [benchmark.write_model(tmp_path, corpus, model) for model in benchmark.NOISE]
    seconds, cpu, peak = benchmark.report(paths, tmp_path / "reports" / "this")
    assert seconds > 0 and cpu > 0 and peak > 1e7
    assert (tmp_path / "reports/this/report/index.html").exists()


def test_real_captions_and_ids(benchmark, tmp_path):
    pytest.importorskip("eccv_caption", reason="the package carries COCO's ids")
    (tmp_path / "ids.json").write_text("[391895, 60623]")
    (tmp_path / "captions.txt").write_text("\n".join(f"caption {number}" for number in range(10)))
    config = benchmark.Config(images=2, captions=tmp_path / "captions.txt", image_ids=tmp_path / "ids.json")
    split = benchmark.make_corpus(tmp_path / "corpus", config).split("test")
    assert split.image_ids == ("391895", "60623")
    assert split.text_ids[:6] == ("770337", "771687", "772707", "776154", "781998", "152106")
    assert split.texts[9] == "caption 9"


@pytest.mark.parametrize(("cost", "holds"), [((89, 50, 10**9), True), ((90, 50, 10**9), False), ((1, 1, 2 * 10**9), False)])
def test_both_limits_decide(benchmark, monkeypatch, capsys, cost, holds):
    class Pool:
        def __init__(self, *given):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def submit(self, *work):
            return self

        def result(self):
            return cost

    monkeypatch.setattr(benchmark, "ProcessPoolExecutor", Pool)
    assert benchmark.run(benchmark.Config(images=3)) is holds
    assert "3 images, 15 captions, 2 models" in capsys.readouterr().out
