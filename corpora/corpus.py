"""A corpus folder: images, captions, and which caption belongs to which image.

corpus.json       schema, counts of each split, source files with sha256, how it was made, what was left out
images.parquet    id, split, width, height, class and source (empty where there is none)
captions.parquet  id, split, images (list of the image ids it describes), text
images.h5         the encoded image files (corpora.images); a corpus of texts alone has none
regions-*.h5      region features, one file an extractor (corpora.regions)
"""

from __future__ import annotations

import difflib
import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from corpora.images import ImageStore, NoImages
from corpora.regions import RegionStore
from corpora.store import check_unique

SCHEMA = 2


class CorpusError(ValueError):
    """A corpus that is missing, damaged or inconsistent; the message names the file, the value and what to do."""


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image: its size in pixels and, in a metric-learning or made-up corpus, its class."""

    id: str
    split: str
    width: int
    height: int
    class_name: str = ""
    source: str = ""
    """The picture's id in the collection it comes from, such as "coco/391895"; by it a picture is known again in other corpora."""


@dataclass(frozen=True, slots=True)
class Caption:
    """One text and the images it is known to describe, in whose split it is."""

    id: str
    text: str
    images: tuple[str, ...] = ()
    split: str = ""
    """In a corpus of texts alone."""


@dataclass(frozen=True)
class Split:
    """One split of a corpus. Relevance is explicit pairs, never "five captions an image".

    `pairs` is (P, 2) int64: image index, text index; sorted, no duplicates. Every text has an image and every image a text,
    unless the split has images alone (metric learning) or texts alone (a gallery of texts).
    """

    name: str
    image_ids: tuple[str, ...]
    classes: tuple[str, ...]
    text_ids: tuple[str, ...]
    texts: tuple[str, ...]
    pairs: np.ndarray
    sources: tuple[str, ...] = ()
    """Of each image, as in ImageRecord."""

    def __post_init__(self) -> None:
        check_unique(self.image_ids, "image", f"split {self.name}")
        check_unique(self.text_ids, "caption", f"split {self.name}")
        if not (self.texts and self.image_ids):
            return
        for kind, ids, column in (("image", self.image_ids, 0), ("caption", self.text_ids, 1)):
            alone = np.setdiff1d(np.arange(len(ids)), self.pairs[:, column])
            if len(alone):
                other = "caption" if kind == "image" else "image"
                raise CorpusError(
                    f"split {self.name}: {len(alone)} of {len(ids)} {kind}s have no {other}, the first: {ids[alone[0]]}"
                )

    @cached_property
    def digest(self) -> str:
        """sha256 over ids, texts and pairs: a ranking file carries it, so that it is never read against another corpus."""
        content = json.dumps([self.image_ids, self.text_ids, self.texts], ensure_ascii=False).encode()
        return hashlib.sha256(content + self.pairs.astype("<i8").tobytes()).hexdigest()

    def subset(self, image_ids: Iterable[str]) -> Split:
        """The split restricted to these images and their texts, in the split's own order; an unknown id is an error."""
        wanted = set(image_ids)
        unknown = wanted.difference(self.image_ids)
        if unknown:
            raise CorpusError(f"split {self.name}: {len(unknown)} of the listed images are not in it, the first: {min(unknown)}")
        images = np.array([image_id in wanted for image_id in self.image_ids])
        pairs = self.pairs[images[self.pairs[:, 0]]]
        texts = np.unique(pairs[:, 1])
        new_image = np.cumsum(images) - 1
        return Split(
            self.name,
            tuple(np.array(self.image_ids, object)[images]),
            tuple(np.array(self.classes, object)[images]),
            tuple(self.text_ids[i] for i in texts),
            tuple(self.texts[i] for i in texts),
            np.stack([new_image[pairs[:, 0]], np.searchsorted(texts, pairs[:, 1])], axis=1),
            tuple(np.array(self.sources, object)[images]) if self.sources else (),
        )


class Corpus:
    """An opened corpus folder."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.info = _read_info(self.folder)
        self.name: str = self.info["name"]

    def split(self, name: str) -> Split:
        """The records of one split; an unknown name is an error that suggests the nearest one."""
        if name not in self.info["splits"]:
            near = difflib.get_close_matches(name, self.info["splits"], 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise CorpusError(f"{self.folder}: no split {name!r}; it has {', '.join(self.info['splits'])}{hint}")
        images = self._table("images.parquet", name)
        captions = self._table("captions.parquet", name)
        image_ids, text_ids = images["id"].to_pylist(), captions["id"].to_pylist()
        counts = self.info["splits"][name]
        if (len(image_ids), len(text_ids)) != (counts["images"], counts["captions"]):
            raise CorpusError(
                f"{self.folder}: split {name} should hold {counts['images']} images and {counts['captions']} captions, its tables hold "
                f"{len(image_ids)} and {len(text_ids)}; prepare the corpus again"
            )
        row = {image_id: i for i, image_id in enumerate(image_ids)}
        try:
            pairs = [(row[image], j) for j, described in enumerate(captions["images"].to_pylist()) for image in described]
        except KeyError as error:
            raise CorpusError(f"{self.folder}: split {name}: a caption names image {error}, which is not in the split") from None
        return Split(
            name,
            tuple(image_ids),
            tuple(images["class"].to_pylist()),
            tuple(text_ids),
            tuple(captions["text"].to_pylist()),
            np.array(sorted(pairs), np.int64).reshape(-1, 2),
            tuple(images["source"].to_pylist()),
        )

    def __str__(self) -> str:
        """One line for the terminal: the counts of every split, and how many images were left out."""
        splits = (f"{name} {n['images']:,} images and {n['captions']:,} captions" for name, n in self.info["splits"].items())
        left_out = len(self.info["left_out"])
        return f"{self.folder}: " + ", ".join(splits) + (f"; {left_out:,} images left out" if left_out else "")

    @property
    def images(self) -> ImageStore:
        some = any(count["images"] for count in self.info["splits"].values())
        return (ImageStore if some else NoImages)(self.folder / "images.h5")

    def regions(self, extractor: str = "") -> RegionStore:
        """Region features by extractor name, or the only ones there are; anything else is an error that lists them."""
        found = sorted(path.stem.removeprefix("regions-") for path in self.folder.glob("regions-*.h5"))
        if not extractor and len(found) == 1:
            extractor = found[0]
        if extractor not in found:
            asked = f"no region features {extractor!r}" if extractor else "which region features?"
            raise CorpusError(f"{self.folder}: {asked} --regions must name one of: {', '.join(found) or '(the corpus has none)'}")
        return RegionStore(self.folder / f"regions-{extractor}.h5")

    def _table(self, name: str, split: str) -> pa.Table:
        path = self.folder / name
        try:
            return pq.read_table(path, filters=[("split", "==", split)])
        except FileNotFoundError:
            raise CorpusError(f"{path}: no such file; prepare the corpus again") from None
        except (pa.ArrowInvalid, OSError) as error:
            raise CorpusError(f"{path}: cannot be read ({error}); prepare the corpus again") from None


def _read_info(folder: Path) -> dict[str, Any]:
    path = folder / "corpus.json"
    try:
        info = json.loads(path.read_text())
    except FileNotFoundError:
        near = sorted(p.parent.name for p in folder.parent.glob("*/corpus.json"))
        hint = f"corpora beside it: {', '.join(near)}" if near else "make one first, for example: python jobs/make_scenes.py"
        raise CorpusError(f"{folder}: no corpus here ({path.name} is missing); {hint}") from None
    except (OSError, json.JSONDecodeError) as error:
        raise CorpusError(f"{path}: cannot be read ({error}); prepare the corpus again") from None
    if info.get("schema") != SCHEMA:
        raise CorpusError(f"{path}: schema {info.get('schema')}, this version reads {SCHEMA}; prepare the corpus again")
    return info


def already_made(folder: Path, made_by: Mapping[str, Any], sources: Mapping[str, str]) -> bool:
    """Whether the folder holds a corpus made by these options from these sources. One made otherwise is a CorpusError that says what differs."""
    if not (folder / "corpus.json").exists():
        return False
    info = _read_info(folder)
    then, now = {**info["made_by"], **info["sources"]}, {**made_by, **sources}
    differs = [
        f"{key} {then.get(key, 'unknown')} there and {now.get(key, 'unknown')} here"
        for key in {**then, **now}
        if then.get(key) != now.get(key)
    ]
    if differs:
        raise CorpusError(
            f"{folder}: holds a corpus that was made otherwise ({'; '.join(differs)}); remove it or choose another folder"
        )
    return True


@dataclass
class CorpusWriter:
    """Builds a corpus folder beside its final name and renames it when whole, so no half corpus is ever opened.

    `with CorpusWriter(folder) as corpus:` write images.h5 and region files into `corpus.part`, add records,
    and leave the block; an exception leaves no folder behind.
    """

    folder: Path
    made_by: dict[str, Any] = field(default_factory=dict)
    """How the corpus was made: command, options, seed."""
    sources: dict[str, str] = field(default_factory=dict)
    """Source files and their sha256."""
    left_out: list[dict[str, str]] = field(default_factory=list)
    """Images that were skipped: id, path and reason."""
    images: list[ImageRecord] = field(default_factory=list)
    captions: list[Caption] = field(default_factory=list)

    @property
    def part(self) -> Path:
        """Where the folder is built: write files of the corpus here."""
        return self.folder.with_name(f".{self.folder.name}.part")

    def __enter__(self) -> CorpusWriter:
        if self.folder.exists():
            raise CorpusError(f"{self.folder}: exists already; remove it or choose another folder")
        shutil.rmtree(self.part, ignore_errors=True)  # left by a job that died
        self.part.mkdir(parents=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            try:
                self._finish()
                return
            except BaseException:
                shutil.rmtree(self.part, ignore_errors=True)
                raise
        shutil.rmtree(self.part, ignore_errors=True)

    def _finish(self) -> None:
        check_unique([image.id for image in self.images], "image", str(self.folder))
        check_unique([caption.id for caption in self.captions], "caption", str(self.folder))
        _refuse_shared_sources(self.images)
        split_of = {image.id: image.split for image in self.images}
        caption_splits = [_split_of(caption, split_of) for caption in self.captions]
        pq.write_table(_image_table(self.images), self.part / "images.parquet")
        pq.write_table(_caption_table(self.captions, caption_splits), self.part / "captions.parquet")
        splits: dict[str, dict[str, int]] = {}
        for key, names in (("images", split_of.values()), ("captions", caption_splits)):
            for name in names:
                splits.setdefault(name, {"images": 0, "captions": 0})[key] += 1
        info = {
            "schema": SCHEMA,
            "name": self.folder.name,
            "splits": splits,
            "left_out": self.left_out,
            "sources": self.sources,
            "made_by": self.made_by,
        }
        (self.part / "corpus.json").write_text(json.dumps(info, indent=1, ensure_ascii=False) + "\n")
        self._check()
        self.part.rename(self.folder)

    def _check(self) -> None:
        """Open what was written: every split must be consistent and every image present in images.h5."""
        corpus = Corpus(self.part)
        for name in corpus.info["splits"]:
            corpus.split(name)
        if not self.images:
            return
        stored = ImageStore(self.part / "images.h5")
        missing = [image.id for image in self.images if image.id not in stored]
        if missing or len(stored.ids) != len(self.images):
            raise CorpusError(
                f"{self.folder}: {len(stored.ids)} images stored for {len(self.images)} records; missing: {missing[:3]}"
            )


def _refuse_shared_sources(images: list[ImageRecord]) -> None:
    """The same picture in two splits would be trained on and tested with."""
    split_of: dict[str, ImageRecord] = {}
    for image in images:
        other = split_of.setdefault(image.source, image)
        if image.source and other.split != image.split:
            raise CorpusError(
                f"images {other.id} in split {other.split} and {image.id} in split {image.split} are the same picture, {image.source}; "
                "leave one out"
            )


def _split_of(caption: Caption, split_of: dict[str, str]) -> str:
    if not split_of and not caption.images and caption.split:
        return caption.split
    unknown = [image for image in caption.images if image not in split_of]
    if unknown or not caption.images:
        raise CorpusError(
            f"caption {caption.id} ({caption.text[:60]!r}) describes {unknown[0] if unknown else 'no image'}: no such image"
        )
    splits = {split_of[image] for image in caption.images}
    if len(splits) > 1:
        raise CorpusError(f"caption {caption.id} describes images of several splits: {', '.join(sorted(splits))}")
    return splits.pop()


def _image_table(images: list[ImageRecord]) -> pa.Table:
    return pa.table(
        {
            "id": pa.array([image.id for image in images], pa.string()),
            "split": pa.array([image.split for image in images], pa.string()),
            "width": pa.array([image.width for image in images], pa.int32()),
            "height": pa.array([image.height for image in images], pa.int32()),
            "class": pa.array([image.class_name for image in images], pa.string()),
            "source": pa.array([image.source for image in images], pa.string()),
        }
    )


def _caption_table(captions: list[Caption], splits: list[str]) -> pa.Table:
    return pa.table(
        {
            "id": pa.array([caption.id for caption in captions], pa.string()),
            "split": pa.array(splits, pa.string()),
            "images": pa.array([list(caption.images) for caption in captions], pa.list_(pa.string())),
            "text": pa.array([caption.text for caption in captions], pa.string()),
        }
    )
