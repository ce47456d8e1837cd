"""Every format is known by its content and gives the regions that were written into it."""

from __future__ import annotations

import numpy as np
import pytest
from region_files import SIZES, WRITERS, corpus_folder, lxmert_tsv, made_up

from corpora.corpus import Corpus, CorpusError
from preprocess.region_choices import Choices
from preprocess.region_formats import FORMATS, recognise
from preprocess.regions import import_regions


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("name", WRITERS)
def test_what_was_written_is_read(tmp_path, name, given):
    write, layout, labels = WRITERS[name]
    truth = made_up()
    source = tmp_path / "no-ending"
    write(source, truth)
    assert recognise(source) is FORMATS[layout]
    folder = corpus_folder(tmp_path / "corpus")
    assert import_regions(folder, [source], "x", Choices(format=layout if given else "auto", exact=True))
    store = Corpus(folder).regions("x")
    assert sorted(store.ids) == sorted(SIZES)
    for image_id, expected in truth.items():
        found = store.of(image_id)
        assert tuple(found.labels) == labels
        np.testing.assert_array_equal(found.features, expected.features)
        exact = {"rtol": 0, "atol": 1e-7 if name.startswith("vinvl") else 0}  # which holds float32 in [0, 1]
        np.testing.assert_allclose(found.boxes, expected.boxes, **exact)
        for label in labels:
            np.testing.assert_array_equal(found.labels[label], getattr(expected, label))


def test_float64_boxes_are_told(tmp_path, capsys):
    WRITERS["bottom_up_tsv_float64"][0](tmp_path / "a.tsv", made_up())
    import_regions(corpus_folder(tmp_path / "corpus"), [tmp_path / "a.tsv"], "x")
    assert "a.tsv, line 1: boxes are float64" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"one\ttwo\tthree\tfour\n", r"4 columns\); known are: LXMERT's ten columns"),
        (b"\x89HDF\r\n\x1a\n" + bytes(50), "not a whole HDF5 file"),
    ],
)
def test_unknown_content(tmp_path, content, words):
    (tmp_path / "x.tsv").write_bytes(content)
    with pytest.raises(ValueError, match=words):
        import_regions(corpus_folder(tmp_path / "corpus"), [tmp_path / "x.tsv"], "x")


def test_unreadable_paths(tmp_path):
    folder = corpus_folder(tmp_path / "corpus")
    with pytest.raises(CorpusError, match=r"none\.tsv: cannot be read \(No such file"):
        import_regions(folder, [tmp_path / "none.tsv"], "x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match=r"empty: cannot be read .*expected a folder of two folders"):
        import_regions(folder, [tmp_path / "empty"], "x")


@pytest.mark.parametrize("layout", FORMATS)
def test_the_wrong_format_is_one_clear_error(tmp_path, layout):
    lxmert_tsv(tmp_path / "a.tsv", made_up())
    folder = corpus_folder(tmp_path / "corpus")
    if layout == "lxmert-tsv":
        assert import_regions(folder, [tmp_path / "a.tsv"], "x", Choices(format=layout))
        return
    with pytest.raises(ValueError, match=r"a\.tsv"):
        import_regions(folder, [tmp_path / "a.tsv"], "x", Choices(format=layout))
