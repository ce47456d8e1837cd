"""Conceptual Captions (lines of caption<TAB>URL) -> the images, fetched from all over the web -> a corpus folder.

(Sharma et al. 2018, "Conceptual Captions: A Cleaned, Hypernymed, Image Alt-text Dataset For Automatic Image Captioning".)
What was fetched is kept in images/ of the download folder, what could not be in failures.jsonl: file, row, url, reason.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from corpora.corpus import Caption, CorpusError
from corpora.pieces import Part
from corpora.progress import progress
from preprocess.build import build
from preprocess.entries import Entry
from preprocess.fault_log import FaultLog, forget_faults, read_faults
from preprocess.http_fetch import Limits
from preprocess.image_download import download_images
from preprocess.packing import Packing
from preprocess.source_files import checked_text, read_lines, sha256_of

EXPECTED = "caption<TAB>URL"
FAILURES = "failures.jsonl"
UNREACHABLE = 50
"""After so many URLs and no answer at all it is not the URLs."""


@dataclass(slots=True)
class Picture:
    """One URL: the (row from 1, caption) pairs that name it, and the split it is in."""

    url: str
    split: str
    rows: tuple[tuple[int, str], ...] = ()
    repeats: tuple[tuple[str, int], ...] = ()
    """(split, row) in other splits, which go without it."""

    @property
    def file(self) -> str:
        """Where it lies below images/. The folders keep directories small."""
        name = hashlib.sha256(self.url.encode()).hexdigest()[:32]
        return f"{name[:2]}/{name}"


def prepare(
    files: Mapping[str, Path],
    downloads: Path,
    folder: Path,
    *,
    limits: Limits = Limits(),  # noqa: B008
    retry_failed: bool = False,
    packing: Packing = Packing(),  # noqa: B008
) -> bool:
    """Fetch what is missing, then build the corpus; False if it was not made now (preprocess.build).

    `files` are the lists by split; a URL in several goes to the split named first. An image's id is "<split>-<row>" of the first row
    that names its URL, a caption's that of its own row. URLs that failed before are tried again only on request. Given a part, a job
    fetches its part of the URLs, and packs its part of the images if all others are fetched too.
    """
    sources = {path.name: sha256_of(path) for path in files.values()}
    pictures = read_pictures(files)
    part = Part.parse(packing.part)
    if retry_failed:
        forget_faults(downloads, part)
    try:
        _fetch(pictures, downloads, limits, part)
    except OSError as error:
        raise CorpusError(
            f"{downloads}: cannot be written ({error.strerror or error}); what was fetched is kept: put it right and run again"
        ) from error
    fetched, faults = _fetched(downloads), read_faults(downloads)
    pending = sum(picture.file not in fetched and picture.url not in faults for picture in pictures.values())
    if pending:
        print(
            f"{downloads}: {pending:,} images are still to be fetched by other parts; when they are, give the same command again"
        )
        return False
    sources[FAILURES] = _write_failures(pictures, downloads, files, faults)
    made_by = {"layout": "conceptual captions", "splits": {split: path.name for split, path in files.items()}}
    return build(_entries(pictures, downloads, faults), folder, made_by=made_by, sources=sources, packing=packing)


def read_pictures(files: Mapping[str, Path]) -> dict[str, Picture]:
    """All lists by URL."""
    pictures: dict[str, Picture] = {}
    for split, path in files.items():
        rows = 0
        for row, line in read_lines(path):
            rows = row
            columns = line.split("\t")
            if len(columns) != 2 or not _is_url(columns[1]):
                raise CorpusError(f"{path}, line {row}: {line[:80]!r}; expected {EXPECTED}")
            caption, url = checked_text(columns[0], f"{path}, line {row}"), columns[1]
            picture = pictures.setdefault(url, Picture(url, split))
            if picture.split == split:
                picture.rows += ((row, caption),)
            else:
                picture.repeats += ((split, row),)
        if not rows:
            raise CorpusError(f"{path}: holds no rows; expected {EXPECTED}")
    return pictures


def _is_url(text: str) -> bool:
    return text.startswith(("http://", "https://")) and text.isprintable()


def _fetched(downloads: Path) -> set[str]:
    """Picture.file of all images that are there."""
    found: set[str] = set()
    for folder in sorted((downloads / "images").glob("??")):
        with os.scandir(folder) as files:
            found.update(f"{folder.name}/{file.name}" for file in files if not file.name.endswith(".part"))
    return found


def _fetch(pictures: Mapping[str, Picture], downloads: Path, limits: Limits, part: Part) -> None:
    """Fetch what a part has neither fetched nor given up; tell how fast it was and what went wrong how often."""
    fetched, faults, images = _fetched(downloads), read_faults(downloads), downloads / "images"
    todo = [
        (url, images / file)
        for number, (url, picture) in enumerate(pictures.items())
        if number in part and url not in faults and (file := picture.file) not in fetched
    ]
    if not todo:
        return
    start, size, reasons, reached = time.monotonic(), 0, Counter[str](), False
    with FaultLog(downloads, part) as log:
        for outcome in progress(download_images(todo, limits), "images fetched", len(todo)):
            reached = reached or outcome.reached
            size += outcome.size
            if outcome.fault:
                reasons[outcome.fault.partition(" (")[0]] += 1
                log.add(outcome.url, outcome.fault)
            if not reached and reasons.total() >= UNREACHABLE:
                log.discard()
                raise CorpusError(
                    f"{downloads}: none of the first {UNREACHABLE} URLs could be reached ({outcome.fault}); this machine seems to have "
                    "no way out to the web: try another one, or set http_proxy and https_proxy"
                )
    seconds = max(time.monotonic() - start, 1e-9)
    failed = ", ".join(f"{reason} {count:,}" for reason, count in reasons.most_common())
    print(
        f"{len(todo) - reasons.total():,} images fetched ({size / 1e6:,.1f} MB) of {len(todo):,} URLs in {seconds:,.0f} s, "
        f"{len(todo) / seconds:.1f} URLs and {size / 1e6 / seconds:.1f} MB a second" + (f"; failed: {failed}" if failed else "")
    )


def _write_failures(
    pictures: Mapping[str, Picture], downloads: Path, files: Mapping[str, Path], faults: Mapping[str, str]
) -> str:
    """Every row that has no image, in the order of the lists; sha256 of the file."""
    rows: dict[str, list[tuple[int, str, str]]] = {split: [] for split in files}
    for url, picture in pictures.items():
        if url in faults:
            rows[picture.split] += [(row, url, faults[url]) for row, _ in picture.rows]
        for split, row in picture.repeats:
            rows[split].append((row, url, f"the same URL is in split {picture.split}"))
    path, part = downloads / FAILURES, downloads / f"{FAILURES}.part"
    with part.open("w", encoding="utf-8") as out:
        for split, failed in rows.items():
            for row, url, reason in sorted(failed):
                out.write(json.dumps({"file": files[split].name, "row": row, "url": url, "reason": reason}) + "\n")
    part.replace(path)
    return sha256_of(path)


def _entries(pictures: Mapping[str, Picture], downloads: Path, faults: Mapping[str, str]) -> Iterator[Entry]:
    images = downloads / "images"
    for url, picture in pictures.items():
        if url not in faults:
            image = f"{picture.split}-{picture.rows[0][0]}"
            captions = tuple(Caption(f"{picture.split}-{row}", text, (image,)) for row, text in picture.rows)
            yield Entry(image, picture.split, images / picture.file, captions, source=f"conceptual-captions/{url}")
