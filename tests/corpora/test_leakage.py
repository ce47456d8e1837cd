"""A model that was trained on pictures it is tested with, under other names perhaps."""

from __future__ import annotations

import numpy as np
import pytest

from corpora.corpus import CorpusError, Split
from corpora.leakage import leakage, note_training, refuse_leakage, trained_on


def split(name: str, *sources: str) -> Split:
    ids = tuple(f"{name}-{i}" for i in range(len(sources)))
    return Split(name, ids, ("",) * len(ids), ids, ids, np.array([(i, i) for i in range(len(ids))]), sources)


def checkpoint(folder, *sources: str, start: str = "scratch") -> str:
    folder.mkdir()
    note_training(folder, split("train", *sources), start)
    return str(folder)


def test_shared_pictures_are_counted_whatever_their_ids(tmp_path):
    model = checkpoint(tmp_path / "model", "coco/1", "coco/2", "coco/3", "")
    assert leakage(model, split("test", "coco/2", "coco/3", "coco/4", "")) == "2 of the 4 images were trained on"
    with pytest.raises(
        CorpusError, match=r"data/x: split test: 2 of the 2 images were trained on by .*model \(the first: coco/2\)"
    ):
        refuse_leakage(model, split("test", "coco/3", "coco/2"), "data/x")


def test_nothing_shared_or_nothing_known(tmp_path):
    model = checkpoint(tmp_path / "model", "coco/1", "flickr/2")
    assert leakage(model, split("test", "coco/2", "flickr/1", "1")) == ""
    unknown = checkpoint(tmp_path / "unknown", "", "")
    assert not list((tmp_path / "unknown").iterdir()) and leakage(unknown, split("test", "coco/1", "")) == ""
    refuse_leakage("openai/clip", split("test", "coco/1"), tmp_path)


def test_what_a_checkpoint_was_trained_on_before_is_not_forgotten(tmp_path):
    first = checkpoint(tmp_path / "first", "coco/1")
    second = checkpoint(tmp_path / "second", "flickr/1", start=first)
    assert trained_on(second) == {"coco/1", "flickr/1"}
    third = checkpoint(tmp_path / "third", "", start=second)
    assert leakage(third, split("test", "coco/1")) == "1 of the 1 images were trained on"
