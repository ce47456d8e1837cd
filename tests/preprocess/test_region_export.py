"""What goes out comes in again, and a float32 source comes out as it went in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from region_files import SIZES, corpus_folder, lxmert_tsv, made_up, npz_folder

import preprocess.region_export
from corpora.corpus import Caption, Corpus, CorpusError, CorpusWriter, ImageRecord
from corpora.images import write_images
from corpora.regions import Regions
from preprocess.region_choices import Choices
from preprocess.region_export import export_regions
from preprocess.regions import import_regions


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A corpus whose images have 5, 4, 3 and 5 regions, kept exactly."""
    folder = corpus_folder(tmp_path / "corpus")
    images = {
        name: Regions(name, *(values[:count] for values in row[1:]))
        for (name, row), count in zip(made_up(5).items(), (5, 4, 3, 5), strict=True)
    }
    lxmert_tsv(tmp_path / "in.tsv", images)
    import_regions(folder, [tmp_path / "in.tsv"], "x", Choices(regions=5, exact=True))
    return folder


def assert_equal(one: Corpus, two: Corpus, names: tuple[str, str]) -> None:
    first, second = one.regions(names[0]), two.regions(names[1])
    assert first.ids == second.ids
    for image_id in first.ids:
        for a, b in zip(first.of(image_id)[1:], second.of(image_id)[1:], strict=True):
            np.testing.assert_array_equal(a, b)


def test_lxmert_tsv_comes_out_byte_for_byte(folder, tmp_path):
    assert export_regions(folder, "x", tmp_path / "out.tsv", "lxmert-tsv") == 4
    assert (tmp_path / "out.tsv").read_bytes() == (tmp_path / "in.tsv").read_bytes()


@pytest.mark.parametrize("layout", ["lxmert-tsv", "npz", "npz-folder"])
@pytest.mark.parametrize("exact", [True, False])
def test_what_goes_out_comes_in_again(folder, tmp_path, layout, exact):
    import_regions(folder, [tmp_path / "in.tsv"], "y", Choices(regions=5, exact=exact))
    export_regions(folder, "y", tmp_path / "out", layout)
    import_regions(folder, [tmp_path / "out"], "again", Choices(regions=5, exact=exact))
    if layout == "npz-folder":  # in the order of names
        stores = Corpus(folder).regions("y"), Corpus(folder).regions("again")
        for image_id in SIZES:
            for a, b in zip(*(store.of(image_id)[1:] for store in stores), strict=True):
                np.testing.assert_array_equal(a, b)
    elif layout == "npz" or exact:
        assert_equal(Corpus(folder), Corpus(folder), ("y", "again"))
    else:  # pixels are float32, and so are boxes in [0, 1]
        stores = Corpus(folder).regions("y"), Corpus(folder).regions("again")
        for image_id in SIZES:
            np.testing.assert_allclose(stores[0].of(image_id).boxes, stores[1].of(image_id).boxes, rtol=2e-7)
            np.testing.assert_array_equal(stores[0].of(image_id).features, stores[1].of(image_id).features)


def test_only_one_split(tmp_path):
    with CorpusWriter(tmp_path / "corpus") as corpus:
        write_images(corpus.part / "images.h5", [(key, b"x") for key in SIZES])
        for number, (key, size) in enumerate(SIZES.items()):
            split = "val" if number % 2 else "train"
            corpus.images.append(ImageRecord(key, split, *size))
            corpus.captions.append(Caption(f"c{key}", "words", (key,)))
    npz_folder(tmp_path / "in", made_up())
    import_regions(tmp_path / "corpus", [tmp_path / "in"], "x")
    assert export_regions(tmp_path / "corpus", "x", tmp_path / "out", "npz-folder", "val") == 2
    assert sorted(path.stem for path in (tmp_path / "out").iterdir()) == ["9", "dog_1"]


def test_lxmert_needs_labels(tmp_path):
    folder = corpus_folder(tmp_path / "corpus")
    npz_folder(tmp_path / "in", made_up())
    import_regions(folder, [tmp_path / "in"], "grid")
    with pytest.raises(
        CorpusError, match="hold attribute_scores, attributes, classes, scores, which this extractor does not tell"
    ):
        export_regions(folder, "grid", tmp_path / "out.tsv", "lxmert-tsv")
    assert not list(tmp_path.glob("out*"))


def test_nothing_is_overwritten_and_nothing_half_is_left(folder, tmp_path, monkeypatch):
    (tmp_path / "there").write_text("mine")
    with pytest.raises(CorpusError, match="there: exists already"):
        export_regions(folder, "x", tmp_path / "there", "npz")

    def fail(*given):
        given[0].mkdir(exist_ok=True)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(preprocess.region_export, "_write", fail)
    with pytest.raises(OSError, match="No space"):
        export_regions(folder, "x", tmp_path / "out", "npz-folder")
    assert not list(tmp_path.glob("out*"))


# Ten real COCO images


@pytest.fixture
def coco(test_data, tmp_path):
    files = sorted((test_data / "bottom-up-coco10" / "images").glob("*.jpg"))
    with CorpusWriter(tmp_path / "coco10") as corpus:
        write_images(corpus.part / "images.h5", [(file.stem, file.read_bytes()) for file in files])
        for file in files:
            with Image.open(file) as picture:
                corpus.images.append(ImageRecord(file.stem, "train", *picture.size))
    return tmp_path / "coco10"


def test_real_regions_come_out_as_they_went_in(test_data, tmp_path, coco):
    data = test_data / "bottom-up-coco10"
    names = {"class_names": data / "objects_vocab.txt", "attribute_names": data / "attributes_vocab.txt"}
    for source, name in (("train2014_obj36.tsv", "tsv"), ("coco10_obj36.npz", "npz")):
        import_regions(coco, [data / source], name, Choices(exact=True, **names))
        export_regions(coco, name, tmp_path / f"{name}.tsv", "lxmert-tsv")
        assert (tmp_path / f"{name}.tsv").read_bytes() == (data / "train2014_obj36.tsv").read_bytes()
    assert_equal(Corpus(coco), Corpus(coco), ("tsv", "npz"))
    store = Corpus(coco).regions("npz")
    assert (len(store.class_names), len(store.attribute_names)) == (1600, 400)
    for layout in ("npz", "npz-folder"):
        export_regions(coco, "npz", tmp_path / layout, layout)
    with np.load(tmp_path / "npz") as ours, np.load(data / "coco10_obj36.npz") as theirs:
        pairs = [("files", "img_id"), ("features", "features"), ("classes", "objects_id"), ("scores", "objects_conf")]
        for mine, other in [*pairs, ("attributes", "attrs_id"), ("attribute_scores", "attrs_conf")]:
            np.testing.assert_array_equal(ours[mine], theirs[other])
        sizes = np.stack([theirs["img_w"], theirs["img_h"]] * 2, 1)[:, None]
        np.testing.assert_array_equal((ours["boxes"] * sizes).astype(np.float32), theirs["boxes"])
    for layout in ("npz", "npz-folder"):
        import_regions(coco, [tmp_path / layout], f"again-{layout}", Choices(exact=True))
        for image_id in store.ids:
            for a, b in zip(store.of(image_id)[1:], Corpus(coco).regions(f"again-{layout}").of(image_id)[1:], strict=True):
                np.testing.assert_array_equal(a, b)


def test_real_regions_rounded_to_float16(test_data, tmp_path, coco):
    data = test_data / "bottom-up-coco10"
    import_regions(coco, [data / "train2014_obj36.tsv"], "half")
    store = Corpus(coco).regions("half")
    with np.load(data / "coco10_obj36.npz") as theirs:
        features, boxes = store.read(list(theirs["img_id"]))
        np.testing.assert_array_equal(features, theirs["features"].astype(np.float16))
        sizes = np.stack([theirs["img_w"], theirs["img_h"]] * 2, 1)[:, None]
        np.testing.assert_allclose(boxes * sizes, theirs["boxes"], atol=4e-5)
