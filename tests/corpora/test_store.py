"""Opening HDF5 stores: damage, pickling and forking."""

from __future__ import annotations

import multiprocessing
import os
import pickle

import h5py
import numpy as np
import pytest

from corpora.images import ImageStore, write_images
from corpora.regions import RegionStore, write_regions
from corpora.store import StoreError, check_unique, file_sha256, open_hdf5


@pytest.fixture
def images(tmp_path):
    path = tmp_path / "images.h5"
    write_images(path, [(f"i{k}", bytes([k]) * (1000 + k)) for k in range(50)])
    return path


@pytest.fixture
def regions(tmp_path):
    path = tmp_path / "regions-x.h5"
    write_regions(path, [(f"i{k}", np.full((3, 4), k, np.float32), np.full((3, 4), k / 50)) for k in range(50)], 50)
    return path


def test_missing_file_names_the_path(tmp_path):
    with pytest.raises(StoreError, match=r"none\.h5: no such file"):
        open_hdf5(tmp_path / "none.h5")


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.99])
def test_truncated_file_is_one_clear_error(images, keep):
    data = images.read_bytes()
    images.write_bytes(data[: keep if isinstance(keep, int) else int(len(data) * keep)])
    with pytest.raises(StoreError, match=r"images\.h5: not a whole HDF5 file"):
        ImageStore(images)


def test_file_without_ids_was_not_written_whole(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["bytes"] = np.zeros(3, np.uint8)
    with pytest.raises(StoreError, match="lacks offsets, ids; it was not written whole"):
        ImageStore(tmp_path / "x.h5")


def test_unknown_image_is_named(images):
    with pytest.raises(StoreError, match="holds no image 'nobody'"):
        ImageStore(images).read("nobody")


def test_check_unique_names_the_duplicates():
    check_unique(["a", "b"], "image", "here")
    with pytest.raises(StoreError, match="here: 2 image ids stand there more than once, the first: b, c"):
        check_unique(["a", "b", "b", "c", "c"], "image", "here")


def test_stores_pickle_with_an_open_handle(images, regions):
    image_store, region_store = ImageStore(images), RegionStore(regions)
    image_store.read("i3")
    region_store.read(["i3"])
    assert pickle.loads(pickle.dumps(image_store)).read("i7") == bytes([7]) * 1007
    features, _ = pickle.loads(pickle.dumps(region_store)).read(["i7"])
    assert (features == 7).all()


def read_in_child(store: ImageStore, number: int, queue: multiprocessing.Queue) -> None:
    right = all(store.read(f"i{k}") == bytes([k]) * (1000 + k) for _ in range(20) for k in range(number, 50))
    queue.put((right, store._owner == os.getpid()))


def test_forked_readers_have_handles_of_their_own(images):
    store = ImageStore(images)
    store.read("i0")
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    children = [context.Process(target=read_in_child, args=(store, k, queue)) for k in range(3)]
    for child in children:
        child.start()
    assert all(store.read(f"i{k}") == bytes([k]) * (1000 + k) for k in range(50))
    assert [queue.get(timeout=20) for _ in children] == [(True, True)] * 3
    for child in children:
        child.join()


def test_file_sha256(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert file_sha256(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
