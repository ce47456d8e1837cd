"""Folders with a file an image: both sides must be there, damage names the file."""

from __future__ import annotations

import numpy as np
import pytest
from region_files import corpus_folder, made_up, npz_folder, tern_flickr_folder, tern_folder

from corpora.corpus import CorpusError
from preprocess.regions import import_regions


@pytest.fixture
def folder(tmp_path):
    return corpus_folder(tmp_path / "corpus")


def refused(folder, source, words):
    with pytest.raises(CorpusError, match=words):
        import_regions(folder, [source], "x")
    assert not list(folder.glob("regions*"))


def test_an_image_without_boxes(folder, tmp_path):
    tern_folder(tmp_path / "a", made_up())
    (tmp_path / "a" / "cocobu_box" / "dog_1.npy").unlink()
    refused(folder, tmp_path / "a", "1 images are in one of its two folders only, the first: dog_1")


def test_pixels_of_the_original_do_not_fit_shrunk_images(tmp_path):
    tern_folder(tmp_path / "a", made_up())
    folder = corpus_folder(tmp_path / "shrunk", short_side=224)
    refused(folder, tmp_path / "a", "boxes are in pixels of the original image, and this corpus was packed with --short-side")


def test_boxes_that_are_no_pixels(folder, tmp_path):
    tern_folder(tmp_path / "a", made_up())
    np.save(tmp_path / "a" / "cocobu_box" / "502.npy", made_up()["502"].boxes)
    refused(folder, tmp_path / "a", r"502\.npz, image 502: boxes should be in pixels and none reaches beyond 1")


def test_a_fifth_number_that_is_no_class(folder, tmp_path):
    tern_flickr_folder(tmp_path / "a", made_up())
    np.savez(tmp_path / "a" / "data_box" / "9.npz", feat=np.full((3, 5), 0.25))
    refused(folder, tmp_path / "a", r"data_box/9\.npz: cannot be read .*fifth number of a box should be a class, and is 0\.25")


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"visual_feats": np.zeros((3, 60))}, r"502\.npz: cannot be read \(KeyError.*visual_pos"),
        (
            {"visual_feats": np.zeros((3, 60)), "visual_pos": np.zeros((2, 4))},
            r"502\.npz: regions of image 502: features \(3, 60\)",
        ),
        ({"visual_feats": np.zeros((3, 60)), "visual_pos": np.full((3, 4), 300.0)}, r"502\.npz: regions .*divide by"),
        (
            {"visual_feats": np.full((3, 60), np.nan), "visual_pos": np.zeros((3, 4))},
            r"502\.npz: regions of image 502: a value is NaN",
        ),
        ({"visual_feats": np.full((3, 60), None), "visual_pos": np.zeros((3, 4))}, r"502\.npz: cannot be read .*object"),
    ],
)
def test_a_wrong_file_is_named(folder, tmp_path, arrays, words):
    npz_folder(tmp_path / "a", made_up())
    np.savez(tmp_path / "a" / "502.npz", **arrays)
    refused(folder, tmp_path / "a", words)


def test_two_files_of_one_name(folder, tmp_path):
    npz_folder(tmp_path / "a", made_up())
    np.save(tmp_path / "a" / "9.npy", np.zeros(3))
    refused(folder, tmp_path / "a", "an .npz and an .npy of the same name")


def test_a_changed_file_is_noticed(folder, tmp_path):
    npz_folder(tmp_path / "a", made_up())
    assert import_regions(folder, [tmp_path / "a"], "x")
    assert not import_regions(folder, [tmp_path / "a"], "x")
    np.savez(tmp_path / "a" / "9.npz", visual_feats=np.zeros((3, 60)), visual_pos=np.zeros((3, 4)))
    with pytest.raises(CorpusError, match="made from other files"):
        import_regions(folder, [tmp_path / "a"], "x")
