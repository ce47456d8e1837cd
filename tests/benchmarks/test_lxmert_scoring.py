from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from transformers import LxmertConfig

FILE = Path(__file__).parents[2] / "benchmarks" / "lxmert_scoring.py"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark with a tiny model."""
    spec = importlib.util.spec_from_file_location("lxmert_scoring", FILE)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "lxmert_scoring", module)
    spec.loader.exec_module(module)
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16, "l_layers": 1, "r_layers": 1, "x_layers": 2}
    monkeypatch.setattr(
        module, "LxmertConfig", lambda head: LxmertConfig(head=head, initializer_range=0.2, vocab_size=1000, **sizes)
    )
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    return module


def test_both_ways_agree(benchmark: ModuleType, capsys: pytest.CaptureFixture[str]):
    assert benchmark.run(benchmark.Config())
    printed = capsys.readouterr().out
    assert "12 images x 24 captions of 9 to 19 tokens" in printed and "ratio" in printed


def test_a_difference_is_noticed(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch):
    whole = benchmark.full_scores
    monkeypatch.setattr(benchmark, "full_scores", lambda *given: whole(*given) + 2e-5)
    assert not benchmark.run(benchmark.Config())


def test_captions_are_taken_at_even_distances(benchmark: ModuleType, tmp_path: Path):
    file = tmp_path / "captions.txt"
    file.write_text("".join(f"caption {number}\n\n" for number in range(53)))
    assert benchmark._captions(file) == [f"caption {number}" for number in range(0, 48, 2)]
    file.write_text("one\ntwo\n")
    with pytest.raises(ValueError, match="2 captions; at least 24 are needed"):
        benchmark._captions(file)
