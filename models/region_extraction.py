"""Regions of every picture of a corpus: regions-<name>.h5, extracted in pieces that any number of jobs and processes share.

A piece holds 64 images; a killed job loses the one it was at. Whoever finds all pieces there joins them.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, cast

from PIL import Image
from torch.utils.data import DataLoader

from corpora.corpus import Corpus, CorpusError
from corpora.images import ImageStore
from corpora.pieces import Part, Pieces
from corpora.progress import progress
from corpora.regions import RegionStore, RegionWriter, write_regions
from corpora.store import StoreError
from models.region_extractor import RegionExtractor
from training.processes import outlive_sigterm
from training.supervision import Nobody, Supervisor
from training.weights import weights_digest

PIECE = 64
"""Images a piece: fixed, so that a job goes on under any number of processes."""


@dataclass(frozen=True)
class Extraction:
    """This process's share of an extraction."""

    corpus: Corpus
    extractor: RegionExtractor
    name: str
    """regions-<name>.h5 is what comes of it."""
    precision: str = "no"
    batch_size: int = 8
    part: Part = Part()  # noqa: RUF009
    rank: int = 0
    """This process's number among the job's `size` processes, which share the part."""
    size: int = 1
    workers: int = 0
    """Loader processes that decode pictures."""
    class_names: Sequence[str] = ()
    """What the numbers of the classes stand for, where that is known."""
    attribute_names: Sequence[str] = ()
    supervisor: Supervisor = field(default_factory=Nobody)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.-]+", self.name):
            raise CorpusError(f"--store-as {self.name}: use letters, digits, '.', '_' and '-', it becomes part of a file name")
        if self.batch_size < 1:
            raise CorpusError(f"--batch-size {self.batch_size}: must be at least 1")

    def run(self) -> bool:
        """Extract this share; True if the whole file stands now. The first process of each job joins the pieces if all are there.

        CorpusError if other regions stand under its name.
        """
        made_from, folder = self._made_from(), self.path.with_name(f"{self.path.stem}.pieces")
        if self.path.exists():
            self._refuse_others(made_from)
            shutil.rmtree(folder, ignore_errors=True)  # left by a job killed at its very end
            return True
        pieces = Pieces(folder, -(-len(self._images.ids) // PIECE), made_from)
        try:
            self._extract(pieces, made_from)
            if self.rank == 0:
                self._wait_for_the_others(pieces)
                self._join(pieces, made_from)
        except (OSError, StoreError):
            if not self.path.exists():  # else another job has joined the pieces and removed them meanwhile
                raise
        return self.path.exists()

    @cached_property
    def _images(self) -> ImageStore:
        return self.corpus.images

    @property
    def path(self) -> Path:
        return self.corpus.folder / f"regions-{self.name}.h5"

    def _made_from(self) -> dict[str, str]:
        """What decides the result: extractor, weights, precision and images."""
        images = [*self._images.ids, str(self._images.path.stat().st_size)]
        digest = hashlib.sha256("\n".join(images).encode()).hexdigest()
        return {
            "extractor": self.extractor.name,
            "regions": str(self.extractor.regions),
            "weights": weights_digest(self.extractor.model),
            "precision": self.precision,
            "images": digest[:16],
        }

    def _refuse_others(self, made_from: dict[str, str]) -> None:
        there = RegionStore(self.path).sources
        differs = [
            f"{key} {there.get(key, 'unknown')} there and {value} here"
            for key, value in made_from.items()
            if there.get(key) != value
        ]
        if differs:
            raise CorpusError(f"{self.path}: made otherwise ({'; '.join(differs)}); remove it or choose another --store-as")

    def _extract(self, pieces: Pieces, made_from: dict[str, str]) -> None:
        own = self.part.share(self.rank, self.size)
        missing = pieces.missing(own)
        batches = [_batches(self._images.ids[number * PIECE : (number + 1) * PIECE], self.batch_size) for number in missing]
        loader = DataLoader(
            cast(Any, [batch for piece in batches for batch in piece]),
            batch_size=None,
            collate_fn=partial(_pictures, self._images),
            num_workers=self.workers,
            worker_init_fn=outlive_sigterm,
        )
        pictures = iter(loader)
        for number, piece in progress(zip(missing, batches, strict=True), f"pieces of {PIECE} images", len(missing)):
            rows = []
            for ids in piece:
                self.supervisor.beat()
                seen = self.extractor(next(pictures))
                rows += [regions._replace(id=image_id) for image_id, regions in zip(ids, seen, strict=True)]
            self.supervisor.check()
            with pieces.writing(number) as aside:
                write_regions(aside, rows, len(rows), made_from)
            if self.rank == 0:
                self.supervisor.saved(pieces.count - len(pieces.missing()))

    def _wait_for_the_others(self, pieces: Pieces) -> None:
        """The job has not ended well before all its processes have, and it is the first of them that says so."""
        while pieces.missing(self.part) and not self.path.exists():
            self.supervisor.beat()
            time.sleep(0.2)

    def _join(self, pieces: Pieces, made_from: dict[str, str]) -> None:
        """Put the pieces together if all are there. Of several jobs that do so at once, any may be the last: the files are equal."""
        if not self.path.exists() and pieces.whole:
            aside = pieces.folder / f"joined.{os.uname().nodename}.{os.getpid()}"
            self._write_joined(aside, pieces, made_from)
            self.supervisor.check()
            aside.replace(self.path)
        if self.path.exists():
            pieces.remove()

    def _write_joined(self, aside: Path, pieces: Pieces, made_from: dict[str, str]) -> None:
        writer = RegionWriter(
            aside,
            len(self._images.ids),
            made_from,
            class_names=self.class_names,
            attribute_names=self.attribute_names,
        )
        with writer as joined:
            for number in progress(range(pieces.count), "joining pieces"):
                self.supervisor.beat()
                piece = RegionStore(pieces.path(number))
                for image_id in piece.ids:
                    joined.add(piece.of(image_id))
                piece.file.close()


def _batches(ids: Sequence[str], size: int) -> list[Sequence[str]]:
    return [ids[start : start + size] for start in range(0, len(ids), size)]


def _pictures(store: ImageStore, ids: Sequence[str]) -> list[Image.Image]:
    return [store.picture(image_id) for image_id in ids]
