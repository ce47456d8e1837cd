"""Region features of a corpus: what a detector or a grid saw in each image.

Layout of regions-<extractor>.h5: `features` (N, R, D) float16, `boxes` (N, R, 4) float32 in [0, 1] as
x1 y1 x2 y2, `ids` (N,) str; one chunk an image, uncompressed. Attribute `sources`: JSON, source files and their sha256.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np

from corpora.store import Store, StoreError, check_unique


class RegionStore(Store):
    """Reads regions-<extractor>.h5 by image id."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, required=("features", "boxes", "ids"))
        features, boxes = self.file["features"], self.file["boxes"]
        if features.shape[0] != len(self.ids) or boxes.shape != (*features.shape[:2], 4):
            raise StoreError(f"{path}: features {features.shape} and boxes {boxes.shape} disagree for {len(self.ids)} images")
        self.regions: int = features.shape[1]
        self.width: int = features.shape[2]
        self.sources: dict[str, str] = json.loads(self.file.attrs.get("sources", "{}"))

    def read(self, image_ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Features (B, R, D) float16 and boxes (B, R, 4) float32. Rows are read one by one: h5py's fancy indexing is 50 times slower."""
        rows = [self.row(image_id) for image_id in image_ids]
        features = np.stack([self.file["features"][row] for row in rows])
        boxes = np.stack([self.file["boxes"][row] for row in rows])
        return features, boxes


def write_regions(
    path: Path, images: Iterable[tuple[str, np.ndarray, np.ndarray]], count: int, sources: Mapping[str, str] | None = None
) -> None:
    """Store `count` (id, features (R, D), boxes (R, 4)) rows, written aside and renamed. Boxes outside [0, 1] are an error.

    `sources`: the files the features come from and their sha256.
    """
    part = path.with_name(path.name + ".part")
    try:
        with h5py.File(part, "w") as file:
            file.attrs["sources"] = json.dumps(dict(sources or {}))
            ids = _write_rows(file, images, count)
            if len(ids) != count or not ids:
                raise StoreError(f"{path}: {count} images were announced and {len(ids)} came")
            check_unique(ids, "image", path.name)
            file.create_dataset("ids", data=ids, dtype=h5py.string_dtype())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _write_rows(file: h5py.File, images: Iterable[tuple[str, np.ndarray, np.ndarray]], count: int) -> list[str]:
    ids: list[str] = []
    for image_id, features, boxes in images:
        _check_row(image_id, features, boxes)
        if not ids:
            file.create_dataset("features", (count, *features.shape), np.float16, chunks=(1, *features.shape))
            file.create_dataset("boxes", (count, *boxes.shape), np.float32, chunks=(1, *boxes.shape))
        if features.shape != file["features"].shape[1:]:
            raise StoreError(
                f"regions of image {image_id}: shape {features.shape}, the first image had {file['features'].shape[1:]}"
            )
        if len(ids) == count:
            raise StoreError(f"regions of image {image_id}: only {count} images were announced")
        file["features"][len(ids)] = features
        file["boxes"][len(ids)] = boxes
        ids.append(image_id)
    return ids


def _check_row(image_id: str, features: np.ndarray, boxes: np.ndarray) -> None:
    if features.ndim != 2 or boxes.shape != (len(features), 4):
        raise StoreError(
            f"regions of image {image_id}: features {features.shape} and boxes {boxes.shape}; expected (R, D) and (R, 4)"
        )
    if not (np.isfinite(features).all() and np.isfinite(boxes).all()):
        raise StoreError(f"regions of image {image_id}: a value is NaN or infinite")
    if np.abs(features).max() > np.finfo(np.float16).max:
        raise StoreError(f"regions of image {image_id}: a feature does not fit float16")
    if boxes.min() < -1e-5 or boxes.max() > 1 + 1e-5:
        raise StoreError(
            f"regions of image {image_id}: box from {boxes.min():.3f} to {boxes.max():.3f}; divide by the image's width and height first"
        )
