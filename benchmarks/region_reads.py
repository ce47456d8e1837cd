"""Random reads of region features: RegionStore.read against bare h5py row reads of the same file, rows in a CPU second of one thread.

    python benchmarks/region_reads.py
    python benchmarks/region_reads.py --regions data/coco/regions-bottom-up.h5

Without --regions a file of 4,000 images with 36 regions of 2,048 numbers is made first (600 MB in the folder for temporary
files). Both sides read the same images in the same random order, features and boxes, from a warm cache, in turns; the best
turn of each counts. Not counted: opening the file.

bare: features[row] and boxes[row] of datasets that are held open, one row after the other; what is read is thrown away.

store: RegionStore.read by image id, a batch at a time, which also puts the rows into one array a batch.

Exits with 1 if the store reads less than 0.8 times as many rows.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import tyro

from corpora.regions import RegionStore, write_regions

MADE = 4_000, 36, 2_048
"""Images, regions, numbers a region."""
GOAL = 0.8
TURNS = 5


@dataclass(frozen=True)
class Config:
    regions: Path | None = None
    """A region file to read; by default one is made."""
    batch_size: int = 64
    """Images the store reads at once."""
    images: int = 4_000
    """How many images are read in a turn, at most all."""


def run(config: Config) -> bool:
    """Print both rates; whether the goal is reached."""
    if config.regions:
        return compare(config.regions, config)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "regions-made.h5"
        make(path, *MADE)
        return compare(path, config)


def make(path: Path, images: int, regions: int, width: int) -> None:
    """A region file of random numbers."""
    generator = np.random.default_rng(0)
    features = generator.random((regions, width))
    boxes = np.sort(generator.random((regions, 2, 2)), axis=1).reshape(regions, 4)
    write_regions(path, ((str(number), features + number % 7, boxes) for number in range(images)), images)


def compare(path: Path, config: Config) -> bool:
    """Read the same images both ways, in turns."""
    store = RegionStore(path)
    ids = [store.ids[row] for row in np.random.default_rng(1).permutation(len(store.ids))[: config.images]]
    rows = [store.row(image_id) for image_id in ids]
    with h5py.File(path) as file:
        features, boxes = file["features"], file["boxes"]

        def bare() -> None:
            for row in rows:
                features[row], boxes[row]

        def batches() -> None:
            for start in range(0, len(ids), config.batch_size):
                store.read(ids[start : start + config.batch_size])

        np.testing.assert_array_equal(store.read(ids[:9])[0], [features[row] for row in rows[:9]])
        bare()  # into the cache
        seconds = [(timed(bare), timed(batches)) for _ in range(TURNS)]
    ours, theirs = (len(ids) / min(turn[side] for turn in seconds) for side in (1, 0))
    print(
        f"{len(ids):,} of {len(store.ids):,} images, {store.regions} regions of {store.width:,} numbers, {config.batch_size} at once"
    )
    print(f"bare h5py rows     {theirs:9,.0f} a second")
    print(f"RegionStore.read   {ours:9,.0f} a second")
    print(f"ratio              {ours / theirs:9.2f}")
    return ours >= GOAL * theirs


def timed(call: Callable[[], None]) -> float:
    """CPU seconds of a call."""
    start = time.process_time()
    call()
    return time.process_time() - start


if __name__ == "__main__":
    try:
        reached = run(tyro.cli(Config, description=__doc__))
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    sys.exit(0 if reached else f"error: less than {GOAL} of bare row reads")
