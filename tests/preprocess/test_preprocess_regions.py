"""Region features come in by name, in any order, from any number of files."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

from corpora.corpus import Corpus, CorpusError, CorpusWriter, ImageRecord
from corpora.images import write_images
from corpora.store import StoreError
from preprocess.regions import import_regions

IDS = ("501", "dog_1", "502", "9")
RNG = np.random.default_rng(0)


@pytest.fixture
def folder(tmp_path):
    with CorpusWriter(tmp_path / "corpus") as corpus:
        write_images(corpus.part / "images.h5", [(key, b"x") for key in IDS])
        corpus.images += [ImageRecord(key, "train", 1, 1) for key in IDS]
    return tmp_path / "corpus"


def features_file(path, names, dtype=np.float32, save=np.savez, **more):
    count = len(names)
    arrays = {
        "files": np.array(names, dtype=str),
        "features": RNG.normal(size=(count, 3, 60)).astype(dtype),
        "boxes": np.sort(RNG.random((count, 3, 4)), axis=2).astype(np.float32),
        **more,
    }
    save(path, **arrays)
    return arrays


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_rows_find_their_images_by_id_stem_and_coco_number(folder, tmp_path, save, dtype, capsys):
    first = features_file(tmp_path / "a.npz", ["dog_1.jpg", "stranger.jpg", "COCO_val2014_000000000501.jpg"], dtype, save)
    second = features_file(tmp_path / "b.npz", ["9", "502.npz"], dtype, save)
    assert import_regions(folder, [tmp_path / "a.npz", tmp_path / "b.npz"], "yolo")
    features, boxes = Corpus(folder).regions("yolo").read(IDS)
    expected = np.stack([first["features"][2], first["features"][0], second["features"][1], second["features"][0]])
    np.testing.assert_array_equal(features, expected.astype(np.float16))
    np.testing.assert_array_equal(boxes[1], first["boxes"][0])
    assert "1 rows belong to no image of" in capsys.readouterr().err


def test_missing_images_are_counted_and_named(folder, tmp_path):
    features_file(tmp_path / "a.npz", ["dog_1", "502", "x"])
    with pytest.raises(CorpusError, match=r"2 of 4 images have no regions in .*a\.npz, the first: 501, 9"):
        import_regions(folder, [tmp_path / "a.npz"], "yolo")
    assert not list(folder.glob("regions*"))


def test_an_image_with_two_rows_is_an_error(folder, tmp_path):
    features_file(tmp_path / "a.npz", [*IDS])
    features_file(tmp_path / "b.npz", ["dog_1.png"])
    with pytest.raises(StoreError, match="more than once, the first: dog_1"):
        import_regions(folder, [tmp_path / "a.npz", tmp_path / "b.npz"], "yolo")


def test_the_same_files_stand_and_others_are_refused(folder, tmp_path):
    features_file(tmp_path / "a.npz", [*IDS])
    assert import_regions(folder, [tmp_path / "a.npz"], "yolo")
    assert not import_regions(folder, [tmp_path / "a.npz"], "yolo")
    features_file(tmp_path / "a.npz", [*IDS])
    with pytest.raises(CorpusError, match="made from other files; remove it or choose another extractor name"):
        import_regions(folder, [tmp_path / "a.npz"], "yolo")
    assert import_regions(folder, [tmp_path / "a.npz"], "yolo-2")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"features": np.zeros((4, 3))}, r"an array is \(4, 3\) float64"),
        ({"features": np.zeros((5, 3, 6))}, r"an array is \(5, 3, 6\)"),
        ({"features": np.zeros((4, 3, 6), int)}, "int64"),
        ({"features": np.asfortranarray(np.zeros((4, 3, 6)))}, "Fortran order"),
        ({"features": np.full((4, 3, 6), np.nan)}, "image 501: a value is NaN"),
        ({"features": np.full((4, 3, 6), None)}, "object"),
        ({"boxes": np.full((4, 3, 4), 300.0)}, "divide by the image's width and height"),
        ({"boxes": np.zeros((4, 3, 5))}, r"boxes \(3, 5\)"),
        ({"files": np.array([*IDS[:3], None])}, "cannot be read as region features"),
        ({"files": np.array("501")}, "3 of 4 images have no regions"),
    ],
)
def test_wrong_arrays(folder, tmp_path, more, words):
    features_file(tmp_path / "a.npz", [*IDS], **more)
    with pytest.raises((CorpusError, StoreError), match=words):
        import_regions(folder, [tmp_path / "a.npz"], "yolo")
    assert not list(folder.glob("regions*"))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("where", [0, 10, 0.3, 0.6, 0.9, 0.999])
@pytest.mark.parametrize("cut", [True, False])
def test_damaged_files_are_one_clear_error(folder, tmp_path, save, where, cut):
    path = tmp_path / "a.npz"
    features_file(path, [*IDS], save=save)
    data = bytearray(path.read_bytes())
    position = where if isinstance(where, int) else int(len(data) * where)
    if cut:
        del data[position:]
    else:
        data[position : position + 4] = b"\xff\x00\xff\x01"
    path.write_bytes(data)
    try:
        import_regions(folder, [path], "yolo")
    except (CorpusError, StoreError) as error:
        assert "a.npz" in str(error) or "image" in str(error)
        assert not list(folder.glob("regions*"))
    else:
        assert not cut
        assert where not in (0.3, 0.6)  # amid the numbers: the check sum tells
        Corpus(folder).regions("yolo").read(IDS)


def test_missing_array_and_missing_file(folder, tmp_path):
    np.savez(tmp_path / "a.npz", files=np.array(IDS), features=np.zeros((4, 3, 6)))
    with pytest.raises(CorpusError, match=r"a\.npz: cannot be read as region features .*expected an \.npz with"):
        import_regions(folder, [tmp_path / "a.npz"], "yolo")
    with pytest.raises(CorpusError, match=r"none\.npz: cannot be read"):
        import_regions(folder, [tmp_path / "none.npz"], "yolo")
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("files.npy", b"not numpy")
    with pytest.raises(CorpusError, match=r"b\.npz: cannot be read"):
        import_regions(folder, [tmp_path / "b.npz"], "yolo")


@pytest.mark.parametrize("name", ["", "a/b", "a b"])
def test_extractor_name_must_fit_a_file_name(folder, tmp_path, name):
    with pytest.raises(CorpusError, match="becomes part of a file name"):
        import_regions(folder, [tmp_path / "a.npz"], name)


def test_real_regions(test_data, tmp_path):
    source = test_data / "flickr8k-mini" / "regions_val.npz"
    with np.load(source, allow_pickle=False) as arrays:
        files, features, boxes = arrays["files"][7:27], arrays["features"][7:27], arrays["boxes"][7:27]
    ids = [name.removesuffix(".jpg") for name in files]
    with CorpusWriter(tmp_path / "corpus") as corpus:
        write_images(corpus.part / "images.h5", [(key, b"x") for key in reversed(ids)])
        corpus.images += [ImageRecord(key, "val", 1, 1) for key in reversed(ids)]
    import_regions(tmp_path / "corpus", [source], "yolox-grid")
    read = Corpus(tmp_path / "corpus").regions("yolox-grid").read(ids)
    np.testing.assert_array_equal(read[0], features)
    np.testing.assert_array_equal(read[1], boxes)
