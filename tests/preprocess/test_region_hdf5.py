"""HDF5 groups and region files of other corpora."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from region_files import SIZES, corpus_folder, hdf5_groups, made_up

from corpora.corpus import Corpus
from corpora.regions import write_regions
from preprocess.region_choices import Choices
from preprocess.regions import import_regions


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("visual_pos", None, "group 502: cannot be read .KeyError"),
        ("visual_feats", np.zeros(3), r"group 502: cannot be read .*visual_feats is \(3,\) float64"),
        ("visual_feats", np.array([b"x"]), "visual_feats is .*S1"),
        ("visual_pos", np.full((3, 4), 77.0), "group 502: regions of image 502: box from 77"),
    ],
)
def test_a_wrong_group_is_named(tmp_path, name, value, words):
    folder = corpus_folder(tmp_path / "corpus")
    hdf5_groups(tmp_path / "a.h5", made_up())
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file[f"502/{name}"]
        if value is not None:
            file[f"502/{name}"] = value
    with pytest.raises(ValueError, match=words):
        import_regions(folder, [tmp_path / "a.h5"], "x")
    assert not list(folder.glob("regions*"))


def test_a_huge_array_is_not_read(tmp_path):
    hdf5_groups(tmp_path / "a.h5", made_up())
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file["9/visual_feats"]
        file.create_dataset("9/visual_feats", (1 << 40, 60), "f4", chunks=(1, 60))
    with pytest.raises(ValueError, match=r"group 9: .*1099511627776"):
        import_regions(corpus_folder(tmp_path / "corpus"), [tmp_path / "a.h5"], "x")


def test_a_region_file_brings_its_names_and_rows_of_other_images_stay_behind(tmp_path):
    truth = made_up()
    names = {"class_names": [f"thing {n}" for n in range(1600)], "attribute_names": [f"kind {n}" for n in range(400)]}
    write_regions(tmp_path / "all.h5", truth.values(), 4, **names)
    folder = corpus_folder(tmp_path / "corpus", {key: SIZES[key] for key in ("9", "501")})
    import_regions(folder, [tmp_path / "all.h5"], "x", Choices())
    store = Corpus(folder).regions("x")
    assert store.class_names[:2] == ("thing 0", "thing 1") and len(store.attribute_names) == 400
    np.testing.assert_array_equal(store.of("9").features, truth["9"].features.astype(np.float16))
    np.testing.assert_array_equal(store.of("9").classes, truth["9"].classes)
