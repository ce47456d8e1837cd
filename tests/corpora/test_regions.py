"""Region files: round trip and refusal of what cannot be right."""

from __future__ import annotations

import numpy as np
import pytest

from corpora.regions import RegionStore, write_regions
from corpora.store import StoreError

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
        (GOOD[:2], BOXES, r"expected \(R, D\) and \(R, 4\)"),
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
