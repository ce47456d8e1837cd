"""Region features of other programs -> regions-<extractor>.h5 of a corpus folder."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from corpora.corpus import Corpus, CorpusError, ImageRecord
from corpora.progress import progress
from corpora.regions import Regions, RegionStore, RegionWriter, check_shapes
from corpora.store import StoreError
from preprocess.region_choices import Choices
from preprocess.region_formats import open_regions
from preprocess.region_matching import match_rows
from preprocess.region_source import Found, RegionSource
from preprocess.source_files import read_lines, sha256_of

RESHAPED = "another shape in the corpus than where their boxes were found, which may lie wrong"


def import_regions(folder: Path, sources: Sequence[Path], extractor: str, choices: Choices | None = None) -> bool:
    """Add region features to a corpus; False if they stand there already, from the same files.

    Every image of the corpus must have exactly one row; region_matching tells how it is found. Rows are streamed: memory does
    not grow with their size. CorpusError names the file and the line, row or group, and leaves no file.
    """
    choices = choices or Choices()
    if not re.fullmatch(r"[\w.-]+", extractor):
        raise CorpusError(f"extractor {extractor!r}: use letters, digits, '.', '_' and '-', it becomes part of a file name")
    if choices.regions < 0 or not sources:
        raise CorpusError(f"--regions {choices.regions} of {len(sources)} sources: expected 0 or more of at least one")
    images = read_images(folder)
    opened = [open_regions(source, choices.format) for source in sources]
    image_ids = match_rows([(source, source.names()) for source in opened], images)
    digests = {str(source.path): source.digest() for source in opened}
    names = _names(opened, choices, digests)
    if choices.regions:
        digests["--regions"] = str(choices.regions)
    path = folder / f"regions-{extractor}.h5"
    if path.exists():
        _refuse_others(RegionStore(path), digests, choices)
        return False
    intake = _Intake(images, choices.regions, bool(Corpus(folder).info["made_by"].get("short_side")))
    with RegionWriter(path, len(images), digests, regions=choices.regions, exact=choices.exact, **names) as writer:
        for where, regions in progress(intake.rows(opened, image_ids), "regions", len(images)):
            try:
                writer.add(regions)
            except StoreError as error:
                raise CorpusError(f"{where}: {error}") from None
    for note in [*(note for source in opened for note in source.notes), *intake.notes()]:
        print(note, file=sys.stderr)
    return True


def read_images(folder: Path) -> dict[str, ImageRecord]:
    """All images of a corpus by id, in its order."""
    rows = pq.read_table(Corpus(folder).folder / "images.parquet").to_pylist()
    if not rows:
        raise CorpusError(f"{folder}: has no images that could have regions")
    return {row["id"]: ImageRecord(row["id"], row["split"], row["width"], row["height"], source=row["source"]) for row in rows}


class _Intake:
    """Brings the rows of sources to the images of the corpus, and keeps count of what a user should know."""

    def __init__(self, images: Mapping[str, ImageRecord], most: int, resized: bool) -> None:
        self._images, self._most, self._resized = images, most, resized
        self._first = 0
        self._counts: Counter[str] = Counter()
        self._reshaped: list[str] = []

    def rows(self, sources: Sequence[RegionSource], image_ids: Sequence[Sequence[str]]) -> Iterator[tuple[str, Regions]]:
        """(where it stands, regions with boxes in [0, 1]) of every image."""
        for source, ids in zip(sources, image_ids, strict=True):
            wanted = [bool(image_id) for image_id in ids]
            for found, image_id in zip(source.rows(wanted), filter(None, ids), strict=True):
                try:
                    check_shapes(found.regions)
                except StoreError as error:
                    raise CorpusError(f"{found.where}: {error}") from None
                yield found.where, self._best(found.where, self._placed(found, self._images[image_id]))

    def notes(self) -> list[str]:
        """Lines for the terminal."""
        examples = f": {'; '.join(self._reshaped)}" if self._reshaped else ""
        return [f"{count} images have {what}{examples if what == RESHAPED else ''}" for what, count in self._counts.items()]

    def _placed(self, found: Found, image: ImageRecord) -> Regions:
        regions = found.regions._replace(id=image.id)
        size = found.size or (image.width, image.height)
        if min(size) < 1:
            raise CorpusError(f"{found.where}, image {image.id}: its size is {size[0]} x {size[1]} pixels")
        if abs(size[0] * image.height - size[1] * image.width) > max(*size, image.width, image.height):
            self._counts[RESHAPED] += 1
            if len(self._reshaped) < 3:
                self._reshaped.append(
                    f"{image.id} is {size[0]} x {size[1]} in {found.where} and {image.width} x {image.height} here"
                )
        if not found.pixels:
            return regions
        if self._resized and not found.size:
            raise CorpusError(
                f"{found.where}: boxes are in pixels of the original image, and this corpus was packed with --short-side; pack it without"
            )
        if regions.boxes.max() <= 1 < min(size):
            raise CorpusError(
                f"{found.where}, image {image.id}: boxes should be in pixels and none reaches beyond 1; are they in [0, 1]? npz-folder holds such"
            )
        return regions._replace(boxes=regions.boxes.astype(np.float64) / np.tile(size, 2))

    def _best(self, where: str, regions: Regions) -> Regions:
        count = len(regions.features)
        self._first = self._first or count
        if not self._most:
            if count != self._first:
                raise CorpusError(
                    f"{where}, image {regions.id}: has {count} regions, the first image {self._first}; --regions N keeps the N best of each "
                    "and pads images that have fewer"
                )
            return regions
        if count < self._most:
            self._counts[f"fewer than {self._most} regions and are padded with zeros; only models that mask can read them"] += 1
        if count <= self._most:
            return regions
        which = "and no scores, the first are kept" if regions.scores is None else "of which the best by score are kept"
        self._counts[f"more than {self._most} regions {which}"] += 1
        ranked = np.arange(count) if regions.scores is None else np.argsort(-regions.scores, kind="stable")
        kept = np.sort(ranked[: self._most])
        arrays = {"features": regions.features, "boxes": regions.boxes, **regions.labels}
        return Regions(regions.id, **{name: values[kept] for name, values in arrays.items()})


def _refuse_others(store: RegionStore, digests: Mapping[str, str], choices: Choices) -> None:
    """CorpusError unless a region file was made of these sources in this way."""
    same = sorted(store.sources.values()) == sorted(digests.values())
    if not same or store.exact != choices.exact:
        raise CorpusError(
            f"{store.path}: exists already, made from other files or options; remove it or choose another extractor name"
        )


def _names(sources: Sequence[RegionSource], choices: Choices, digests: dict[str, str]) -> dict[str, tuple[str, ...]]:
    """class_names and attribute_names, as given or as the sources have them; files that were read are added to `digests`."""
    told: dict[str, tuple[str, ...]] = {}
    for which, path in (("class_names", choices.class_names), ("attribute_names", choices.attribute_names)):
        there = {source.vocabulary[which] for source in sources if which in source.vocabulary}
        if path is not None:
            told[which] = tuple(line.split(",")[0].strip() for _, line in read_lines(path))  # synonyms follow
            digests[str(path)] = sha256_of(path)
        elif len(there) > 1:
            raise CorpusError(f"the sources have different {which}; give --{which.replace('_', '-')}")
        elif there:
            told[which] = there.pop()
    return told
