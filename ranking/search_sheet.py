"""What a search found, as lines for the terminal and as a contact sheet."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from corpora.contact_sheet import COLUMNS, cell, sheet
from corpora.corpus import Corpus
from ranking.search import Hit, Kind, Query, Searcher


def heading(model: Searcher, second: Searcher | None, query: Query, kind: Kind, hits: Sequence[Hit]) -> str:
    """What a list holds and what its scores are."""
    meaning = "cosine" if kind == "images" and not query.text else model.model.score_meaning
    again = ""
    if second is not None and any(hit.second is not None for hit in hits):
        again = f", the best again by {second.name} ({second.model.score_meaning})"
    return f"{kind.capitalize()} by {model.name} ({meaning}){again}"


def listing(model: Searcher, second: Searcher | None, query: Query, found: Mapping[Kind, Sequence[Hit]]) -> str:
    """A line for every hit: rank, score, second score if there is one, id, text."""
    lines = []
    for kind, hits in found.items():
        lines.append(f"{model.checkpoint}: {heading(model, second, query, kind, hits)}")
        width = max((len(hit.id) for hit in hits), default=0)
        for rank, hit in enumerate(hits, 1):
            again = "" if hit.second is None else f"{hit.second:>10.4f}"
            lines.append(f"{rank:>4}{hit.score:>10.4f}{again}  {hit.id:<{width}}  {hit.text}")
    return "\n".join(map(printable, lines))


def printable(line: str) -> str:
    """Without letters that would steer the terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in line)


def sheet_of(corpus: Corpus, query: Query, found: Mapping[Kind, Sequence[Hit]]) -> Image.Image:
    """The query, then every hit with its rank, score and id; a text under the picture that it was written for. Each list begins a row."""
    asked = query.picture or (corpus.images.picture(query.image) if query.image else None)
    cells = [cell(asked, ["query", query.image], query.text)]
    for kind, hits in found.items():
        if len(cells) > 1:
            cells += [cell(None, [], "")] * (-len(cells) % COLUMNS)
        for rank, hit in enumerate(hits, 1):
            picture = corpus.images.picture(hit.image) if hit.image else None
            score = hit.score if hit.second is None else hit.second
            cells.append(cell(picture, [f"{kind.removesuffix('s')} {rank}   {score:.4f}", hit.id], hit.text))
    return sheet(cells)


def sheet_path(folder: Path, asked: str, *way: object) -> Path:
    """A readable name, the same for the same query searched the same way."""
    words = re.sub(r"\W+", "-", asked).strip("-")[:60]
    digest = hashlib.sha256(repr((asked, *way)).encode()).hexdigest()[:6]
    return folder / f"{words or 'search'}-{digest}.jpg"
