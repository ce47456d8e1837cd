"""A file of texts, one a line or JSONL, -> a corpus folder without images: a gallery for retrieval at the scale of a corpus."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from corpora.corpus import Caption, CorpusError, CorpusWriter, already_made
from corpora.progress import progress
from preprocess.source_files import checked_id, checked_text, parse_json_line, read_lines, sha256_of

EXPECTED = 'a line {"text": ...} or {"id": ..., "text": ...} each'


def prepare(texts: Path, folder: Path, split: str = "test") -> bool:
    """Build the corpus; False if the same corpus stands there already.

    `texts` is read as JSONL if its suffix is .jsonl, else as one text a line. A text's id is its `id`, or else the number of its
    line, counted from 1. Empty lines are passed over and counted.
    """
    if not split:
        raise CorpusError("--split: the name of the split is empty; give one, such as test")
    made_by, sources = {"layout": "texts", "split": split}, {texts.name: sha256_of(texts)}
    if already_made(folder, made_by, sources):
        return False
    with CorpusWriter(folder, made_by, sources) as corpus:
        corpus.captions.extend(progress(read_texts(texts, split), "texts"))
        if not corpus.captions:
            raise CorpusError(f"{texts}: holds no texts; expected one a line")
    return True


def read_texts(path: Path, split: str) -> Iterator[Caption]:
    """The texts one by one."""
    read = _jsonl if path.suffix.lower() == ".jsonl" else _plain
    empty = 0
    for number, line in read_lines(path):
        if line.strip():
            yield read(line, number, f"{path}, line {number}", split)
        else:
            empty += 1
    if empty:
        print(f"{path}: {empty} empty lines were passed over", file=sys.stderr)


def _plain(line: str, number: int, where: str, split: str) -> Caption:
    return Caption(str(number), checked_text(line, where), split=split)


def _jsonl(line: str, number: int, where: str, split: str) -> Caption:
    row = parse_json_line(line, where, EXPECTED)
    if "text" not in row:
        raise CorpusError(f"{where}: no text among {', '.join(row)[:80] or 'nothing'}; expected {EXPECTED}")
    return Caption(checked_id(row.get("id", number), where), checked_text(row["text"], where), split=split)
