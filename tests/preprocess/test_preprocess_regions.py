"""Region features come in by name, in any order, from any number of files."""

from __future__ import annotations

import tracemalloc
import zipfile

import numpy as np
import pytest
from region_files import bottom_up_tsv, corpus_folder, encoded, lxmert_tsv, made_up

from corpora.corpus import Corpus, CorpusError, CorpusWriter, ImageRecord
from corpora.images import write_images
from corpora.regions import Regions
from corpora.store import StoreError
from preprocess.region_choices import Choices
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
    with pytest.raises(CorpusError, match=r"image dog_1: .* more than once, in .*a\.npz, row 2 and in .*b\.npz, row 1"):
        import_regions(folder, [tmp_path / "a.npz", tmp_path / "b.npz"], "yolo")


def test_the_same_files_stand_and_others_are_refused(folder, tmp_path):
    features_file(tmp_path / "a.npz", [*IDS])
    assert import_regions(folder, [tmp_path / "a.npz"], "yolo")
    assert not import_regions(folder, [tmp_path / "a.npz"], "yolo")
    features_file(tmp_path / "a.npz", [*IDS])
    with pytest.raises(CorpusError, match="made from other files or options; remove it or choose another extractor name"):
        import_regions(folder, [tmp_path / "a.npz"], "yolo")
    assert import_regions(folder, [tmp_path / "a.npz"], "yolo-2")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"features": np.zeros((4, 3))}, r"features is \(4, 3\) float64 and not \(N, regions, numbers\) with N = 4"),
        ({"features": np.zeros((5, 3, 6))}, r"features is \(5, 3, 6\)"),
        ({"features": np.zeros((4, 3, 6), int)}, "int64"),
        ({"features": np.asfortranarray(np.zeros((4, 3, 6)))}, "Fortran order"),
        ({"features": np.full((4, 3, 6), np.nan)}, "image 501: a value is NaN"),
        ({"features": np.full((4, 3, 6), None)}, "object"),
        ({"boxes": np.full((4, 3, 4), 300.0)}, "divide by the image's width and height"),
        ({"boxes": np.zeros((4, 3, 5))}, r"boxes \(3, 5\)"),
        ({"files": np.array([*IDS[:3], None])}, "an array of object"),
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
    with pytest.raises(CorpusError, match=r"a\.npz: cannot be read .*boxes.*expected an \.npz with"):
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


# Other numbers of regions, and what a user is told


def several(tmp_path, counts, scores=True):
    """LXMERT's TSV, or bottom-up's without scores, whose images have these numbers of regions."""
    images = {}
    for (name, row), count in zip(made_up(5).items(), counts, strict=True):
        images[name] = Regions(name, *(values[:count] for values in row[1:]))
    path = tmp_path / "several.tsv"
    (lxmert_tsv if scores else bottom_up_tsv)(path, images)
    return path, images


def test_other_numbers_of_regions_are_refused_unless_asked_for(folder, tmp_path):
    path, _ = several(tmp_path, [5, 5, 3, 5])
    with pytest.raises(CorpusError, match=r"line 3, image 502: has 3 regions, the first image 5; --regions N keeps"):
        import_regions(folder, [path], "yolo")
    assert not list(folder.glob("regions*"))


def test_the_best_by_score_are_kept(folder, tmp_path, capsys):
    path, images = several(tmp_path, [5, 4, 3, 5])
    assert import_regions(folder, [path], "yolo", Choices(regions=3, exact=True))
    store = Corpus(folder).regions("yolo")
    assert store.regions == 3 and store.counts is None
    for name, image in images.items():
        kept = np.sort(np.argsort(-image.scores)[:3])
        np.testing.assert_array_equal(store.of(name).features, image.features[kept])
        np.testing.assert_array_equal(store.of(name).classes, image.classes[kept])
    assert "3 images have more than 3 regions of which the best by score are kept" in capsys.readouterr().err


def test_without_scores_the_first_are_kept_and_that_is_said(folder, tmp_path, capsys):
    path, images = several(tmp_path, [5, 4, 3, 5], scores=False)
    import_regions(folder, [path], "yolo", Choices(regions=3, exact=True))
    np.testing.assert_array_equal(Corpus(folder).regions("yolo").of("9").features, images["9"].features[:3])
    assert "3 images have more than 3 regions and no scores, the first are kept" in capsys.readouterr().err


def test_padding_is_told_and_only_read_by_those_who_ask_for_it(folder, tmp_path, capsys):
    path, images = several(tmp_path, [5, 4, 2, 5])
    import_regions(folder, [path], "yolo", Choices(regions=4))
    assert "1 images have fewer than 4 regions and are padded with zeros; only models that mask" in capsys.readouterr().err
    store = Corpus(folder).regions("yolo")
    with pytest.raises(StoreError, match=r"images have 2 to 4 regions, .*import them again with --regions 2"):
        store.read(["9"])
    features, boxes, counts = store.read_padded(["502", "9"])
    assert counts.tolist() == [2, 4] and not features[0, 2:].any() and not boxes[0, 2:].any()
    np.testing.assert_array_equal(features[0, :2], images["502"].features.astype(np.float16))
    assert len(store.of("502").features) == len(store.of("502").scores) == 2


def test_exact_and_rounded_files_are_told_apart(folder, tmp_path):
    features_file(tmp_path / "a.npz", [*IDS])
    assert import_regions(folder, [tmp_path / "a.npz"], "yolo")
    with pytest.raises(CorpusError, match="made from other files or options"):
        import_regions(folder, [tmp_path / "a.npz"], "yolo", Choices(exact=True))
    with pytest.raises(CorpusError, match="made from other files or options"):
        import_regions(folder, [tmp_path / "a.npz"], "yolo", Choices(regions=2))
    assert import_regions(folder, [tmp_path / "a.npz"], "best", Choices(regions=2))
    assert not import_regions(folder, [tmp_path / "a.npz"], "best", Choices(regions=2))
    with pytest.raises(CorpusError, match="made from other files or options"):
        import_regions(folder, [tmp_path / "a.npz"], "best")


def test_names_of_classes(folder, tmp_path):
    lxmert_tsv(tmp_path / "a.tsv", made_up())
    (tmp_path / "objects.txt").write_text("\n".join(f"thing {n},object {n}" for n in range(1600)))
    (tmp_path / "few.txt").write_text("one\ntwo\n")
    import_regions(folder, [tmp_path / "a.tsv"], "yolo", Choices(class_names=tmp_path / "objects.txt"))
    assert Corpus(folder).regions("yolo").class_names[3] == "thing 3"
    with pytest.raises(CorpusError, match=r"line 1: regions of image 501: classes up to \d+, and there are 2 names"):
        import_regions(folder, [tmp_path / "a.tsv"], "other", Choices(class_names=tmp_path / "few.txt"))


def test_sources_of_the_same_name_in_two_folders(folder, tmp_path):
    for place, names in (("train", IDS[:2]), ("val", IDS[2:])):
        (tmp_path / place).mkdir()
        features_file(tmp_path / place / "a.npz", names)
    assert import_regions(folder, [tmp_path / "train" / "a.npz", tmp_path / "val" / "a.npz"], "yolo")
    assert len(Corpus(folder).regions("yolo").sources) == 2
    features_file(tmp_path / "train" / "a.npz", IDS[:2])
    with pytest.raises(CorpusError, match="made from other files"):
        import_regions(folder, [tmp_path / "train" / "a.npz", tmp_path / "val" / "a.npz"], "yolo")


def test_nothing_to_import(folder):
    with pytest.raises(CorpusError, match="--regions 0 of 0 sources"):
        import_regions(folder, [], "yolo")


def test_memory_does_not_grow_with_the_file(tmp_path):
    """60 MB of TSV in 300 lines through 10 MB."""
    count = 300
    sizes = {f"i{n}": (100, 100) for n in range(count)}
    corpus = corpus_folder(tmp_path / "corpus", sizes)
    boxes, features = np.tile(np.float32([1, 2, 3, 4]), (36, 1)), np.zeros((36, 1024), np.float32)
    cells = f"100\t100\t36\t{encoded(boxes)}\t{encoded(features)}\n"
    (tmp_path / "a.tsv").write_text("".join(f"{name}\t{cells}" for name in sizes))
    tracemalloc.start()
    import_regions(corpus, [tmp_path / "a.tsv"], "x")
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()
