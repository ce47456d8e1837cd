"""Files of texts become corpora without images, line by line."""

from __future__ import annotations

import pickle

import pytest

from corpora.corpus import Corpus, CorpusError
from corpora.store import StoreError
from preprocess.text_corpus import prepare, read_texts


def test_plain_lines(tmp_path, capsys):
    path = tmp_path / "texts.txt"
    path.write_bytes("\ufeffA cat.\r\n\n  Straße \u2028 weiter\nlast".encode())
    assert prepare(path, tmp_path / "corpus", "gallery")
    split = Corpus(tmp_path / "corpus").split("gallery")
    assert split.texts == ("A cat.", "Straße \u2028 weiter", "last")
    assert split.text_ids == ("1", "3", "4")
    assert (split.image_ids, len(split.pairs)) == ((), 0)
    with pytest.raises(StoreError, match=r"images\.h5: holds no image 'x'"):
        pickle.loads(pickle.dumps(Corpus(tmp_path / "corpus").images)).picture("x")  # a model's inputs may hold it
    assert "1 lines without text were passed over" in capsys.readouterr().err
    assert not prepare(path, tmp_path / "corpus", "gallery")


def test_json_lines(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "a"}\n{"id": "x-7", "text": "b", "more": 1}\n{"id": 12, "text": "c"}\n')
    prepare(path, tmp_path / "corpus")
    split = Corpus(tmp_path / "corpus").split("test")
    assert (split.text_ids, split.texts) == (("1", "x-7", "12"), ("a", "b", "c"))


def test_dialogues(tmp_path, capsys):
    path = tmp_path / "reddit.tsv"
    path.write_text("hello there\t how are you? \tfine\n\nonly one\nyes\t\tno\t\n")
    whole = list(read_texts(path, "test", "dialogues"))
    assert [(text.id, text.text) for text in whole] == [
        ("1", "hello there how are you? fine"),
        ("3", "only one"),
        ("4", "yes no"),
    ]
    assert "1 lines without dialogues were passed over" in capsys.readouterr().err
    assert prepare(path, tmp_path / "corpus", "test", "contexts")
    split = Corpus(tmp_path / "corpus").split("test")
    assert (split.text_ids, split.texts) == (("1", "4"), ("hello there how are you?", "yes"))
    assert "2 lines without contexts were passed over" in capsys.readouterr().err
    with pytest.raises(CorpusError, match="layout contexts there and dialogues here"):
        prepare(path, tmp_path / "corpus", "test", "dialogues")
    assert next(read_texts(path, "test")).text == "hello there\t how are you? \tfine"  # a text keeps its tabs


def test_dialogues_in_json_lines(tmp_path):
    path = tmp_path / "reddit.jsonl"
    path.write_text('{"id": "a", "text": "hello\\tthere"}\n')
    assert [text.text for text in read_texts(path, "test", "contexts")] == ["hello"]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("t.txt", b"", "holds no texts"),
        ("t.txt", b"\n \n", "holds no texts"),
        ("t.txt", b"fine\n\xff\n", "line 2: no UTF-8 text"),
        ("t.txt", b"a" * 2_000_000, "line 1: longer than 1,048,576 bytes"),
        ("t.jsonl", b'{"id": 1}\n', "line 1: no text among id"),
        ("t.jsonl", b'{"text": "a"}\n{"text"', "line 2: cannot be read as JSON"),
        ("t.jsonl", b'{"text": ["a"]}\n', "line 1: the caption is"),
        ("t.jsonl", b'{"text": "a", "id": null}\n', "line 1: the id is 'None'"),
        ("t.jsonl", b'{"text": "a", "id": "x\\ny"}\n', "the id is 'x.ny'"),
        ("t.jsonl", b'{"text": "a", "id": 2}\n{"text": "b"}\n', "1 caption ids stand there more than once, the first: 2"),
    ],
)
def test_texts_that_cannot_be_read(tmp_path, name, text, words):
    (tmp_path / name).write_bytes(text)
    with pytest.raises((CorpusError, StoreError), match=words):
        prepare(tmp_path / name, tmp_path / "corpus")
    assert not (tmp_path / "corpus").exists()


def test_texts_come_one_by_one(tmp_path):
    """The second line is damaged, and that is noticed only when it is asked for."""
    (tmp_path / "t.txt").write_bytes(b"fine\n\xff\n")
    texts = read_texts(tmp_path / "t.txt", "test")
    assert next(texts).text == "fine"
    with pytest.raises(CorpusError):
        next(texts)
