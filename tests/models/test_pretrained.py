from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel

from models.pretrained import read_config, read_model, read_tokenizer
from models.tokenizer import learn_tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    config = BertConfig(vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    BertModel(config).save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def test_a_whole_checkpoint_is_read(folder: Path):
    config = read_config(str(folder), "bert")
    model, absent = read_model(BertModel, str(folder), config)
    assert not absent and model.config.vocab_size == 30
    learn_tokenizer(["abc"]).save_pretrained(folder)
    assert len(read_tokenizer(str(folder), 30)) == len(learn_tokenizer(["abc"]))


def test_missing_weights_are_random_only_where_that_is_expected(folder: Path):
    model = BertModel.from_pretrained(folder)
    weights = {name: value for name, value in model.state_dict().items() if not name.startswith("pooler.")}
    model.save_pretrained(folder, state_dict=weights)
    config = read_config(str(folder), "bert")
    with pytest.raises(ValueError, match=r"2 weights are missing and would be random, the first: pooler\.dense\.bias"):
        read_model(BertModel, str(folder), config)
    again, absent = read_model(BertModel, str(folder), config, optional="pooler.")
    assert absent == ["pooler.dense.bias", "pooler.dense.weight"]
    assert torch.equal(again.embeddings.word_embeddings.weight, model.embeddings.word_embeddings.weight)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "config.json").write_text("{"), "configuration cannot be read .*not a valid JSON"),
        (lambda folder: (folder / "config.json").unlink(), "configuration cannot be read"),
        (lambda folder: folder.rename("moved"), "no such folder"),
        (lambda folder: cut(folder / "model.safetensors"), "weights cannot be read"),
        (lambda folder: (folder / "model.safetensors").unlink(), "weights cannot be read .*no file named model.safetensors"),
        (lambda folder: replace(folder / "config.json", '"vocab_size": 30', '"vocab_size": 31'), "weights cannot be read"),
        (lambda folder: None, "holds no tokenizer"),
        (lambda folder: learn_tokenizer(["abcdefghijklmnopqrst"]).save_pretrained(folder), "tokens and the model only 30"),
    ],
)
def test_a_damaged_checkpoint_is_one_clear_error(folder: Path, monkeypatch: pytest.MonkeyPatch, spoil, message: str):
    monkeypatch.chdir(folder.parent)
    spoil(folder)
    with pytest.raises(ValueError, match=message) as raised:
        config = read_config(str(folder), "bert")
        read_model(BertModel, str(folder), config)
        read_tokenizer(str(folder), config.vocab_size)
    assert str(raised.value).startswith(str(folder)) and "\n" not in str(raised.value)


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_another_model_type(folder: Path):
    with pytest.raises(ValueError, match="a bert checkpoint; clip is needed"):
        read_config(str(folder), "clip")
