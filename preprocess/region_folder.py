"""Region features as a folder with a file an image, named after it.

LXMERT's in lxmert_clip_tiir: <image>.npz with `visual_feats` (R, D) and `visual_pos` (R, 4) in [0, 1].
TERN's: two folders beside each other, one of <image>.npz with features, one of <image>.npz or .npy with boxes in pixels. The
boxes of mesnico/TERN are (R, 4), those of kaylode/tern (R, 5), the fifth number being a class.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from corpora.corpus import CorpusError
from corpora.regions import LABELS, Regions, RegionStore
from preprocess.numpy_files import Npz, read_array, refusing_damage
from preprocess.region_source import Found, RegionSource
from preprocess.source_files import sha256_of

ENDINGS = {".npz", ".npy"}


class NpzFolder(RegionSource):
    """<image>.npz with visual_feats and visual_pos; any of classes, scores, attributes, attribute_scores (R,), which we add."""

    expected = "a folder of <image>.npz files with visual_feats (R, D) and visual_pos (R, 4)"

    def names(self) -> list[str]:
        with refusing_damage(self.path, self.expected):
            files = files_by_stem(self.path)
        self._paths = list(files.values())
        return list(files)

    def where(self, row: int) -> str:
        return str(self._paths[row])

    def rows(self, wanted: Sequence[bool]) -> Iterator[Found]:
        for path, take in zip(self._paths, wanted, strict=True):
            if take:
                with refusing_damage(path, self.expected), Npz(path) as arrays:
                    labels = {name: arrays.read(name) for name in LABELS if name in arrays.keys}
                    regions = Regions(path.stem, arrays.read("visual_feats"), arrays.read("visual_pos"), **labels)
                yield Found(str(path), regions)

    def digest(self) -> str:
        return digest_of_files(self.path, self._paths)


class TernFolder(RegionSource):
    """A folder of two: features and boxes, told apart by the width of their arrays."""

    expected = "a folder of two folders, <image>.npz with features (R, D) and <image>.npz or .npy with boxes (R, 4) or (R, 5)"

    def names(self) -> list[str]:
        with refusing_damage(self.path, self.expected):
            files = [files_by_stem(folder) for folder in sorted(self.path.iterdir()) if folder.is_dir()]
            files.sort(key=lambda one: _array(next(iter(one.values()))).shape[1], reverse=True)
            self._features, self._boxes = files
        alone = self._features.keys() ^ self._boxes.keys()
        if alone:
            raise CorpusError(
                f"{self.path}: {len(alone)} images are in one of its two folders only, the first: {min(alone)}; fetch the rest"
            )
        self._names = list(self._features)
        return self._names

    def where(self, row: int) -> str:
        return str(self._features[self._names[row]])

    def rows(self, wanted: Sequence[bool]) -> Iterator[Found]:
        for (name, path), take in zip(self._features.items(), wanted, strict=True):
            if take:
                with refusing_damage(path, self.expected):
                    features = _array(path)
                with refusing_damage(self._boxes[name], self.expected):
                    boxes, classes = _boxes_and_classes(_array(self._boxes[name]))
                yield Found(str(path), Regions(name, features, boxes, classes), pixels=True)

    def digest(self) -> str:
        return digest_of_files(self.path, [*self._features.values(), *self._boxes.values()])


def files_by_stem(folder: Path) -> dict[str, Path]:
    """The .npz and .npy files of a folder, sorted; CorpusError if there are none or two of one stem."""
    files = sorted(path for path in folder.iterdir() if path.suffix in ENDINGS)
    found = {path.stem: path for path in files}
    if not found:
        raise CorpusError(f"{folder}: holds no .npz or .npy files")
    if len(found) < len(files):
        raise CorpusError(f"{folder}: holds an .npz and an .npy of the same name; remove one")
    return found


def digest_of_files(folder: Path, files: Iterable[Path]) -> str:
    """sha256 over the names and contents of files."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(folder)}\0{sha256_of(path)}\0".encode())
    return digest.hexdigest()


def write_npz_folder(folder: Path, store: RegionStore, image_ids: Iterable[str]) -> None:
    """<image>.npz for each of these images of a region file: visual_feats, visual_pos and the labels that are known."""
    for image_id in image_ids:
        if "/" in image_id or image_id in (".", ".."):
            raise CorpusError(f"{store.path}: image {image_id!r} cannot be the name of a file; export another format")
        regions = store.of(image_id)
        arrays = {"visual_feats": regions.features, "visual_pos": regions.boxes, **regions.labels}
        np.savez(folder / f"{image_id}.npz", allow_pickle=False, **arrays)


def _array(path: Path) -> np.ndarray:
    """(R, numbers) in a .npy, or under `feat` in a .npz."""
    if path.suffix == ".npy":
        array = read_array(path)
    else:
        with Npz(path) as arrays:
            array = arrays.read("feat")
    if array.ndim != 2:
        raise ValueError(f"an array is {array.shape}")
    return array


def _boxes_and_classes(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    if numbers.shape[1] == 4:
        return numbers, None
    if numbers.shape[1] != 5:
        raise ValueError(f"boxes are {numbers.shape}")
    classes = numbers[:, 4]
    if not (np.isfinite(classes) & (classes == np.floor(classes)) & (np.abs(classes) < 1 << 31)).all():
        raise ValueError(f"the fifth number of a box should be a class, and is {classes[0]}")
    return numbers[:, :4], classes.astype(np.int64)
