"""Regions go in and out through the jobs."""

from __future__ import annotations

import numpy as np

from corpora.corpus import Corpus, CorpusWriter, ImageRecord
from corpora.images import write_images
from jobs import export_regions, import_regions


def test_import_then_export_then_import(tmp_path, capsys):
    with CorpusWriter(tmp_path / "corpus") as corpus:
        write_images(corpus.part / "images.h5", [("a", b"x"), ("b", b"x")])
        corpus.images += [ImageRecord(key, "train", 4, 4) for key in "ab"]
    rng = np.random.default_rng(0)
    features, boxes = rng.normal(size=(2, 3, 5)).astype(np.float32), np.sort(rng.random((2, 3, 4)))
    np.savez(tmp_path / "in.npz", files=["a.jpg", "b.jpg"], features=features, boxes=boxes, classes=np.ones((2, 3), int))
    config = import_regions.Config(corpus=tmp_path / "corpus", sources=(tmp_path / "in.npz",), extractor="x", exact=True)
    import_regions.run(config, tmp_path)
    import_regions.run(config, tmp_path)
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("made: ") and told[1].startswith("stands already: ")
    export_regions.run(export_regions.Config(tmp_path / "corpus", output=tmp_path / "new" / "out", format="npz-folder"), tmp_path)
    assert capsys.readouterr().out.endswith("out, 2 images\n")
    again = import_regions.Config(corpus=tmp_path / "corpus", sources=(tmp_path / "new" / "out",), extractor="y", exact=True)
    import_regions.run(again, tmp_path)
    store = Corpus(tmp_path / "corpus").regions("y")
    np.testing.assert_array_equal(store.read(["b"])[0][0], features[1])
    assert store.of("a").classes.tolist() == [1, 1, 1]
