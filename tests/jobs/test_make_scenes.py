"""The job makes the corpus once and then says that it stands."""

from __future__ import annotations

from corpora.corpus import Corpus
from jobs.make_scenes import RESOURCES, Config, run


def test_make_scenes_twice(tmp_path, capsys):
    config = Config(folder=tmp_path / "scenes", train=4, val=3, test=2, size=32)
    run(config, tmp_path / "run")
    assert capsys.readouterr().out.startswith("made: ")
    assert [Corpus(config.folder).info["splits"][name]["images"] for name in ("train", "val", "test")] == [4, 3, 2]
    run(config, tmp_path / "run")
    assert capsys.readouterr().out.startswith("stands already: ")


def test_needs_no_gpu():
    assert RESOURCES.gpus_per_node == 0
