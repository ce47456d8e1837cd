"""Folders of blobs, fetched: large blobs in 8 MiB pieces, several at once; stopped at any moment, only the rest is fetched.

The pieces that are there are noted beside the file (launch.part_file), and every request names the blob's ETag, so that no file
is made of two versions. The manifest knows the files that are done. Sizes are always checked, MD5 where a blob has one.
"""

from __future__ import annotations

import fnmatch
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from azure.core import MatchConditions
from azure.storage.blob import BlobProperties, ContainerClient

from launch.blob_access import BlobChanged, told
from launch.blob_manifest import Manifest
from launch.meter import meter
from launch.parallel import in_parallel
from launch.part_file import PIECE, PartFile, TransferError, check_space
from launch.safe_paths import UnsafePathError, refuse_clashes, relative_path

Key = TypeVar("Key")
Result = TypeVar("Result")
Advance = Callable[[int], None]


@dataclass(frozen=True)
class Place:
    """A part of a container: the blob `path`, and all whose names begin with it as with a folder."""

    container: ContainerClient
    path: str
    public: bool = False
    """Whether it is asked without a credential."""

    def __str__(self) -> str:
        return f"{self.container.container_name}/{self.path}".rstrip("/")

    def blobs(self) -> list[BlobProperties]:
        """What is there, without the empty blobs by which some programs mark folders."""
        with told(f"listing {self}", self.public):
            found = list(self.container.list_blobs(name_starts_with=self.path or None, include=["metadata"]))
        return [
            blob
            for blob in found
            if (not self.path or blob.name == self.path or blob.name.startswith(f"{self.path}/"))
            and not (blob.size == 0 and (blob.name.endswith("/") or (blob.metadata or {}).get("hdi_isfolder")))
        ]

    def look(self, name: str) -> BlobProperties:
        """A blob as it is now."""
        with told(f"looking at {name}", self.public):
            return self.container.get_blob_client(name).get_blob_properties()


@dataclass
class Moved:
    """What was done: files moved, files that stood already, bytes moved, and files moved whose blob has no MD5."""

    files: int = 0
    stood: int = 0
    bytes: int = 0
    unchecked: int = 0


def fetch_blobs(
    place: Place,
    folder: Path,
    manifest: Manifest,
    *,
    exclude: Collection[str] = (),
    keep_last_part: bool = True,
    threads: int = 4,
) -> Moved:
    """Fetch all blobs at and below a place into a folder; a file that is not as its blob is replaced.

    With `keep_last_part`, as azcopy --recursive does it, a/b goes to FOLDER/b. `exclude` are patterns of a shell, each compared
    with the path below the folder and with its last part. TransferError tells what is wrong and what to do.
    """
    blobs = _targets(place, folder, exclude, keep_last_part)
    missing = {file: blob for file, blob in blobs.items() if not manifest.holds(blob.name, etag_of(blob), file)}
    total, needed = (sum(blob.size for blob in some.values()) for some in (blobs, missing))
    check_space(folder, needed, f"fetching {place}")
    done = Moved(stood=len(blobs) - len(missing))
    with meter(f"fetching {place}", total, total - needed) as advance:

        def fetch(file: Path, threads: int, advance: Advance) -> tuple[Path, BlobProperties, str]:
            return file, *_fetch(place, missing[file], file, threads, advance)

        for file, blob, sha256 in each(fetch, {file: blob.size for file, blob in missing.items()}, threads, advance):
            manifest.add(blob.name, etag_of(blob), file, sha256)
            done.files, done.bytes = done.files + 1, done.bytes + blob.size
            done.unchecked += not md5_of(blob)
    return done


def _targets(place: Place, folder: Path, exclude: Collection[str], keep_last_part: bool) -> dict[Path, BlobProperties]:
    """Where each blob goes."""
    found: dict[PurePosixPath, BlobProperties] = {}
    paths = []
    try:
        for blob in place.blobs():
            path = relative_path(_below(blob.name, place.path, keep_last_part))
            if not excluded(path, exclude):
                paths.append(path)
                found[path] = blob
        refuse_clashes(paths)
    except UnsafePathError as error:
        raise TransferError(
            f"{place}: {error}, so it cannot be a file of {folder}; leave it out with --exclude-pattern"
        ) from None
    if not found:
        raise TransferError(f"{place}: no blob there{' that is not excluded' if exclude else ''}; look at --remote")
    return {folder / path: blob for path, blob in found.items()}


def _below(name: str, path: str, keep_last_part: bool) -> str:
    last = path.rpartition("/")[2]
    if name == path:
        return last
    below = name.removeprefix(f"{path}/") if path else name
    return f"{last}/{below}" if path and keep_last_part else below


def excluded(path: PurePosixPath, patterns: Iterable[str]) -> bool:
    """Whether a pattern fits a path, or the last part of it."""
    return any(fnmatch.fnmatchcase(str(path), pattern) or fnmatch.fnmatchcase(path.name, pattern) for pattern in patterns)


def each(
    work: Callable[[Key, int, Advance], Result], sizes: Mapping[Key, int], threads: int, advance: Advance
) -> Iterator[Result]:
    """Do `work` for all files: several small ones at a time, then the large ones in turn, each of them in several pieces at a time."""
    small = [key for key, size in sizes.items() if size <= PIECE]

    def one_small(key: Key) -> tuple[Key, Result]:
        return key, work(key, 1, lambda _: None)

    for key, result in in_parallel(one_small, small, threads, threading.Event()):
        advance(sizes[key])
        yield result
    for key, size in sizes.items():
        if size > PIECE:
            yield work(key, threads, advance)


def _fetch(place: Place, blob: BlobProperties, file: Path, threads: int, advance: Advance) -> tuple[BlobProperties, str]:
    """Make the file of a blob; the blob as it was fetched, and the file's sha256."""
    for _ in range(3):
        identity = {
            "blob": f"{place.container.primary_hostname}/{place.container.container_name}/{blob.name}",
            "etag": etag_of(blob),
        }
        with PartFile(file, blob.size, identity) as part:
            advance(part.done)
            try:
                for count in part.fill(partial(_read, place, blob), threads):
                    advance(count)
                return blob, part.finish(md5_of(blob))["sha256"]
            except BlobChanged:
                print(f"{blob.name}: changed while it was fetched: fetched anew", flush=True)
                part.discard()
        blob = place.look(blob.name)
    raise TransferError(f"{blob.name}: changes again and again while it is fetched; try another time")


def _read(place: Place, blob: BlobProperties, start: int, length: int) -> list[bytes]:
    with told(f"fetching {blob.name}", place.public):
        stream = place.container.download_blob(blob.name, offset=start, length=length, max_concurrency=1, **only_if(blob))
        return [bytes(stream.readall())]


def etag_of(blob: BlobProperties) -> str:
    """Listings give it without the quotation marks that are part of it."""
    return str(blob.etag).strip('"')


def only_if(blob: BlobProperties) -> dict[str, Any]:
    """Arguments of a request that is refused if the blob has changed."""
    return {"etag": f'"{etag_of(blob)}"', "match_condition": MatchConditions.IfNotModified}


def md5_of(blob: BlobProperties) -> dict[str, str]:
    """A blob's MD5 as `digests`; many that were uploaded in blocks have none."""
    found = blob.content_settings.content_md5
    return {"md5": bytes(found).hex()} if found else {}
