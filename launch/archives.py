"""zip, tar and tar.gz into a folder: all of an archive or nothing, nothing outside the folder, no links, no devices."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal, Self

from launch.meter import meter
from launch.part_file import TransferError, check_space
from launch.safe_paths import UnsafePathError, refuse_clashes, relative_path

BLOCK = 4096
"""Bytes of disk that a file takes at least: an archive of very many small ones is measured by it."""
MOST_AFTER_END = 2**20
"""Bytes behind the last entry of a tar, which is padded to the blocks of its tape."""
LONGEST_END = 2**16 + 200
"""Bytes of a zip's last records with the longest comment."""
LONGEST_HEADER = 2**20
NAME_HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
MIB = 2**20
DAMAGES = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    EOFError,
    struct.error,
    RuntimeError,
    OverflowError,
    ValueError,
    IndexError,
)
"""What reading a damaged archive may raise; a RuntimeError for an encrypted one, or an unknown compression."""


class ArchiveError(ValueError):
    """An archive that is damaged or unsafe; nothing of it was left in the folder."""


@dataclass(frozen=True)
class Member:
    """One file in an archive: where it goes, its announced size in bytes, and its content."""

    path: PurePosixPath
    size: int
    open: Callable[[], IO[bytes]]


def unpack(archive: Path, folder: Path) -> bool:
    """Unpack `archive` as the new folder `folder`; False if that stands already.

    If the archive holds nothing but one folder, that becomes `folder`. It is built aside and renamed, so it is whole if it is
    there. What macOS adds of its own (__MACOSX) is left out. ArchiveError tells what is wrong with the archive, TransferError that the disk is too small.
    """
    if folder.exists():
        return False
    aside = folder.with_name(f".{folder.name}.unpacking")
    shutil.rmtree(aside, ignore_errors=True)  # left by a job that died
    try:
        with _told(archive):
            _unpack(archive, aside)
        inside = list(aside.iterdir())
        (inside[0] if len(inside) == 1 and inside[0].is_dir() else aside).rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return True


@contextmanager
def _told(archive: Path) -> Iterator[None]:
    """Everything that a damaged archive may raise, as one ArchiveError."""
    try:
        yield
    except UnsafePathError as error:
        raise ArchiveError(f"{archive}: {error}; nothing of it was unpacked: look for another copy") from None
    except (ArchiveError, TransferError):
        raise
    except DAMAGES as error:
        raise ArchiveError(f"{archive}: damaged, or neither zip, tar nor tar.gz ({error}); fetch it again") from None
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):  # of the disk; gzip's have no number, a seek to before the start has this one
            raise
        raise ArchiveError(f"{archive}: damaged ({error}); fetch it again") from None


def _unpack(archive: Path, aside: Path) -> None:
    needed, paths = 0, []
    for member in _members(archive):  # to the end before anything is written
        needed += -(-member.size // BLOCK) * BLOCK + BLOCK
        check_space(aside.parent, needed, f"unpacking {archive}")
        paths.append(member.path)
    if not paths:
        raise ArchiveError(f"{archive}: holds no file")
    refuse_clashes(paths)
    with meter(f"unpacking {archive.name}", needed) as advance:
        for member in _members(archive):
            target = aside / member.path
            target.parent.mkdir(parents=True, exist_ok=True)
            _write(member, target)
            advance(-(-member.size // BLOCK) * BLOCK + BLOCK)


def _write(member: Member, target: Path) -> None:
    left = member.size
    with member.open() as source, target.open("xb") as file:
        while block := source.read(MIB):
            left -= len(block)
            if left < 0:
                break
            file.write(block)
    if left:
        raise ArchiveError(f"{member.path}: announced with {member.size:,} bytes, which it has not; fetch the archive again")


def _members(archive: Path) -> Iterator[Member]:
    """The files of an archive, in its order; each is to be read before the next one."""
    with archive.open("rb") as file:
        start = file.read(2)
    found = _zip_members(archive) if start == b"PK" else _tar_members(archive, "r:gz" if start == b"\x1f\x8b" else "r:")
    yield from (member for member in found if member.path.parts[0] != "__MACOSX")


def _zip_members(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as file:
        if (len(file.infolist()) - _announced_entries(archive)) % 2**16:
            raise zipfile.BadZipFile("its list of files is not whole")
        for entry in file.infolist():
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if entry.is_dir() and entry.file_size == 0 and kind in (0, stat.S_IFDIR):
                file.open(entry).close()  # compares the name with the one before the content
                continue
            if kind not in (0, stat.S_IFREG) or entry.is_dir():
                raise ArchiveError(f"{archive}: {entry.filename!r} is a link or a device; nothing of it was unpacked")
            yield Member(relative_path(entry.orig_filename), entry.file_size, partial(file.open, entry))


def _announced_entries(archive: Path) -> int:
    """How many entries the end of a zip says there are, of which older programs write the last 16 bits.

    zipfile does not look, and would not miss the first ones.
    """
    with archive.open("rb") as file:
        file.seek(-min(archive.stat().st_size, LONGEST_END), os.SEEK_END)
        end = file.read()
    (count,) = struct.unpack_from("<H", end, end.rindex(b"PK\5\6") + 10)
    if count == 0xFFFF and b"PK\6\6" in end:
        (count,) = struct.unpack_from("<Q", end, end.rindex(b"PK\6\6") + 32)
    return int(count)


class _Header(tarfile.TarInfo):
    """Headers as tarfile reads them, but a damaged one is an error, where tarfile would take it for the archive's end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        return cls._checked(super().frombuf, buf, encoding, errors)

    @classmethod
    def _frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str, **more: bool) -> Self:
        """What later security updates of Python call in its place."""
        return cls._checked(partial(super()._frombuf, **more), buf, encoding, errors)  # type: ignore[misc]

    @staticmethod
    def _checked(read: Callable[..., Any], buf: bytes | bytearray, encoding: str, errors: str) -> Any:
        try:
            header = read(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):  # the end
                raise
            raise EOFError(error) from None
        if header.size < 0 or (header.type in NAME_HEADERS and header.size > LONGEST_HEADER):
            raise EOFError("a header of impossible size")
        return header


def _tar_members(archive: Path, mode: Literal["r:", "r:gz"]) -> Iterator[Member]:
    with tarfile.open(archive, mode, tarinfo=_Header) as file:
        for entry in file:
            if entry.isdir():
                continue
            if not entry.isreg() or entry.issparse() or entry.size < 0:
                raise ArchiveError(f"{archive}: {entry.name!r} is a link, a device or a sparse file; nothing of it was unpacked")
            yield Member(relative_path(entry.name), entry.size, partial(_content, file, entry))
        rest = file.fileobj.read(MOST_AFTER_END + 1) if file.fileobj else b""  # to the end: there gzip compares its checksum
        if len(rest) > MOST_AFTER_END or any(rest):
            raise ArchiveError(f"{archive}: goes on behind its end; fetch it again")


def _content(file: tarfile.TarFile, entry: tarfile.TarInfo) -> IO[bytes]:
    content = file.extractfile(entry)
    assert content is not None, f"{entry.name} is a regular file"
    return content
