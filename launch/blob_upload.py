"""Folders of files, sent to blob storage: large ones in blocks, several at once; stopped at any moment, only the rest is sent.

The service keeps the blocks of a blob that is not whole yet for a week; they are named by number and content, so one that is
there is known again. Every blob gets an MD5, which the service and every program can check.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from azure.core import MatchConditions
from azure.core.exceptions import ResourceNotFoundError
from azure.storage.blob import BlobBlock, BlobClient, BlobProperties, ContentSettings

from launch.blob_access import BlobChanged, told
from launch.blob_manifest import Manifest
from launch.blob_storage import Advance, Moved, Place, each, etag_of, excluded, md5_of, only_if
from launch.meter import meter
from launch.parallel import in_parallel
from launch.part_file import PIECE, TransferError

MOST_BLOCKS = 50_000
"""Of one blob."""


@dataclass(frozen=True)
class Content:
    """A file as it was read once."""

    size: int
    modified: int
    """Nanoseconds."""
    piece: int
    """Bytes of a block."""
    md5: bytes
    sha256: str
    blocks: tuple[str, ...]
    """Names of its blocks."""


def send_blobs(
    place: Place,
    folder: Path,
    manifest: Manifest,
    *,
    exclude: Collection[str] = (),
    keep_last_part: bool = True,
    threads: int = 4,
) -> Moved:
    """Send all files of a folder (or one file) to a place; a blob that is not as its file is replaced, others stay.

    With `keep_last_part`, as azcopy --recursive does it, FOLDER goes to a/b/FOLDER. `exclude` as in `fetch_blobs`.
    """
    files = _sources(place, folder, exclude, keep_last_part)
    blobs = {blob.name: blob for blob in place.blobs()}
    missing = {
        name: file for name, file in files.items() if name not in blobs or not manifest.holds(name, etag_of(blobs[name]), file)
    }
    sizes = {name: file.stat().st_size for name, file in files.items()}
    needed = sum(sizes[name] for name in missing)
    done = Moved(stood=len(files) - len(missing))
    with meter(f"sending to {place}", sum(sizes.values()), sum(sizes.values()) - needed) as advance:

        def send(name: str, threads: int, advance: Advance) -> tuple[str, str, Content, bool]:
            return name, *_send(place, name, missing[name], blobs.get(name), threads, advance)

        for name, etag, content, sent in each(send, {name: sizes[name] for name in missing}, threads, advance):
            manifest.add(name, etag, missing[name], content.sha256)
            done.files, done.stood = done.files + sent, done.stood + (not sent)
            done.bytes += content.size * sent
    return done


def _sources(place: Place, folder: Path, exclude: Collection[str], keep_last_part: bool) -> dict[str, Path]:
    """The name of each file's blob."""
    if not folder.exists():
        raise TransferError(f"{folder}: no such folder to send")
    base = folder.parent if folder.is_file() else folder
    found = [folder] if folder.is_file() else [Path(root, name) for root, _, names in os.walk(folder) for name in names]
    start = "/".join(part for part in (place.path, folder.resolve().name if keep_last_part and folder.is_dir() else "") if part)
    files = {}
    for file in sorted(found):
        path = PurePosixPath(file.relative_to(base).as_posix())
        if not excluded(path, exclude):
            files[f"{start}/{path}".lstrip("/")] = file
    if not files:
        raise TransferError(f"{folder}: no file there{' that is not excluded' if exclude else ''}")
    return files


def _send(
    place: Place, name: str, file: Path, blob: BlobProperties | None, threads: int, advance: Advance
) -> tuple[str, Content, bool]:
    """Make a blob of a file: its ETag, what was read, and whether it had to be sent."""
    content = _read(file)
    if blob is not None and blob.size == content.size and md5_of(blob) == {"md5": content.md5.hex()}:
        advance(content.size)
        return etag_of(blob), content, False
    client = place.container.get_blob_client(name)
    try:
        with told(f"sending {name}"):
            if content.size > PIECE:
                _stage(client, file, content, threads, advance)
            etag = _commit(client, file, content, only_if(blob) if blob else {"match_condition": MatchConditions.IfMissing})
    except BlobChanged:
        raise TransferError(f"{name}: was changed there by someone else while it was sent; the same command looks anew") from None
    made = place.look(name)
    if made.size != content.size or etag_of(made) != etag:
        raise TransferError(f"{name}: {content.size:,} bytes were sent and {made.size:,} are there; give the same command again")
    return etag, content, True


def _read(file: Path) -> Content:
    before = file.stat()
    piece = PIECE * max(1, -(-before.st_size // (PIECE * MOST_BLOCKS)))
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    blocks: list[str] = []
    with file.open("rb") as source:
        while data := source.read(piece):
            md5.update(data)
            sha256.update(data)
            blocks.append(f"{len(blocks):06d}-{hashlib.md5(data, usedforsecurity=False).hexdigest()}")
    return Content(before.st_size, before.st_mtime_ns, piece, md5.digest(), sha256.hexdigest(), tuple(blocks))


def _stage(client: BlobClient, file: Path, content: Content, threads: int, advance: Advance) -> None:
    """Send the blocks that are not there yet."""
    try:
        there = {block.id for block in client.get_block_list("uncommitted")[1]}
    except ResourceNotFoundError:
        there = set()
    lengths = [min(content.piece, content.size - start) for start in range(0, content.size, content.piece)]
    numbers = [number for number, block in enumerate(content.blocks) if block not in there]
    advance(content.size - sum(lengths[number] for number in numbers))

    def stage(number: int) -> int:
        with file.open("rb") as source:
            source.seek(number * content.piece)
            data = source.read(lengths[number])
        with told(f"sending {client.blob_name}"):
            client.stage_block(content.blocks[number], data, validate_content=True)
        return len(data)

    for count in in_parallel(stage, numbers, threads, threading.Event()):
        advance(count)


def _commit(client: BlobClient, file: Path, content: Content, condition: dict[str, Any]) -> str:
    """Make the blob of its blocks, or of the whole small file; its ETag."""
    settings = ContentSettings(content_md5=bytearray(content.md5))
    data = file.read_bytes() if content.size <= PIECE else b""
    now = file.stat()
    if (now.st_size, now.st_mtime_ns) != (content.size, content.modified):
        raise TransferError(f"{file}: was changed while it was sent; give the same command again when it rests")
    if content.size > PIECE:
        made = client.commit_block_list([BlobBlock(block) for block in content.blocks], content_settings=settings, **condition)
    else:
        made = client.upload_blob(data, overwrite=True, content_settings=settings, validate_content=True, **condition)
    return str(made["etag"]).strip('"')
