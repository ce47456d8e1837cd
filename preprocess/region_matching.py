"""Which image of a corpus a row of region features belongs to."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from corpora.corpus import CorpusError, ImageRecord
from preprocess.coco_names import coco_source
from preprocess.region_source import RegionSource


def match_rows(named: Sequence[tuple[RegionSource, Sequence[str]]], images: Mapping[str, ImageRecord]) -> list[list[str]]:
    """The image id of every row of every source, empty where the corpus has no such image.

    A row's name is an image's id, its stem is, or it has COCO's number in common with the image's id or source. CorpusError
    unless every image has exactly one row; rows of other images are counted on the terminal.
    """
    aliases = _aliases(images)
    matched = [[next((aliases[key] for key in _keys(name) if key in aliases), "") for name in names] for _, names in named]
    where: dict[str, tuple[RegionSource, int]] = {}
    for (source, _), image_ids in zip(named, matched, strict=True):
        for row, image_id in enumerate(image_ids):
            if image_id in where:
                other = where[image_id][0].where(where[image_id][1])
                raise CorpusError(
                    f"image {image_id}: stands there more than once, in {other} and in {source.where(row)}; remove one of them"
                )
            if image_id:
                where[image_id] = source, row
    missing = sorted(images.keys() - where.keys())
    if missing:
        raise CorpusError(
            f"{len(missing)} of {len(images)} images have no regions in {', '.join(str(source.path) for source, _ in named)}, the first: "
            f"{', '.join(missing[:3])}; rows are matched by the image's id, the stem of its file name or COCO's number"
        )
    extra = sum(not image_id for image_ids in matched for image_id in image_ids)
    if extra:
        print(f"{extra} rows belong to no image of the corpus and are passed over", file=sys.stderr)
    return matched


def _keys(name: str) -> list[str]:
    """What an image of this name may be called elsewhere, the surest first."""
    stem = Path(name).stem
    return [name, stem, *filter(None, [coco_source(stem).removeprefix("coco/")])]


def _aliases(images: Mapping[str, ImageRecord]) -> dict[str, str]:
    """Names to image ids; a name that fits several images fits none, but for an image whose id it is."""
    found: dict[str, set[str]] = {}
    for image in images.values():
        number = [image.source.removeprefix("coco/")] if image.source.startswith("coco/") else []
        for key in [*_keys(image.id), *number]:
            found.setdefault(key, set()).add(image.id)
    return {key: next(iter(ids)) for key, ids in found.items() if len(ids) == 1} | {key: key for key in images}
