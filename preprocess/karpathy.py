"""Karpathy's caption files (dataset_coco.json, dataset_flickr30k.json, dataset_flickr8k.json) and their images -> a corpus folder.

The layout: {"images": [{"filename", "filepath"?, "cocoid"?, "split", "sentences": [{"raw", "sentid"}, ...]}, ...], "dataset"?}
(Karpathy and Fei-Fei 2015, "Deep Visual-Semantic Alignments for Generating Image Descriptions").
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from corpora.corpus import Caption, CorpusError
from preprocess.build import build
from preprocess.coco_names import coco_source
from preprocess.entries import Entry
from preprocess.packing import Packing
from preprocess.source_files import check_entries, checked_id, checked_text, read_json, sha256_of

EXPECTED = 'Karpathy\'s layout: {"images": [{"filename", "split", "sentences": [{"raw", "sentid"}, ...]}, ...]}'

LONGEST_NAME = 255
"""Bytes that a file system takes."""
BAD_IN_NAMES = re.compile("[\0\ud800-\udfff]")
Restval = Literal["train", "keep", "drop"]


def prepare(
    annotations: Path,
    images: Path,
    folder: Path,
    *,
    restval: Restval = "train",
    captions_an_image: int = 0,
    packing: Packing = Packing(),  # noqa: B008
) -> bool:
    """Build the corpus folder; False if it was not made now (preprocess.build).

    An image's id is its `cocoid`, or the stem of its file name; a caption's is its `sentid`. Captions are kept as they are but for
    outer spaces: all, or the first `captions_an_image`. `restval` (COCO's 30,504 further training images) goes to train, stays a
    split of its own, or is dropped.
    """
    if captions_an_image < 0:
        raise CorpusError(f"--captions-an-image {captions_an_image}: must be 0 (all) or more")
    made_by = {"layout": "karpathy", "images": str(images.resolve()), "restval": restval, "captions_an_image": captions_an_image}
    sources = {annotations.name: sha256_of(annotations)}
    reader = _Reader(annotations, images, restval, captions_an_image)
    return build(reader.entries(), folder, made_by=made_by, sources=sources, packing=packing)


@dataclass(frozen=True)
class _Reader:
    annotations: Path
    images: Path
    restval: Restval
    captions_an_image: int

    def entries(self) -> Iterator[Entry]:
        """All images of the file, checked: ids are unique, every image has captions and every caption words."""
        if not self.images.is_dir():
            raise CorpusError(f"{self.images}: no such folder of images")
        content = read_json(self.annotations, EXPECTED)
        rows = content.get("images") if isinstance(content, dict) else None
        if not isinstance(rows, list) or not rows:
            raise CorpusError(f"{self.annotations}: no list of images; expected {EXPECTED}")
        flickr = str(content.get("dataset", "")).startswith("flickr")
        entries = [self._entry(row, f"{self.annotations}: image {number}", flickr) for number, row in enumerate(rows)]
        alone = [entry.id for entry in entries if not entry.captions]
        if alone:
            raise CorpusError(
                f"{self.annotations}: {len(alone)} images have no caption, the first: {', '.join(alone[:3])}; correct or remove them"
            )
        check_entries(entries, str(self.annotations))
        yield from (entry for entry in entries if (entry.split, self.restval) != ("restval", "drop"))

    def _entry(self, row: dict[str, Any], where: str, flickr: bool) -> Entry:
        try:
            name, split = _file_name(row["filename"], where), checked_id(row["split"], where)
            image_id = checked_id(row["cocoid"], where) if "cocoid" in row else PurePosixPath(name).stem
            place = _file_name(row.get("filepath", ""), where)
            strays = [s["sentid"] for s in row["sentences"] if "imgid" in s and s["imgid"] != row["imgid"]]
            captions = tuple(
                Caption(checked_id(s["sentid"], where), checked_text(s["raw"], f"{where}, caption {s['sentid']}"), (image_id,))
                for s in row["sentences"]
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise CorpusError(f"{where} is damaged ({type(error).__name__}: {error}); expected {EXPECTED}") from None
        if strays:
            raise CorpusError(f"{where}: caption {strays[0]} stands under image {image_id} and names another imgid")
        return Entry(
            image_id,
            "train" if (split, self.restval) == ("restval", "train") else split,
            next(
                (path for path in (self.images / place / name, self.images / name) if path.exists()), self.images / place / name
            ),
            captions[: self.captions_an_image or None],
            source=f"coco/{image_id}" if "cocoid" in row else _source(PurePosixPath(name).stem, flickr),
        )


def _file_name(value: object, where: str) -> str:
    """A file or folder below the images' folder: a broken or hostile list must not reach other files."""
    parts = PurePosixPath(value).parts if isinstance(value, str) else ("..",)
    if any(
        part in ("/", "..") or BAD_IN_NAMES.search(part) or len(part.encode("utf-8", "ignore")) > LONGEST_NAME for part in parts
    ):
        raise CorpusError(f"{where}: the file is {str(value)[:60]!r}; expected a name below the images' folder")
    return str(value)


def _source(stem: str, flickr: bool) -> str:
    """Flickr's pictures are known by the number that begins the name: 1000268201_693b08cb0e is picture 1000268201."""
    number = re.fullmatch(r"(\d+)(_\w+)?", stem)
    return f"flickr/{number[1]}" if flickr and number else coco_source(stem)
