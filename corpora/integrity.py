"""Whether a corpus folder still holds what was written: every image there once, unchanged, whole and of the recorded size."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from corpora.corpus import Corpus
from corpora.image_checks import verified
from corpora.images import ImageStore
from corpora.progress import progress
from corpora.workers import in_processes

IMAGES_AT_ONCE = 500


def find_damage(corpus: Corpus, workers: int = 0) -> list[str]:
    """What is wrong, one line each; empty if all is well. Decodes every image, in one process a core (or `workers`)."""
    for name in corpus.info["splits"]:
        corpus.split(name)  # tables that disagree with corpus.json are an error already
    table = pq.read_table(corpus.folder / "images.parquet", columns=["id", "width", "height"])
    recorded = {row["id"]: (row["width"], row["height"]) for row in table.to_pylist()}
    if not recorded:
        return []
    found = (
        [] if len(recorded) == table.num_rows else [f"images.parquet: {table.num_rows - len(recorded)} images stand there twice"]
    )
    stored = corpus.images.ids
    found += [f"image {image_id!r}: in images.parquet and not in images.h5" for image_id in recorded.keys() - set(stored)]
    found += [f"image {image_id!r}: in images.h5 and not in images.parquet" for image_id in set(stored) - recorded.keys()]
    if len(set(stored)) != len(stored):
        found.append(f"images.h5: {len(stored) - len(set(stored))} images stand there twice")
    digests = zip(stored, corpus.images.digests(), strict=True)
    both = [(image_id, digest, recorded[image_id]) for image_id, digest in digests if image_id in recorded]
    tasks = [(corpus.images.path, both[start : start + IMAGES_AT_ONCE]) for start in range(0, len(both), IMAGES_AT_ONCE)]
    for faults in progress(in_processes(_faults, tasks, workers), f"blocks of {IMAGES_AT_ONCE} images", len(tasks)):
        found += faults
    return sorted(found)


def _faults(path: Path, images: Sequence[tuple[str, bytes, tuple[int, int]]]) -> list[str]:
    store = ImageStore(path)
    found = []
    for image_id, digest, size in images:
        data = store.read(image_id)
        if hashlib.sha256(data).digest() != digest:
            found.append(f"image {image_id!r}: its bytes are not those that were packed")
            continue
        try:
            picture = verified(data)
        except ValueError as error:
            found.append(f"image {image_id!r}: {error}")
            continue
        if (picture.width, picture.height) != size:
            found.append(f"image {image_id!r}: {picture.width} x {picture.height} pixels, recorded as {size[0]} x {size[1]}")
    return found
