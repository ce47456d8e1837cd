"""Region features of many images in one .npz: rows along the first axis of every array.

Ours: `files` (N,) image file names, `features` (N, R, D), `boxes` (N, R, 4) in [0, 1]; any of `classes`, `scores`, `attributes`,
`attribute_scores` (N, R); `counts` (N,) where images have fewer than R regions. Or LXMERT's columns, stacked: `img_id`, `img_w`,
`img_h`, `boxes` in pixels, `features`, `objects_id`, ...
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from corpora.regions import LABELS, Regions, RegionStore
from preprocess.numpy_files import Npz, refusing_damage
from preprocess.region_source import Found, RegionSource

LXMERT = {
    **{"files": "img_id", "classes": "objects_id", "scores": "objects_conf", "attributes": "attrs_id"},
    **{"attribute_scores": "attrs_conf", "counts": "num_boxes", "width": "img_w", "height": "img_h"},
}
"""Our names of arrays and LXMERT's."""


class StackedNpz(RegionSource):
    """One .npz of many images; rows are streamed."""

    expected = "an .npz with files (N,), features (N, R, D) and boxes (N, R, 4), or LXMERT's columns as arrays"

    def names(self) -> list[str]:
        with refusing_damage(self.path, self.expected), Npz(self.path) as arrays:
            files = arrays.read("img_id" if "files" not in arrays.keys and "img_id" in arrays.keys else "files")
            return files.astype(str).ravel().tolist()

    def rows(self, wanted: Sequence[bool]) -> Iterator[Found]:
        with refusing_damage(self.path, self.expected), Npz(self.path) as arrays:
            lxmert = "files" not in arrays.keys
            keys = {name: LXMERT.get(name, name) if lxmert else name for name in ("features", "boxes", "counts", *LABELS)}
            keys |= {name: LXMERT[name] for name in ("files", "width", "height") if lxmert} or {"files": "files"}
            required = {"features", "boxes", "files", *({"width", "height"} if lxmert else ())}
            streams = {
                name: _rows(arrays, key, name, len(wanted))
                for name, key in keys.items()
                if name in required or key in arrays.keys
            }
            for row, take in enumerate(wanted):
                values = {name: next(stream) for name, stream in streams.items()}
                if take:
                    yield _found(self.where(row), values)
            for stream in streams.values():
                next(stream, None)  # the check sum is compared at the end of an array


def _rows(arrays: Npz, key: str, name: str, count: int) -> Iterator[np.ndarray]:
    stored = arrays.open(key)
    dimensions = {"features": 3, "boxes": 3, **dict.fromkeys(LABELS, 2)}.get(name, 1)
    kinds = "f" if dimensions == 3 else "fiuUS"
    if len(stored.shape) != dimensions or stored.shape[0] != count or stored.dtype.kind not in kinds:
        letters = ("N", "regions", "numbers")[:dimensions]
        raise ValueError(f"{key} is {stored.shape} {stored.dtype} and not ({', '.join(letters)}) with N = {count}")
    yield from stored.rows()
    stored.file.read(1)


def _found(where: str, values: dict[str, np.ndarray]) -> Found:
    count = int(values["counts"]) if "counts" in values else len(values["features"])
    if not 1 <= count <= len(values["features"]):
        raise ValueError(f"{where}: {count} of {len(values['features'])} regions")
    arrays = {name: values[name][:count] for name in ("features", "boxes", *LABELS) if name in values}
    size = (int(values["width"]), int(values["height"])) if "width" in values else None
    return Found(where, Regions(values["files"].astype(str).item(), **arrays), size is not None, size)


def write_stacked_npz(path: Path, store: RegionStore, image_ids: Sequence[str]) -> None:
    """These images of a region file, in this order, streamed into an uncompressed .npz of our layout."""
    first = store.of(image_ids[0])
    shapes = {
        "features": (store.regions, store.width),
        "boxes": (store.regions, 4),
        **dict.fromkeys(first.labels, (store.regions,)),
    }
    with zipfile.ZipFile(path, "w") as archive:
        _write(archive, "files", [np.array(image_ids)])
        if store.counts is not None:
            _write(archive, "counts", [store.counts[[store.row(image_id) for image_id in image_ids]]])
        for name, shape in shapes.items():
            values = (_padded(getattr(store.of(image_id), name), shape) for image_id in image_ids)
            _write(archive, name, values, (len(image_ids), *shape))


def _write(archive: zipfile.ZipFile, name: str, blocks: Iterable[np.ndarray], shape: tuple[int, ...] = ()) -> None:
    """An array from its blocks, of which there is one where no shape is given."""
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        for number, block in enumerate(blocks):
            if not number:
                descr = np.lib.format.dtype_to_descr(block.dtype)
                np.lib.format.write_array_header_1_0(
                    file, {"descr": descr, "fortran_order": False, "shape": shape or block.shape}
                )
            file.write(block.tobytes())


def _padded(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    row = np.zeros(shape, values.dtype)
    row[: len(values)] = values
    return row
