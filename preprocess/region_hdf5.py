"""Region features in HDF5: a group an image, as lxmert_clip_tiir writes them, or a region file of another corpus."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import h5py
import numpy as np

from corpora.regions import Regions, RegionStore
from corpora.store import open_hdf5
from preprocess.numpy_files import refusing_damage
from preprocess.region_source import Found, RegionSource

FLOATS = [h5py.h5t.py_create(np.dtype(order + kind)) for order in "<>" for kind in ("f2", "f4", "f8")]
"""HDF5 converts any other float, such as one whose header was damaged, without a word."""


class Hdf5Groups(RegionSource):
    """Groups named after images, with visual_feats (R, D) and visual_pos (R, 4) in [0, 1]."""

    expected = "HDF5 groups named after images, with visual_feats (R, D) and visual_pos (R, 4)"

    def names(self) -> list[str]:
        with refusing_damage(self.path, self.expected), open_hdf5(self.path) as file:
            self._groups = list(file)
            if not all(isinstance(name, str) for name in self._groups):
                raise ValueError("the name of a group is no UTF-8 text")
        return self._groups

    def where(self, row: int) -> str:
        return f"{self.path}, group {self._groups[row]}"

    def rows(self, wanted: Sequence[bool]) -> Iterator[Found]:
        with refusing_damage(self.path, self.expected), open_hdf5(self.path) as file:
            for row, take in enumerate(wanted):
                if take:
                    with refusing_damage(self.where(row), self.expected):
                        group = file[self._groups[row]]
                        features, boxes = _array(group, "visual_feats"), _array(group, "visual_pos")
                    yield Found(self.where(row), Regions(self._groups[row], features, boxes))


class RegionFile(RegionSource):
    """regions-<extractor>.h5 of another corpus with the same images."""

    expected = "a region file of a corpus folder"

    def names(self) -> list[str]:
        self._store = RegionStore(self.path)
        names = {"class_names": self._store.class_names, "attribute_names": self._store.attribute_names}
        self.vocabulary = {which: words for which, words in names.items() if words}
        return self._store.ids

    def rows(self, wanted: Sequence[bool]) -> Iterator[Found]:
        for row, (name, take) in enumerate(zip(self._store.ids, wanted, strict=True)):
            if take:
                yield Found(self.where(row), self._store.of(name))


def _array(group: h5py.Group, name: str) -> np.ndarray:
    """A whole dataset; 64 MiB at most, as a damaged shape could ask for any amount of memory."""
    dataset = group[name]
    if dataset.id.get_type() not in FLOATS or dataset.ndim != 2 or dataset.nbytes > 1 << 26:
        raise ValueError(f"{name} is {dataset.shape} {dataset.dtype}")
    return dataset[:]
