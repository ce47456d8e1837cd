"""The files of a source, read strictly: whatever is wrong with one is a single CorpusError that names the file and the place."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from corpora.corpus import Caption, CorpusError
from corpora.store import file_sha256
from preprocess.entries import Entry

LONGEST_LINE = 1 << 20


def sha256_of(path: Path) -> str:
    """sha256 of a source file."""
    try:
        return file_sha256(path)
    except OSError as error:
        raise _unreadable(path, error) from None


def read_json(path: Path, expected: str) -> Any:
    """The content of a JSON file. A key that stands twice in one object is refused: json alone would drop the first without a word."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
    except OSError as error:
        raise _unreadable(path, error) from None
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{path}: cannot be read as JSON ({error}); expected {expected}") from None


def parse_json_line(line: str, where: str, expected: str) -> dict[str, Any]:
    """One object of a JSONL file."""
    try:
        row = json.loads(line, object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{where}: cannot be read as JSON ({error}); expected {expected}") from None
    if not isinstance(row, dict):
        raise CorpusError(f"{where}: {line[:60]!r} is no object; expected {expected}")
    return row


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, line without its end) of a UTF-8 file, one by one, so that any number of lines fits in memory."""
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(LONGEST_LINE + 1):
                number += 1
                if len(line) > LONGEST_LINE:
                    raise CorpusError(
                        f"{path}, line {number}: longer than {LONGEST_LINE:,} bytes; expected a text file of short lines"
                    )
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
    except OSError as error:
        raise _unreadable(path, error) from None
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path}, line {number}: no UTF-8 text ({error}); convert the file to UTF-8") from None


def checked_text(value: object, where: str) -> str:
    """A caption: as it is but for outer spaces. CorpusError if it is no text or has no words."""
    if not isinstance(value, str):
        raise CorpusError(f"{where}: the caption is {shown(value)}; expected a text")
    text = value.strip()
    if not text:
        raise CorpusError(f"{where}: the caption is empty; correct or remove it")
    if not text.isascii() and not _is_unicode(text):
        raise CorpusError(f"{where}: the caption {text[:60]!r} holds half a character (a lone surrogate); correct or remove it")
    return text


def checked_id(value: object, where: str) -> str:
    """An id of an image or caption: a printable text without outer spaces, or a whole number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value or not value.isprintable() or value != value.strip():
        raise CorpusError(f"{where}: the id is {shown(value)}; expected a number, or printable text without outer spaces")
    return value


def shown(value: object) -> str:
    """The beginning of any value, for a message."""
    try:
        return repr(str(value)[:60])
    except (ValueError, RecursionError):  # a number of thousands of digits; a list of lists of lists ...
        return f"a {type(value).__name__}"


def check_entries(entries: Sequence[Entry], where: str) -> None:
    """CorpusError unless ids are unique and, in every split, all images have captions or none has."""
    check_ids([entry.id for entry in entries], "image", where)
    check_ids([caption.id for entry in entries for caption in entry.captions], "caption", where)
    described = {entry.split for entry in entries if entry.captions}
    silent = [entry for entry in entries if not entry.captions and entry.split in described]
    if silent:
        raise CorpusError(
            f"{where}: {len(silent)} images have no caption while others of their split have, the first: "
            f"{', '.join(entry.id for entry in silent[:3])}; give them captions or remove them"
        )


def check_ids(ids: Sequence[str], kind: str, where: str) -> None:
    """CorpusError naming the first ids that stand there more than once."""
    if len(set(ids)) != len(ids):
        twice = [key for key, count in Counter(ids).items() if count > 1]
        raise CorpusError(
            f"{where}: {len(twice)} {kind} ids stand there more than once, the first: {', '.join(twice[:3])}; remove one of each"
        )


def numbered(image_id: str, texts: Sequence[str]) -> tuple[Caption, ...]:
    """Captions of an image in a source that gives them no ids: "<image>#0", "<image>#1", ..."""
    return tuple(Caption(f"{image_id}#{number}", text, (image_id,)) for number, text in enumerate(texts))


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {twice[:60]!r} stands twice in one object")
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _unreadable(path: Path, error: OSError) -> CorpusError:
    return CorpusError(f"{path}: cannot be read ({error.strerror}); check the path")
