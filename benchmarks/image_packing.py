"""Packing many small images against a bare loop of read and decode, and its memory.

    python benchmarks/image_packing.py
    python benchmarks/image_packing.py --few 1000 --many 10000 --side 128 --workers 4

Synthetic JPEGs of 256 x 256 pixels (1,000 different ones, each there many times under another name).

bare loop: every file opened, decoded with Pillow, and forgotten; in as many processes as packing has.

packing: preprocess.build, which reads, decodes, checks, hashes, writes packs, joins them into images.h5 with a second check of every
hash, and proves the corpus; started anew for each count. Counted is all of it but the start of Python.

Per core is images a second of CPU time, all processes together; the bare loop runs before and after. Exits with 1 if packing is below
0.8 of the bare loop per core, or if memory grows by more than 3 kB an image: its record, path and caption, while its bytes pass by.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from PIL import Image

from corpora.corpus import Caption
from preprocess.build import build
from preprocess.entries import Entry
from preprocess.packing import Packing

DIFFERENT = 1000
LEAST_RATE = 0.8
MOST_GROWTH = 3000


@dataclass(frozen=True)
class Config:
    few: int = 10_000
    """Images of the first corpus, whose memory is compared with that of the second."""
    many: int = 100_000
    """Images of the second corpus."""
    side: int = 256
    """Pixels."""
    workers: int = 0
    """Processes; 0 is one a core."""


@dataclass(frozen=True)
class Cost:
    """What a piece of work took."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    """Of the parent or the greatest of its workers."""


def run(config: Config) -> bool:
    """Measure, print the table, and say whether both limits hold."""
    workers = config.workers or len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = _write_images(folder / "images", config.many, config.side)
        size = sum(path.stat().st_size for path in paths) / len(paths)
        print(f"{config.many:,} synthetic images of {config.side} x {config.side} pixels, {size:,.0f} bytes; {workers} workers")
        parts = [(paths[: config.few][number::workers],) for number in range(workers)]
        before = _alone(bare_loop, *parts)
        few = _alone(pack, (paths[: config.few], folder / "few", workers))
        many = _alone(pack, (paths, folder / "many", workers))
        after = _alone(bare_loop, *parts)
    bare = 2 * config.few / (before.cpu_seconds + after.cpu_seconds)
    print(f"bare loop          {bare:8,.0f} images/s per core, {2 * config.few / (before.seconds + after.seconds):8,.0f} in all")
    for count, cost in ((config.few, few), (config.many, many)):
        print(
            f"packing {count:>10,} {count / cost.cpu_seconds:8,.0f} images/s per core, {count / cost.seconds:8,.0f} in all, "
            f"peak memory {cost.peak_bytes / 1e6:,.0f} MB"
        )
    rate = config.many / many.cpu_seconds / bare
    growth = (many.peak_bytes - few.peak_bytes) / (config.many - config.few)
    print(f"per core, of the bare loop   {rate:.2f}")
    print(f"memory for one more image    {growth:,.0f} bytes")
    return rate >= LEAST_RATE and growth <= MOST_GROWTH


def bare_loop(paths: list[Path]) -> None:
    """Open and decode."""
    for path in paths:
        with Image.open(path) as image:
            image.load()


def pack(paths: list[Path], folder: Path, workers: int) -> None:
    """Build a corpus of the images, each with one caption."""
    entries = (Entry(path.stem, "train", path, (Caption(path.stem, f"caption {path.stem}", (path.stem,)),)) for path in paths)
    build(entries, folder, made_by={}, sources={}, packing=Packing(workers=workers))


def _write_images(folder: Path, count: int, side: int) -> list[Path]:
    """Blocks of colour under noise."""
    generator = np.random.default_rng(0)
    files = []
    for _ in range(DIFFERENT):
        blocks = np.kron(generator.integers(0, 256, (8, 8, 3)), np.ones((side // 8, side // 8, 1)))
        file = io.BytesIO()
        Image.fromarray((blocks + generator.normal(0, 8, blocks.shape)).clip(0, 255).astype(np.uint8)).save(
            file, "JPEG", quality=85
        )
        files.append(file.getvalue())
    folder.mkdir()
    paths = [folder / f"{number:06d}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(files[number % DIFFERENT])
    return paths


def _alone(work: Callable[..., None], *given: tuple[Any, ...]) -> Cost:
    """The cost of calls, each at the same time in a process of its own, so that each has its own peak of memory."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(given), context) as pool:
        costs = list(pool.map(_measured, [work] * len(given), given))
    return Cost(
        max(cost.seconds for cost in costs), sum(cost.cpu_seconds for cost in costs), max(cost.peak_bytes for cost in costs)
    )


def _measured(work: Callable[..., None], given: tuple[Any, ...]) -> Cost:
    start, used = time.perf_counter(), _cpu_seconds()
    work(*given)
    seconds, used = time.perf_counter() - start, _cpu_seconds() - used
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return Cost(seconds, used, peak * 1024)


def _cpu_seconds() -> float:
    return sum(os.times()[:4])


if __name__ == "__main__":
    sys.exit(not run(tyro.cli(Config, description=__doc__)))
