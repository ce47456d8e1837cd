"""Stanford Online Products: its split of classes by oracle, its lists by their rules, and real photos of products through the whole path."""

from __future__ import annotations

import tarfile

import pytest
from drawing import draw

from corpora.corpus import Corpus, CorpusError
from preprocess.products import prepare, read_entries, split_classes

HEADER = "image_id class_id super_class_id path\n"
TRAIN = "1 1 1 bicycle_final/a_0.JPG\n2 1 1 bicycle_final/a_1.JPG\n3 2 2 chair_final/b_0.JPG\n4 3 1 bicycle_final/c_0.JPG\n"
TEST = "5 4 1 bicycle_final/d_0.JPG\n6 4 1 bicycle_final/d_1.JPG\n"
SUPER_CLASSES = [
    "bicycle",
    "cabinet",
    "chair",
    "coffee_maker",
    "fan",
    "kettle",
    "lamp",
    "mug",
    "sofa",
    "stapler",
    "table",
    "toaster",
]


def test_the_usual_split_of_classes():
    """The prefixes were measured on the original's own shuffle; class ids count from 1, its list from 0."""
    train, validation = split_classes(range(1, 11_319), 2318)
    assert (len(train), len(validation)) == (9000, 2318)
    assert [number - 1 for number in train[:5]] == [46, 7822, 8941, 3802, 10778]
    assert [number - 1 for number in validation[:5]] == [8589, 2690, 956, 7712, 7069]
    assert sorted(train + validation) == list(range(1, 11_319))


@pytest.mark.parametrize("count", [-1, 3, 2318])
def test_a_split_that_leaves_no_class(count):
    with pytest.raises(CorpusError, match=rf"--validation-classes {count}: train has 3 classes; expected 0 to 2"):
        split_classes([1, 2, 3], count)


def write(folder, train=HEADER + TRAIN, test=HEADER + TEST, **others):
    folder.mkdir(exist_ok=True)
    for name, text in {"Ebay_train": train, "Ebay_test": test, **others}.items():
        (folder / f"{name}.txt").write_text(text)
    return folder


def test_lists_of_the_real_size(tmp_path):
    """59,551 images of 11,318 classes and 60,502 of 11,316, in 12 super-classes: made-up lists of just that size."""

    def rows(first_image, images, first_class, classes):
        for number in range(images):
            kind = first_class + number % classes
            yield f"{first_image + number} {kind} {kind % 12 + 1} {SUPER_CLASSES[kind % 12]}_final/{kind}_{number}.JPG\n"

    train, test = "".join(rows(1, 59_551, 1, 11_318)), "".join(rows(59_552, 60_502, 11_319, 11_316))
    lists = write(tmp_path / "sop", HEADER + train, HEADER + test)
    entries = list(read_entries(lists, lists, 2318, "stanford-online-products"))
    classes = {split: {e.class_name for e in entries if e.split == split} for split in ("train", "val", "test")}
    assert {split: len(names) for split, names in classes.items()} == {"train": 9000, "val": 2318, "test": 11_316}
    assert sum(e.split != "test" for e in entries) == 59_551
    assert {e.class_name.split("/")[0] for e in entries} == set(SUPER_CLASSES)
    assert not classes["train"] & classes["val"]


def test_classes_and_no_texts(tmp_path):
    lists = write(tmp_path / "sop", query=HEADER + TEST.splitlines()[0], gallery=HEADER + TEST.splitlines()[1])
    draw(*(lists / line.split()[3] for line in (TRAIN + TEST).splitlines()))
    assert prepare(lists, lists, tmp_path / "corpus", validation_classes=1)
    corpus = Corpus(tmp_path / "corpus")
    assert {name: counts["images"] for name, counts in corpus.info["splits"].items()} == {"train": 3, "val": 1, "test": 2}
    test = corpus.split("test")
    assert test.image_ids == ("bicycle_final/d_0", "bicycle_final/d_1")
    assert test.classes == ("bicycle/4", "bicycle/4")
    assert test.sources[0] == "stanford-online-products/bicycle_final/d_0"
    assert test.texts == ()
    assert (tmp_path / "corpus" / "query.txt").read_text() == "bicycle_final/d_0\n"
    assert (tmp_path / "corpus" / "gallery.txt").read_text() == "bicycle_final/d_1\n"
    assert not prepare(lists, lists, tmp_path / "corpus", validation_classes=1)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"train": TRAIN}, r"Ebay_train\.txt, line 1: '1 1 1 bicycle_final/a_0\.JPG'; expected a line \"image_id class_id"),
        ({"train": ""}, r"Ebay_train\.txt: holds no images"),
        ({"train": HEADER}, r"Ebay_train\.txt: holds no images"),
        ({"test": HEADER + TEST + "7 4 1\n"}, r"Ebay_test\.txt, line 4: '7 4 1'; expected"),
        ({"test": HEADER + TEST + "7 x 1 bicycle_final/d.JPG\n"}, "line 4"),
        ({"test": HEADER + TEST + "7 0 1 bicycle_final/d.JPG\n"}, "line 4"),
        ({"test": HEADER + TEST + "7 \uff14 1 bicycle_final/d.JPG\n"}, "line 4"),
        ({"test": HEADER + TEST + "\n"}, "line 4: ''; expected"),
        ({"test": HEADER + TEST + "7 4 1 ../../etc/x.JPG\n"}, "must be that of an image file inside"),
        ({"test": HEADER + TEST + "7 4 1 /etc/x.JPG\n"}, "must be that of an image file inside"),
        ({"test": HEADER + TEST + "7 4 1 bicycle_final/\n"}, "must be that of an image file inside"),
        ({"test": HEADER + TEST + TEST}, "2 image ids stand there more than once, the first: bicycle_final/d_0"),
        ({"test": HEADER + TEST + "7 1 1 bicycle_final/e.JPG\n"}, "1 classes are in train and in test, the first: 1"),
        (
            {"test": HEADER + TEST + "7 4 2 chair_final/e.JPG\n"},
            "class 4 is of super-class 1 and, in the line of chair_final/e.JPG, of 2",
        ),
        ({"test": HEADER + TEST + "7 5 1 chair_final/e.JPG\n"}, "is of super-class 1, whose other images are in bicycle_final"),
        ({"test": HEADER + TEST + "7 5 9 chair_final/e.JPG\n"}, "two super-classes have one folder"),
        ({"Ebay_info": HEADER + TRAIN}, "0 of its 4 images are in neither .* and 2 of theirs are not in it"),
        ({"test": HEADER + TEST[: len(TEST) // 2], "Ebay_info": HEADER + TRAIN + TEST}, "1 of its 6 images are in neither"),
        (
            {"query": HEADER + "1 4 1 bicycle_final/z.JPG\n"},
            r"query\.txt: 1 of 1 images are in no split, the first: bicycle_final/z",
        ),
        ({"gallery": HEADER + TEST + TRAIN}, r"gallery\.txt: lists images of several splits: test, train"),
    ],
)
def test_inconsistent_lists(tmp_path, changed, words):
    lists = write(tmp_path / "sop", **changed)
    with pytest.raises(CorpusError, match=words):
        list(read_entries(lists, lists, 0, "sop"))


def test_real_photos(test_data, tmp_path):
    source = test_data / "products-mini"
    with tarfile.open(source / "images.tar") as archive:
        archive.extractall(tmp_path / "images")
    folder = tmp_path / "products"
    assert prepare(source, tmp_path / "images", folder, validation_classes=8, collection="grocery-store")
    corpus = Corpus(folder)
    counts = {name: split["images"] for name, split in corpus.info["splits"].items()}
    assert counts["test"] == 2487 and counts["train"] + counts["val"] == 2638
    splits = {name: corpus.split(name) for name in counts}
    assert {name: len(set(split.classes)) for name, split in splits.items()} == {"train": 33, "val": 8, "test": 40}
    first = splits["test"].image_ids[0]
    assert first == "train/Fruit/Apple/Granny-Smith/Granny-Smith_001"
    assert corpus.images.read(first) == (tmp_path / "images" / f"{first}.jpg").read_bytes()
    query, gallery = ((folder / f"{name}.txt").read_text().split() for name in ("query", "gallery"))
    assert (len(query), len(gallery)) == (1197, 1290)
    assert {*query, *gallery} == set(splits["test"].image_ids)
    assert len(splits["test"].subset(query).image_ids) == 1197
