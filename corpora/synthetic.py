"""A made-up corpus of scenes whose truth is known: any size, the same for the same seed, with planted difficulties.

Beside the usual files it holds regions-truth.h5 (true boxes and features) and planted.json:
{"near_duplicates": [[image, image], ...], "shared_captions": [{"caption": id, "also_fits": [image, ...]}, ...],
 "swapped_attributes": [[image, image], ...]}.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from corpora.corpus import Caption, CorpusError, CorpusWriter, ImageRecord, already_made
from corpora.images import write_images
from corpora.planting import Role, SceneImage, Shares, also_fits, scene_images
from corpora.progress import progress
from corpora.regions import write_regions
from corpora.scene_pictures import encoded, regions, render

WORLD = 1
"""Raised whenever the same options would make other scenes, so that an old corpus is not taken for a new one."""


def make_scenes(folder: Path, images: Mapping[str, int], seed: int = 0, size: int = 96, planted: Shares | None = None) -> bool:
    """Build the corpus folder with so many images a split, size x size pixels; False if the same corpus stands there already.

    Image k of a split is the same whatever the corpus's size. A caption's `images` names only its own image, as in COCO, though
    it may be true of others: planted.json lists them all.
    """
    planted = planted or Shares()
    if min(images.values(), default=0) < 1 or seed < 0 or size < 32:
        raise CorpusError(
            f"{folder}: images {dict(images)}, seed {seed}, size {size}: at least 1 image a split, seed 0 and 32 pixels are needed"
        )
    made_by = {"layout": "made-up scenes", "world": WORLD, "seed": seed, "size": size, "images": dict(images), **asdict(planted)}
    if already_made(folder, made_by, {}):
        return False
    made = [image for split, count in images.items() for image in scene_images(split, count, seed, planted)]
    with CorpusWriter(folder, made_by) as corpus:
        sources = {}

        def pictures() -> Iterator[tuple[str, bytes]]:
            for image in progress(made, "scenes"):
                data = encoded(render(image.scene, size))
                sources[image.id] = f"scene/{hashlib.sha256(data).hexdigest()[:16]}"
                yield image.id, data

        write_images(corpus.part / "images.h5", pictures())
        write_regions(corpus.part / "regions-truth.h5", ((image.id, *regions(image.scene)) for image in made), len(made))
        (corpus.part / "planted.json").write_text(json.dumps(_truth(made), indent=1) + "\n")
        for image in made:
            kind = image.scene.things[0].kind
            name = f"{kind.colour} {kind.shape}"
            corpus.images.append(ImageRecord(image.id, image.split, size, size, name, sources[image.id]))
            corpus.captions += [Caption(image.caption_id(i), text, (image.id,)) for i, (_, text) in enumerate(image.captions)]
    return True


def _truth(made: Sequence[SceneImage]) -> dict[str, list[object]]:
    def pairs(role: Role) -> list[object]:
        return [[image.twin_of, image.id] for image in made if image.role == role and image.twin_of]

    return {
        "near_duplicates": pairs("near_duplicates"),
        "shared_captions": [{"caption": caption, "also_fits": others} for caption, others in also_fits(made).items()],
        "swapped_attributes": pairs("swapped_attributes"),
    }


@dataclass(frozen=True)
class Planted:
    """The known truth of a made-up corpus, beyond the pairs of its splits."""

    near_duplicates: tuple[tuple[str, str], ...]
    """Image ids of scenes that are all but the same."""
    shared_captions: Mapping[str, tuple[str, ...]]
    """Every caption id that is true of images beside its own, and those images: all of its split."""
    swapped_attributes: tuple[tuple[str, str], ...]
    """Image ids of scenes in which two things have exchanged their colours."""


def read_planted(folder: Path) -> Planted:
    """The planted truth of a made-up corpus; CorpusError where there is none."""
    path = folder / "planted.json"
    try:
        truth = json.loads(path.read_text())
        return Planted(
            tuple((a, b) for a, b in truth["near_duplicates"]),
            {row["caption"]: tuple(row["also_fits"]) for row in truth["shared_captions"]},
            tuple((a, b) for a, b in truth["swapped_attributes"]),
        )
    except FileNotFoundError:
        raise CorpusError(f"{path}: no such file; only corpora made by jobs/make_scenes.py hold planted truth") from None
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise CorpusError(f"{path}: cannot be read ({type(error).__name__}: {error}); make the corpus again") from None
