"""Region features of made-up images, written in every format that is read."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Mapping
from pathlib import Path

import h5py
import numpy as np

from corpora.corpus import CorpusWriter, ImageRecord
from corpora.images import write_images
from corpora.regions import Regions, write_regions

SIZES = {"501": (640, 480), "dog_1": (333, 500), "502": (40, 41), "9": (64, 64)}
"""Width and height of every image of the corpus, by id."""


def corpus_folder(folder: Path, sizes: Mapping[str, tuple[int, int]] = SIZES, **made_by: object) -> Path:
    """A corpus of images with these sizes; their files are no pictures."""
    with CorpusWriter(folder, made_by) as corpus:
        write_images(corpus.part / "images.h5", [(key, b"x") for key in sizes])
        corpus.images += [ImageRecord(key, "train", *size) for key, size in sizes.items()]
    return folder


def made_up(count: int = 3, width: int = 60, sizes: Mapping[str, tuple[int, int]] = SIZES) -> dict[str, Regions]:
    """Random regions of every image: float32 features and pixel boxes that are float32 numbers."""
    rng = np.random.default_rng(0)
    found = {}
    for name, size in sizes.items():
        corners = np.sort(rng.random((count, 2, 2)) * size, axis=1).astype(np.float32)
        found[name] = Regions(
            name,
            rng.normal(size=(count, width)).astype(np.float32),
            corners.reshape(count, 4).astype(np.float64) / np.tile(size, 2),
            rng.integers(0, 1600, count),
            rng.random(count).astype(np.float32),
            rng.integers(0, 400, count),
            rng.random(count).astype(np.float32),
        )
    return found


def pixels(image: Regions) -> np.ndarray:
    return (image.boxes * np.tile(SIZES[image.id], 2)).astype(np.float32)


def encoded(array: np.ndarray) -> str:
    return b64encode(array.tobytes()).decode()


def lxmert_tsv(path: Path, images: Mapping[str, Regions]) -> None:
    with path.open("w", newline="") as file:
        for image in images.values():
            width, height = SIZES[image.id]
            arrays = [image.classes, image.scores, image.attributes, image.attribute_scores]
            cells = [
                image.id,
                height,
                width,
                *map(encoded, arrays),
                len(image.boxes),
                encoded(pixels(image)),
                encoded(image.features),
            ]
            file.write("\t".join(map(str, cells)) + "\r\n")


def bottom_up_tsv(path: Path, images: Mapping[str, Regions], dtype: type = np.float32) -> None:
    lines = [
        [image.id, *SIZES[image.id], len(image.boxes), encoded(pixels(image).astype(dtype)), encoded(image.features)]
        for image in images.values()
    ]
    path.write_text("".join("\t".join(map(str, cells)) + "\n" for cells in lines))


def bottom_up_tsv_float64(path: Path, images: Mapping[str, Regions]) -> None:
    bottom_up_tsv(path, images, np.float64)


def vinvl_rows(images: Mapping[str, Regions]) -> list[tuple[str, int, str]]:
    rows = []
    for image in images.values():
        boxes = image.boxes.astype(np.float32)
        numbers = np.concatenate([image.features, boxes, boxes[:, 2:] - boxes[:, :2]], axis=1)
        rows.append((image.id, len(boxes), encoded(numbers)))
    return rows


def vinvl_tsv(path: Path, images: Mapping[str, Regions]) -> None:
    path.write_text("".join(f"{name}\t{count}\t{numbers}\n" for name, count, numbers in vinvl_rows(images)))


def vinvl_json_tsv(path: Path, images: Mapping[str, Regions]) -> None:
    rows = [(name, json.dumps({"num_boxes": count, "features": numbers})) for name, count, numbers in vinvl_rows(images)]
    path.write_text("".join(f"{name}\t{row}\n" for name, row in rows))


def stacked_npz(path: Path, images: Mapping[str, Regions]) -> None:
    rows = list(images.values())
    arrays = {name: np.stack([getattr(row, name) for row in rows]) for name in ("features", "boxes", *rows[0].labels)}
    with path.open("wb") as file:  # savez would add .npz to a name without it
        np.savez(file, files=[f"{name}.jpg" for name in images], **arrays)


def stacked_lxmert_npz(path: Path, images: Mapping[str, Regions]) -> None:
    rows = list(images.values())
    labels = {"objects_id": "classes", "objects_conf": "scores", "attrs_id": "attributes", "attrs_conf": "attribute_scores"}
    arrays = {name: np.stack([getattr(row, ours) for row in rows]) for name, ours in {**labels, "features": "features"}.items()}
    width, height = np.array([SIZES[name] for name in images]).T
    boxes = np.stack([pixels(row) for row in rows])
    with path.open("wb") as file:
        np.savez_compressed(file, img_id=list(images), img_w=width, img_h=height, boxes=boxes, **arrays)


def npz_folder(path: Path, images: Mapping[str, Regions]) -> None:
    path.mkdir()
    for image in images.values():
        np.savez(path / f"{image.id}.npz", visual_feats=image.features, visual_pos=image.boxes)


def tern_folder(path: Path, images: Mapping[str, Regions]) -> None:
    (path / "cocobu_att").mkdir(parents=True)
    (path / "cocobu_box").mkdir()
    for image in images.values():
        np.savez(path / "cocobu_att" / f"{image.id}.npz", feat=image.features)
        np.save(path / "cocobu_box" / f"{image.id}.npy", pixels(image))


def tern_flickr_folder(path: Path, images: Mapping[str, Regions]) -> None:
    (path / "data_att").mkdir(parents=True)
    (path / "data_box").mkdir()
    for image in images.values():
        np.savez(path / "data_att" / f"{image.id}.npz", feat=image.features)
        np.savez(path / "data_box" / f"{image.id}.npz", feat=np.column_stack([pixels(image), image.classes]))


def hdf5_groups(path: Path, images: Mapping[str, Regions]) -> None:
    with h5py.File(path, "w") as file:
        for image in images.values():
            file[f"{image.id}/visual_feats"] = image.features
            file[f"{image.id}/visual_pos"] = image.boxes


def region_file(path: Path, images: Mapping[str, Regions]) -> None:
    write_regions(path, images.values(), len(images), exact=True)


Writer = Callable[[Path, Mapping[str, Regions]], None]
LABELLED = ("classes", "scores", "attributes", "attribute_scores")
WRITERS: dict[str, tuple[Writer, str, tuple[str, ...]]] = {
    "lxmert_tsv": (lxmert_tsv, "lxmert-tsv", LABELLED),
    "bottom_up_tsv": (bottom_up_tsv, "bottom-up-tsv", ()),
    "bottom_up_tsv_float64": (bottom_up_tsv_float64, "bottom-up-tsv", ()),
    "vinvl_tsv": (vinvl_tsv, "vinvl-tsv", ()),
    "vinvl_json_tsv": (vinvl_json_tsv, "vinvl-tsv", ()),
    "stacked_npz": (stacked_npz, "npz", LABELLED),
    "stacked_lxmert_npz": (stacked_lxmert_npz, "npz", LABELLED),
    "npz_folder": (npz_folder, "npz-folder", ()),
    "tern_folder": (tern_folder, "tern-folder", ()),
    "tern_flickr_folder": (tern_flickr_folder, "tern-folder", ("classes",)),
    "hdf5_groups": (hdf5_groups, "hdf5", ()),
    "region_file": (region_file, "region-file", LABELLED),
}
"""Writer, the format's name, and the labels it carries."""
