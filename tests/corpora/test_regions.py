"""Region files: round trip and refusal of what cannot be right."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from corpora.regions import Regions, RegionStore, write_regions
from corpora.store import StoreError

ROOT = Path(__file__).parents[2]
BOXES = np.tile([0.1, 0.2, 0.9, 1.0], (3, 1))


def test_round_trip_by_id_in_any_order(tmp_path):
    path = tmp_path / "regions-x.h5"
    features = np.random.default_rng(0).normal(size=(4, 3, 5)).astype(np.float16)
    write_regions(path, [(f"i{k}", features[k], BOXES * k / 4) for k in range(4)], 4, {"a.npz": "123"})
    store = RegionStore(path)
    assert (store.regions, store.width, store.sources) == (3, 5, {"a.npz": "123"})
    read, boxes = store.read(["i2", "i0", "i2"])
    assert (read.dtype, boxes.dtype) == (np.float16, np.float32)
    np.testing.assert_array_equal(read, features[[2, 0, 2]])
    np.testing.assert_allclose(boxes, np.stack([BOXES / 2, BOXES * 0, BOXES / 2]), rtol=1e-6)


GOOD = np.zeros((3, 5))


@pytest.mark.parametrize(
    ("features", "boxes", "words"),
    [
        (GOOD[:2], BOXES, r"expected floats, \(R, D\) and \(R, 4\)"),
        (GOOD.astype(int), BOXES, "int64 and boxes"),
        (GOOD.astype(str), BOXES, "U32 and boxes"),
        (GOOD[:0], BOXES[:0], r"features \(0, 5\)"),
        (GOOD, BOXES[:, [2, 3, 0, 1]], "ends before it begins"),
        (np.full((3, 5), np.nan), BOXES, "NaN"),
        (np.full((3, 5), 1e6), BOXES, "does not fit float16"),
        (GOOD, BOXES * 640, "divide by the image's width and height"),
        (GOOD, -BOXES, "divide by"),
        (np.zeros((3, 6)), BOXES, "the first image had"),
    ],
)
def test_bad_rows_are_refused_by_image_and_leave_nothing(tmp_path, features, boxes, words):
    with pytest.raises(StoreError, match=words) as caught:
        write_regions(tmp_path / "regions-x.h5", [("fine", GOOD, BOXES), ("sick", features, boxes)], 2)
    assert "sick" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("ids", "count", "words"),
    [
        (["a"], 2, "2 images were announced and 1 came"),
        (["a", "b"], 1, "only 1 images were announced"),
        ([], 0, "0 came"),
        (["a", "a"], 2, "more than once"),
    ],
)
def test_wrong_counts_and_duplicates(tmp_path, ids, count, words):
    with pytest.raises(StoreError, match=words):
        write_regions(tmp_path / "regions-x.h5", [(key, GOOD, BOXES) for key in ids], count)
    assert list(tmp_path.iterdir()) == []


def test_an_old_file_stays_when_a_new_one_fails(tmp_path):
    path = tmp_path / "regions-x.h5"
    write_regions(path, [("a", GOOD, BOXES)], 1)
    before = path.read_bytes()
    with pytest.raises(StoreError):
        write_regions(path, [("a", GOOD, BOXES * 9)], 1)
    assert path.read_bytes() == before


# Labels, exact files, counts


def labelled(name: str, count: int = 3) -> Regions:
    numbers = np.arange(count)
    return Regions(name, GOOD[:count] + 1 / 3, BOXES[:count] / 3, numbers, numbers / 7, numbers - 1, numbers / 9)


def test_labels_and_names_come_back(tmp_path):
    path = tmp_path / "regions-x.h5"
    write_regions(path, [labelled("a"), labelled("b")], 2, class_names=["cat", "dog", "car"], attribute_names=["red", "wet"])
    store = RegionStore(path)
    found = store.of("b")
    assert (found.classes.dtype, found.scores.dtype) == (np.int32, np.float32)
    np.testing.assert_array_equal(found.attributes, [-1, 0, 1])
    np.testing.assert_allclose(found.scores, np.arange(3) / 7, rtol=1e-6)
    assert (store.class_names, store.attribute_names, store.exact) == (("cat", "dog", "car"), ("red", "wet"), False)


def test_an_exact_file_keeps_float32_and_pixels_come_back_bit_for_bit(tmp_path):
    path = tmp_path / "regions-x.h5"
    rng = np.random.default_rng(0)
    features = rng.normal(size=(50, 5)).astype(np.float32)
    pixels = np.sort((rng.random((50, 2, 2)) * (500, 333)).astype(np.float32), axis=1).reshape(50, 4)
    write_regions(path, [("a", features, pixels.astype(float) / np.tile((500, 333), 2))], 1, exact=True)
    store = RegionStore(path)
    assert store.exact
    np.testing.assert_array_equal(store.of("a").features, features)
    np.testing.assert_array_equal((store.of("a").boxes * np.tile((500, 333), 2)).astype(np.float32), pixels)
    read, boxes = store.read(["a"])
    assert (read.dtype, boxes.dtype) == (np.float32, np.float32)


def test_fewer_regions_are_padded_where_there_is_room(tmp_path):
    path = tmp_path / "regions-x.h5"
    write_regions(path, [labelled("a"), labelled("b", 1)], 2, regions=3)
    store = RegionStore(path)
    assert store.counts.tolist() == [3, 1]
    with pytest.raises(StoreError, match="images have 1 to 3 regions"):
        store.read(["a"])
    features, boxes, counts = store.read_padded(["b", "a"])
    assert counts.tolist() == [1, 3] and features[1].all() and not features[0, 1:].any() and not boxes[0, 1:].any()
    assert store.of("b").scores.shape == (1,)
    write_regions(path, [labelled("a"), labelled("b")], 2, regions=3)
    assert RegionStore(path).counts is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"classes": np.arange(2)}, r"classes \(2,\) int64 for 3 regions"),
        ({"classes": np.ones(3)}, "classes .* float64"),
        ({"scores": np.arange(3)}, "scores .* int64"),
        ({"scores": np.array([0, np.nan, 1])}, "NaN"),
        ({"classes": np.array([0, 1, 1 << 40])}, "classes from 0 to 1099511627776"),
        ({"attributes": np.array([0, 1, -2])}, "attributes from -2"),
        ({"classes": np.array([0, 1, 3])}, "classes up to 3, and there are 3 names"),
        ({"scores": None}, "the first image had"),
    ],
)
def test_bad_labels_are_refused(tmp_path, change, words):
    with pytest.raises(StoreError, match=words) as caught:
        rows = [labelled("fine"), labelled("sick")._replace(**change)]
        write_regions(tmp_path / "regions-x.h5", rows, 2, class_names=("cat", "dog", "car"))
    assert "sick" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_store_with_open_datasets_pickles_and_forks(tmp_path):
    path = tmp_path / "regions-x.h5"
    write_regions(path, [(f"i{k}", GOOD + k, BOXES) for k in range(20)], 20)
    store = RegionStore(path)
    store.read(["i1"])
    assert pickle.loads(pickle.dumps(store)).read(["i7"])[0].min() == 7
    child = os.fork()
    if not child:
        os._exit(0 if all((store.read([f"i{k}"])[0] == k).all() for k in range(20)) else 1)
    assert all((store.read([f"i{k}"])[0] == k).all() for k in range(20))
    assert os.waitpid(child, 0)[1] == 0


def test_reading_nothing(tmp_path):
    write_regions(tmp_path / "regions-x.h5", [("a", GOOD, BOXES)], 1)
    assert [values.shape for values in RegionStore(tmp_path / "regions-x.h5").read([])] == [(0, 3, 5), (0, 3, 4)]


@pytest.mark.parametrize(
    "change",
    [
        lambda file: file.create_dataset("scores", data=np.zeros((2, 3))),
        lambda file: file.create_dataset("counts", data=np.array([4])),
        lambda file: file.create_dataset("counts", data=np.array([0])),
        lambda file: (file.pop("boxes"), file.create_dataset("boxes", data=np.zeros((1, 3, 4)))),
        lambda file: (
            file.pop("features"),
            file.create_dataset("features", data=np.zeros((1, 3, 5)), chunks=(1, 3, 5), compression=1),
        ),
        lambda file: (file.pop("ids"), file.create_dataset("ids", data=np.zeros(1))),
        lambda file: file.attrs.__setitem__("sources", "{"),
    ],
)
def test_a_file_of_another_layout_is_one_clear_error(tmp_path, change):
    path = tmp_path / "regions-x.h5"
    write_regions(path, [("a", GOOD, BOXES)], 1)
    with h5py.File(path, "a") as file:
        change(file)
    with pytest.raises(StoreError, match=r"regions-x\.h5: .*write it again"):
        RegionStore(path)


# A writer that ends too early

WRITING = """
import signal, resource, sys, time
import numpy as np
from pathlib import Path
from corpora.regions import write_regions
def rows():
    for k in range(40):
        if k == {stop}:
            print("there", flush=True)
            time.sleep(60)
        yield f"i{{k}}", np.full((3, 500), k / 2), np.zeros((3, 4))
{limit}
write_regions(Path(sys.argv[1]), rows(), 40)
"""


@pytest.mark.parametrize("stop", [0, 1, 39])
@pytest.mark.parametrize("before", [True, False])
def test_kill_leaves_the_old_file_or_none(tmp_path, stop, before):
    path = tmp_path / "regions-x.h5"
    if before:
        write_regions(path, [("a", GOOD, BOXES)], 1)
    code = WRITING.format(stop=stop, limit="")
    with subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout.readline() == b"there\n"
        process.kill()
    assert path.exists() == before
    if before:
        assert RegionStore(path).ids == ["a"]
    write_regions(path, [("b", GOOD, BOXES)], 1)  # over what the killed one left
    assert RegionStore(path).ids == ["b"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system cannot reserve space")
def test_a_full_disk_is_met_before_the_first_row(tmp_path):
    limit = "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (130_000, 130_000))"
    code = WRITING.format(stop=-1, limit=limit)
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "regions-x.h5"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert "regions-x.h5: no room for 0.4 MB" in done.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_space_is_reserved_not_only_asked_for(tmp_path):
    path = tmp_path / "regions-x.h5"

    def rows():
        for k in range(100):
            if k == 1:
                held.append(next(tmp_path.glob("*.part")).stat().st_blocks * 512)
            yield f"i{k}", np.zeros((10, 1000)), np.zeros((10, 4))

    held: list[int] = []
    write_regions(path, rows(), 100)
    assert held[0] >= 100 * 10 * 1000 * 2
    assert path.stat().st_size < 100 * 10 * (2000 + 16) + 20_000
