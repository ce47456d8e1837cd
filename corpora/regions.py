"""Region features of a corpus: what a detector or a grid saw in each image.

Layout of regions-<extractor>.h5, one chunk an image, uncompressed: `features` (N, R, D) float16, `boxes` (N, R, 4) float32 in
[0, 1] as x1 y1 x2 y2, `ids` (N,) str. Where the extractor tells them: `classes` and `attributes` (N, R) int32, -1 for none,
`scores` and `attribute_scores` (N, R) float32, `class_names` and `attribute_names` (C,) str. Where images have fewer than R
regions: `counts` (N,) int32; what stands beyond them is zero. An exact file holds features as float32 and boxes as float64.
Attribute `sources`: JSON, source files and their sha256.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import h5py
import numpy as np

from corpora.store import Store, StoreError, check_unique

LABELS: dict[str, type[np.generic]] = {
    "classes": np.int32,
    "scores": np.float32,
    "attributes": np.int32,
    "attribute_scores": np.float32,
}
DAMAGED = (OSError, RuntimeError, KeyError, TypeError, ValueError, AttributeError, IndexError)
"""What h5py raises for a file whose bytes have changed."""
TOLERANCE = 1e-5
"""How far a box may lie outside its image, as in LXMERT; it is then clipped."""


class Regions(NamedTuple):
    """The regions of one image, `boxes` in [0, 1] of its width and height."""

    id: str
    features: np.ndarray
    """(R, D)."""
    boxes: np.ndarray
    """(R, 4) x1 y1 x2 y2."""
    classes: np.ndarray | None = None
    """(R,) integers, as are the attributes; -1 for none."""
    scores: np.ndarray | None = None
    """(R,) confidence in the class."""
    attributes: np.ndarray | None = None
    attribute_scores: np.ndarray | None = None

    @property
    def labels(self) -> dict[str, np.ndarray]:
        """Those of classes, scores, attributes and attribute_scores that are known."""
        return {name: values for name in LABELS if (values := getattr(self, name)) is not None}


class _Array(NamedTuple):
    id: h5py.h5d.DatasetID
    shape: tuple[int, ...]
    dtype: np.dtype


class RegionStore(Store):
    """Reads regions-<extractor>.h5 by image id."""

    def __init__(self, path: Path) -> None:
        self._opened: tuple[h5py.File, dict[str, _Array]] | None = None
        try:
            super().__init__(path, required=("features", "boxes", "ids"))
            self.sources: dict[str, str] = json.loads(self.file.attrs.get("sources", "{}"))
            self.class_names, self.attribute_names = self._names("class_names"), self._names("attribute_names")
            self.counts: np.ndarray | None = self.file["counts"][:] if "counts" in self.file else None
            self._check_shapes()
        except StoreError:
            raise
        except DAMAGED as error:
            raise StoreError(f"{path}: damaged ({type(error).__name__}: {error}); write it again") from None
        self.regions: int = self.file["features"].shape[1]
        self.width: int = self.file["features"].shape[2]
        self.exact: bool = self.file["features"].dtype == np.float32

    def read(self, image_ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Features (B, R, D) float16, of an exact file float32, and boxes (B, R, 4) float32. A file with `counts` is refused."""
        if self.counts is not None:
            raise StoreError(
                f"{self.path}: images have {self.counts.min()} to {self.counts.max()} regions, and this model reads the same number of "
                f"each; import them again with --regions {self.counts.min()}"
            )
        return self._features_and_boxes([self.row(image_id) for image_id in image_ids])

    def read_padded(self, image_ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `read`, for models that mask: also the number of regions of each image (B,), beyond which rows are zero."""
        rows = [self.row(image_id) for image_id in image_ids]
        counts = np.full(len(rows), self.regions, np.int32) if self.counts is None else self.counts[rows]
        return *self._features_and_boxes(rows), counts

    def of(self, image_id: str) -> Regions:
        """All that is stored about one image, without padding; boxes are float64 in an exact file."""
        row = self.row(image_id)
        count = self.regions if self.counts is None else self.counts[row]
        names = ("features", "boxes", *(name for name in LABELS if name in self._arrays))
        return Regions(image_id, **{name: self._rows(name, [row])[0, :count] for name in names})

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_opened": None}

    @property
    def _arrays(self) -> dict[str, _Array]:
        """Kept open: looking one up takes longer than reading a row of it."""
        file = self.file  # another one after a fork
        if self._opened is None or self._opened[0] is not file:
            datasets = {name: file[name] for name in ("features", "boxes", *LABELS) if name in file}
            self._opened = file, {name: _Array(d.id, d.shape, d.dtype) for name, d in datasets.items()}
        return self._opened[1]

    def _features_and_boxes(self, rows: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        with np.errstate(over="ignore"):
            return self._rows("features", rows), self._rows("boxes", rows).astype(np.float32, copy=False)

    def _rows(self, name: str, rows: Sequence[int]) -> np.ndarray:
        """Whole chunks, straight into their place: h5py's fancy indexing is 50 times slower, single rows and a stack 5 times."""
        dataset, (_, *shape), dtype = self._arrays[name]
        places, rest = np.empty((len(rows), math.prod(shape) * dtype.itemsize), np.uint8), (0,) * len(shape)
        try:
            for place, row in zip(places, rows, strict=True):
                dataset.read_direct_chunk((row, *rest), out=place)
        except DAMAGED as error:
            raise StoreError(f"{self.path}: {name} cannot be read ({error}); write it again") from None
        return places.view(dtype).reshape(len(rows), *shape)

    def _check_shapes(self) -> None:
        shapes = {name: array.shape for name, array in self._arrays.items()}
        images, regions = shapes["features"][:2]
        expected = dict.fromkeys(LABELS, (images, regions)) | {"features": shapes["features"], "boxes": (images, regions, 4)}
        if images != len(self.ids) or len(shapes["features"]) != 3 or any(shapes[name] != expected[name] for name in shapes):
            raise StoreError(f"{self.path}: its arrays disagree for {images} images: {shapes}; write it again")
        if self.counts is not None and (
            self.counts.shape != (images,) or not 1 <= self.counts.min() <= self.counts.max() <= regions
        ):
            raise StoreError(f"{self.path}: counts are not {images} numbers from 1 to {regions}; write it again")
        for name, array in self._arrays.items():
            layout = array.id.get_create_plist()
            if self.file[name].chunks != (1, *array.shape[1:]) or layout.get_nfilters() or array.dtype.kind not in "fi":
                raise StoreError(f"{self.path}: {name} is not stored as one plain chunk an image; write it again")

    def _names(self, which: str) -> tuple[str, ...]:
        return tuple(self.file[which].asstr()[:]) if which in self.file else ()


class RegionWriter:
    """Writes a new regions-<extractor>.h5 of `count` images aside and renames it after the block; an error leaves what was there before.

    `sources`: the files the features come from and their sha256. `regions`: room for so many an image, of which it may have
    fewer; by default every image must have as many as the first. `exact`: float32 features and float64 boxes, so that
    pixels and features of a float32 source can be had back bit for bit.
    """

    def __init__(
        self,
        path: Path,
        count: int,
        sources: Mapping[str, str] | None = None,
        *,
        regions: int = 0,
        exact: bool = False,
        class_names: Sequence[str] = (),
        attribute_names: Sequence[str] = (),
    ) -> None:
        self.path, self.count = path, count
        self._part = path.with_name(path.name + ".part")
        self._sources, self._regions, self._exact = dict(sources or {}), regions, exact
        self._names = {"class_names": tuple(class_names), "attribute_names": tuple(attribute_names)}
        self._datasets: dict[str, h5py.Dataset] = {}
        self._ids: list[str] = []
        self._counts: list[int] = []

    def add(self, image: Regions) -> None:
        """Store the regions of the next image. Boxes outside [0, 1], NaN and whatever differs from the first image are a StoreError."""
        check_regions(image, self._exact)
        if not self._datasets:
            self._create(image)
        arrays = {"features": image.features, "boxes": image.boxes.clip(0, 1), **image.labels}
        if set(arrays) != set(self._datasets):
            raise StoreError(
                f"regions of image {image.id}: {', '.join(sorted(arrays))}; the first image had {', '.join(sorted(self._datasets))}"
            )
        regions, width = self._datasets["features"].shape[1:]
        count = len(image.features)
        if image.features.shape[1] != width or count > regions or (count < regions and not self._regions):
            raise StoreError(f"regions of image {image.id}: shape {image.features.shape}, the first image had {(regions, width)}")
        if len(self._ids) == self.count:
            raise StoreError(f"regions of image {image.id}: only {self.count} images were announced")
        self._check_labels(image)
        for name, values in arrays.items():
            row = np.zeros(self._datasets[name].shape[1:], self._datasets[name].dtype)
            row[:count] = values
            self._datasets[name].id.write_direct_chunk((len(self._ids), *(0 for _ in row.shape)), row.tobytes())
        self._ids.append(image.id)
        self._counts.append(count)

    def _create(self, image: Regions) -> None:
        regions = self._regions or len(image.features)
        kinds: dict[str, type[np.generic]] = {"features": np.float32, "boxes": np.float64} if self._exact else {}
        kinds = {"features": np.float16, "boxes": np.float32, **LABELS, **kinds}
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        for name in ("features", "boxes", *image.labels):
            row = (regions, *getattr(image, name).shape[1:])
            self._datasets[name] = self._file.create_dataset(
                name, (self.count, *row), np.dtype(kinds[name]).newbyteorder("<"), chunks=(1, *row), dcpl=plist.copy()
            )
        self._file.flush()
        self._reserve()

    def _reserve(self) -> None:
        """Meet a full disk or quota here: HDF5 would end the process with a segmentation fault."""
        size = self._part.stat().st_size + (1 << 18) + 200 * self.count  # ids, counts and names come last
        if not hasattr(os, "posix_fallocate"):  # macOS
            return
        try:
            with self._part.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            raise StoreError(
                f"{self.path}: no room for {size / 1e6:,.1f} MB ({error.strerror}); free some and run again"
            ) from None

    def _check_labels(self, image: Regions) -> None:
        for which, key in (("class_names", "classes"), ("attribute_names", "attributes")):
            names, values = self._names[which], image.labels.get(key)
            if names and values is not None and values.max() >= len(names):
                raise StoreError(f"regions of image {image.id}: {key} up to {values.max()}, and there are {len(names)} names")

    def _finish(self) -> None:
        if len(self._ids) != self.count or not self._ids:
            raise StoreError(f"{self.path}: {self.count} images were announced and {len(self._ids)} came")
        check_unique(self._ids, "image", self.path.name)
        self._file.attrs["sources"] = json.dumps(self._sources)
        for name, strings in {"ids": self._ids, **self._names}.items():
            if strings:
                width = max(1, *(len(text.encode()) for text in strings))  # HDF5 can hang on damaged text of variable length
                self._file.create_dataset(name, data=list(strings), dtype=h5py.string_dtype("utf-8", width), fletcher32=True)
        if min(self._counts) < self._datasets["features"].shape[1]:
            self._file.create_dataset("counts", data=np.array(self._counts, np.int32), fletcher32=True)
        self._file.flush()
        self._size = self._file.id.get_filesize()

    def __enter__(self) -> RegionWriter:
        try:
            self._file = h5py.File(self._part, "w", libver="v110")
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be written ({error}); is another job at it?") from None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            try:
                if kind is None:
                    self._finish()
            finally:
                self._file.close()
            if kind is None:
                with self._part.open("r+b") as written:
                    written.truncate(self._size)  # less than was reserved
                    os.fsync(written.fileno())
                self._part.replace(self.path)
        finally:
            self._part.unlink(missing_ok=True)


def write_regions(
    path: Path, images: Iterable[tuple[Any, ...]], count: int, sources: Mapping[str, str] | None = None, **options: Any
) -> None:
    """Store `count` images, each a `Regions` or its leading values (id, features, boxes); options as for RegionWriter."""
    with RegionWriter(path, count, sources, **options) as writer:
        for image in images:
            writer.add(Regions(*image))


def check_shapes(image: Regions) -> None:
    """StoreError unless the arrays are of the right kinds and fit each other."""
    features, boxes = image.features, image.boxes
    if (
        features.ndim != 2
        or not features.size
        or boxes.shape != (len(features), 4)
        or {features.dtype.kind, boxes.dtype.kind} != {"f"}
    ):
        raise StoreError(
            f"regions of image {image.id}: features {features.shape} {features.dtype} and boxes {boxes.shape} {boxes.dtype}; "
            "expected floats, (R, D) and (R, 4)"
        )
    for name, values in image.labels.items():
        if values.shape != (len(features),) or values.dtype.kind not in ("iu" if LABELS[name] is np.int32 else "f"):
            raise StoreError(f"regions of image {image.id}: {name} {values.shape} {values.dtype} for {len(features)} regions")


def check_regions(image: Regions, exact: bool = False) -> None:
    """StoreError unless the arrays hold what a region file can hold."""
    check_shapes(image)
    where = f"regions of image {image.id}"
    for name, values in image.labels.items():
        if values.dtype.kind != "f" and not -1 <= values.min() <= values.max() < 1 << 31:
            raise StoreError(f"{where}: {name} from {values.min()} to {values.max()}; expected numbers from 0, or -1 for none")
    if not all(np.isfinite(values).all() for values in (image.features, image.boxes, *image.labels.values())):
        raise StoreError(f"{where}: a value is NaN or infinite")
    if np.abs(image.features).max() > np.finfo(np.float32 if exact else np.float16).max:
        raise StoreError(f"{where}: a feature does not fit {'float32' if exact else 'float16'}")
    low, high = image.boxes.min(), image.boxes.max()
    if low < -TOLERANCE or high > 1 + TOLERANCE:
        raise StoreError(f"{where}: box from {low:.3f} to {high:.3f}; divide by the image's width and height first")
    if (image.boxes[:, 2:] < image.boxes[:, :2] - TOLERANCE).any():
        raise StoreError(f"{where}: a box ends before it begins; expected x1 y1 x2 y2")
