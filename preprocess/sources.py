"""The table of where raw data comes from: sources.yaml beside this file."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import yaml

TABLE = Path(__file__).with_name("sources.yaml")
DIGESTS = ("md5", "sha256")


class SourceError(ValueError):
    """A source that is not in the table, a table that is none, or a file that only the user can get."""


@dataclass(frozen=True)
class SourceFile:
    """One file of a source; the fields are explained in the table."""

    name: str
    url: str = ""
    by_hand: str = ""
    size: int | None = None
    digests: dict[str, str] = field(default_factory=dict)
    unpack: str = ""

    def stands(self, folder: Path) -> bool:
        """Whether the folder has it, or what it unpacks to."""
        return (folder / self.unpack).exists() if self.unpack else (folder / self.name).exists()


def read_source(name: str, table: Path = TABLE) -> list[SourceFile]:
    """The files of a source; SourceError names the sources there are, or what is wrong in the table."""
    sources = yaml.safe_load(table.read_text(encoding="utf-8"))
    if name not in sources:
        near = difflib.get_close_matches(name, sources, 1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise SourceError(f"no source {name!r}{hint}; sources: {', '.join(sources)}")
    return [_source_file(row, f"{table}: {name}, file {number}") for number, row in enumerate(sources[name], 1)]


def _source_file(row: dict[str, Any], where: str) -> SourceFile:
    known = {each.name for each in fields(SourceFile)} - {"digests"} | set(DIGESTS)
    if unknown := set(row) - known:
        raise SourceError(f"{where}: {min(unknown)!r} means nothing here; allowed: {', '.join(sorted(known))}")
    digests = {name: str(row[name]) for name in DIGESTS if name in row}
    rest = {key: value for key, value in row.items() if key not in DIGESTS}
    file = SourceFile(**{"name": urlsplit(row.get("url", "")).path.rpartition("/")[2], **rest}, digests=digests)
    if not file.name or bool(file.url) == bool(file.by_hand):
        raise SourceError(f"{where}: needs a name, and either a url or by_hand")
    if (
        any(".." in part or part.startswith("/") for part in (file.name, file.unpack))
        or PurePosixPath(file.name).name != file.name
    ):
        raise SourceError(f"{where}: name and unpack must stay in the source's folder")
    return file


def refuse_missing(name: str, files: Iterable[SourceFile], folder: Path) -> None:
    """SourceError, in one line, about the files that the user has to get."""
    wanted = [file for file in files if file.by_hand and not file.stands(folder) and not (folder / file.name).exists()]
    if wanted:
        todo = "; ".join(f"{file.by_hand}, and put {file.name} into {folder}" for file in wanted)
        raise SourceError(f"{name}: {todo}; then give the same command again")
