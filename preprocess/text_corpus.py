"""A file of texts or dialogues, one a line or JSONL, -> a corpus folder without images, for retrieval at the scale of a corpus."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from corpora.corpus import Caption, CorpusError, CorpusWriter, already_made
from corpora.progress import progress
from preprocess.source_files import checked_id, checked_text, parse_json_line, read_lines, sha256_of

EXPECTED = 'a line {"text": ...} or {"id": ..., "text": ...} each'

Layout = Literal["texts", "dialogues", "contexts"]
"""texts: one a line; dialogues: one a line, utterances parted by tabs, which become spaces; contexts: all utterances but the last, the response."""


def prepare(texts: Path, folder: Path, split: str = "test", layout: Layout = "texts") -> bool:
    """Build the corpus; False if the same corpus stands there already.

    `texts` is read as JSONL if its suffix is .jsonl, else as one text a line. A text's id is its `id`, or else the number of its
    line, counted from 1. Lines without text, or without a context where that is asked for, are passed over and counted.
    """
    if not split:
        raise CorpusError("--split: the name of the split is empty; give one, such as test")
    made_by, sources = {"layout": layout, "split": split}, {texts.name: sha256_of(texts)}
    if already_made(folder, made_by, sources):
        return False
    with CorpusWriter(folder, made_by, sources) as corpus:
        corpus.captions.extend(progress(read_texts(texts, split, layout), "texts"))
        if not corpus.captions:
            raise CorpusError(f"{texts}: holds no {layout}; expected one a line")
    return True


def read_texts(path: Path, split: str, layout: Layout = "texts") -> Iterator[Caption]:
    """The texts one by one."""
    read = _jsonl if path.suffix.lower() == ".jsonl" else _plain
    empty = 0
    for number, line in read_lines(path):
        where = f"{path}, line {number}"
        key, text = read(line, number, where) if line.strip() else ("", "")
        text = text if layout == "texts" else _utterances(text, layout)
        if text:
            yield Caption(key, text, split=split)
        else:
            empty += 1
    if empty:
        print(f"{path}: {empty} lines without {'text' if layout == 'texts' else layout} were passed over", file=sys.stderr)


def _plain(line: str, number: int, where: str) -> tuple[str, str]:
    return str(number), checked_text(line, where)


def _jsonl(line: str, number: int, where: str) -> tuple[str, str]:
    row = parse_json_line(line, where, EXPECTED)
    if "text" not in row:
        raise CorpusError(f"{where}: no text among {', '.join(row)[:80] or 'nothing'}; expected {EXPECTED}")
    return checked_id(row.get("id", number), where), checked_text(row["text"], where)


def _utterances(text: str, layout: Layout) -> str:
    """Of a dialogue, as one text; empty if there is no context."""
    said = [utterance.strip() for utterance in text.split("\t") if utterance.strip()]
    return " ".join(said[:-1] if layout == "contexts" else said)
