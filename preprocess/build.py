"""Entries of a source -> a corpus folder: the images are read, verified and packed by any number of processes and jobs."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from corpora.corpus import Caption, Corpus, CorpusError, CorpusWriter, ImageRecord, already_made
from corpora.image_packs import join_packs
from corpora.pieces import Part
from corpora.report import as_text, describe
from corpora.store import check_unique
from preprocess.entries import Entry
from preprocess.image_files import state
from preprocess.image_packing import ImagePieces
from preprocess.packing import Packing


def build(
    entries: Iterable[Entry],
    folder: Path,
    *,
    made_by: Mapping[str, Any],
    sources: Mapping[str, str],
    packing: Packing = Packing(),  # noqa: B008
) -> bool:
    """Build the corpus folder; False if it was not made now: the same corpus stands there already, or other parts are still to come.

    Entries are drawn only where the corpus does not stand yet: give a generator. What Packing says is added to `made_by`. A caption
    of several images stands in the entry of each. Images that cannot be used stop the work after all were tried (one CorpusError),
    or are left out with their captions and recorded. A job that was killed goes on where it was: the packed images wait in
    `.<folder>.pieces`, beside the folder, until they are joined.
    """
    made_by = {**made_by, "bad_images": packing.bad_images, "short_side": packing.short_side}
    pieces_folder = folder.with_name(f".{folder.name}.pieces")
    if already_made(folder, made_by, sources):
        shutil.rmtree(pieces_folder, ignore_errors=True)  # left by a job that was killed after it had joined them
        return False
    if folder.exists():
        raise CorpusError(f"{folder}: exists already; remove it or choose another folder")
    rows = list(entries)
    if not rows:
        raise CorpusError(f"{folder}: no images to pack")
    check_unique([row.id for row in rows], "image", str(folder))
    with _disk_errors(folder):
        images = ImagePieces.of([(row.id, row.path) for row in rows], pieces_folder, packing.short_side)
        try:
            to_come = _pack(folder, images, packing)
        except FileNotFoundError:
            if not already_made(folder, made_by, sources):
                raise
            return False  # another part has joined the pieces meanwhile, and removed them
        if to_come:
            print(f"{folder}: {to_come} of {images.pieces.count} pieces are still to come from other parts")
            return False
        return _join(images, rows, CorpusWriter(folder, made_by, dict(sources)), packing)


def announce(folder: Path, made: bool) -> None:
    """Print what `build` did, and a short report of what it made."""
    if (folder / "corpus.json").exists():
        corpus = Corpus(folder)
        print("made:" if made else "stands already:", corpus)
        if made:
            print(as_text(describe(corpus)))


def _pack(folder: Path, images: ImagePieces, packing: Packing) -> int:
    """Pack what is missing of this part; how many pieces are missing then, all in all."""
    part = Part.parse(packing.part)
    mine = [number for number in range(images.pieces.count) if number in part]
    images.drop_changed(mine)
    missing = images.pieces.missing(part)
    _check_room(folder, images, missing, joins=part.count == 1)
    images.pack(missing, packing.workers)
    images.drop_changed(set(range(images.pieces.count)).difference(mine))
    return len(images.pieces.missing())


def _check_room(folder: Path, images: ImagePieces, missing: Sequence[int], *, joins: bool) -> None:
    """Refuse to begin what the disk cannot hold: the images are there twice while their packs are joined."""
    if images.short_side:
        return  # they will be smaller, nobody knows how much
    found = (state(path) for number in missing for _, path in images.of_piece(number))
    need = sum(size_and_time[0] for size_and_time in found if not isinstance(size_and_time, str))
    if joins:
        packed = set(range(images.pieces.count)).difference(missing)
        need += need + sum(images.pieces.path(number).stat().st_size for number in packed)
    free = shutil.disk_usage(folder.parent).free
    if need > free:
        raise CorpusError(
            f"{folder}: packing needs {need / 1e9:.3g} GB more there (the images are on the disk twice until it is done) and "
            f"{free / 1e9:.3g} GB are free; make room, choose another disk, or shrink the images with --short-side"
        )


def _join(images: ImagePieces, rows: Sequence[Entry], corpus: CorpusWriter, packing: Packing) -> bool:
    """Join the packs unless another job does it; what is written holds every image of the rows once, or its fault."""
    pieces = images.pieces
    with _alone(pieces.folder, needed=bool(packing.part)) as alone:
        if not alone:
            print(f"{corpus.folder}: another job is joining the pieces")
            return False
        if already_made(corpus.folder, corpus.made_by, corpus.sources):  # by another part, just now
            return False
        for row, packed in zip(rows, images.packed(), strict=True):
            if packed.fault:
                corpus.left_out.append({"id": row.id, "path": str(row.path), "reason": packed.fault})
            else:
                corpus.images.append(ImageRecord(row.id, row.split, packed.width, packed.height, row.class_name, row.source))
        if packing.bad_images == "stop" or not corpus.images:
            refuse_faults(str(corpus.folder), len(rows), corpus.left_out)
        corpus.captions += _captions(rows, {row["id"] for row in corpus.left_out})
        with corpus:
            join_packs(corpus.part / "images.h5", [pieces.path(number) for number in range(pieces.count)])
    pieces.remove()
    return True


def _captions(rows: Sequence[Entry], left_out: set[str]) -> Iterator[Caption]:
    """The captions of the images that were kept, each once."""
    seen: dict[str, Caption] = {}
    for row in rows:
        for caption in row.captions:
            if seen.setdefault(caption.id, caption) != caption:
                raise CorpusError(f"two captions have the id {caption.id}: {seen[caption.id].text!r} and {caption.text!r}")
    for caption in seen.values():
        kept = tuple(image for image in caption.images if image not in left_out)
        if kept:
            yield Caption(caption.id, caption.text, kept)


def refuse_faults(where: str, total: int, left_out: Sequence[Mapping[str, str]]) -> None:
    """CorpusError with the count and the first paths and reasons, if any image had to be left out."""
    if left_out:
        first = "".join(f"\n  {row['path']}: {row['reason']}" for row in left_out[:5])
        raise CorpusError(
            f"{where}: {len(left_out)} of {total} images cannot be used; put them right or leave them out with --bad-images skip. "
            f"The first:{first}"
        )


@contextmanager
def _alone(folder: Path, *, needed: bool) -> Iterator[bool]:
    """Whether no other job holds the folder; it is held until the block ends or the process dies."""
    with (folder / "joining").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError as error:  # some network disks have no locks
            if needed:
                raise CorpusError(
                    f"{folder}: no locks on this disk ({error.strerror}); join the parts by one more run without --part"
                ) from None
        yield True


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """A disk that is full or fails becomes one clear error; nothing half-made takes the folder's name."""
    try:
        yield
    except OSError as error:
        raise CorpusError(
            f"{folder}: cannot be written ({error.strerror or error}); what is packed is kept beside it: put it right and run again"
        ) from error
