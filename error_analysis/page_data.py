"""What the page's scripts read: the split, the first items of every query, and the tables, as files of plain JavaScript.

A page opened from disk may not fetch files, but it may load scripts. Each file calls `misrank.add(name, value)`. Arrays are
little-endian numbers in base64, a tenth of the time that lists of decimal numbers take to read. A query or an item is its
place in the split, from 0. Ranks are 0-based; the page adds one.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from corpora.corpus import Split
from error_analysis.analysis import Analysis, Model
from error_analysis.formats import columns, decimals
from error_analysis.mining import DIRECTIONS, QUERY_KIND, SHOWN, Direction
from error_analysis.section import Cell, Column, Section, Table

Json = dict[str, Any]


def files(analysis: Analysis, sections: Iterable[Section], sizes: np.ndarray) -> Iterator[tuple[str, str]]:
    """(file name, content) of each. `sizes` (images, 2) are the pixels of the thumbnails, width and height; 0 where there is none."""
    yield "split.js", _script("split", split_data(analysis.split, sizes))
    yield (
        "retrieved.js",
        _script("retrieved", {direction: [_retrieved(m, direction) for m in analysis.models] for direction in DIRECTIONS}),
    )
    places = _places(analysis.split)
    tables = {table.name: table_data(table, places) for section in sections for table in section.tables}
    yield "tables.js", _script("tables", tables)


def _script(name: str, value: Any) -> str:
    """A call with the value as a string of JSON, which browsers read faster than the same text as a program."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return f'"use strict";\nmisrank.add({json.dumps(name)}, JSON.parse({json.dumps(text, ensure_ascii=True)}));\n'


def split_data(split: Split, sizes: np.ndarray) -> Json:
    """Ids and texts, the relevant pairs, and the sizes of the thumbnails."""
    return {
        "images": split.image_ids,
        "captions": split.text_ids,
        "texts": split.texts,
        "pairs": _packed(split.pairs.ravel(), "<u4"),
        "sizes": _packed(sizes.ravel(), "<u2"),
    }


def _retrieved(model: Model, direction: Direction) -> Json:
    near, retrieval = model.neighbours[direction], model.retrievals[direction]
    return {
        "model": model.name,
        "shown": min(SHOWN, near.items.shape[1]),
        "items": _packed(near.items[:, :SHOWN].ravel(), "<u4"),
        "scores": _packed(near.scores[:, :SHOWN].ravel(), "<f4"),
        "ranks": _packed(retrieval.ranks, "<f4"),
        "truth": _packed(near.truth, "<f4"),
    }


def _packed(values: np.ndarray, kind: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values, kind).tobytes()).decode()


def _places(split: Split) -> dict[str, dict[str, int]]:
    """Place in the split, by kind and id."""
    return {
        "image": {key: place for place, key in enumerate(split.image_ids)},
        "text": {key: place for place, key in enumerate(split.text_ids)},
    }


def table_data(table: Table, places: dict[str, dict[str, int]]) -> Json:
    """A table with, in place of ids, places in the split; an id that is not in it stays a text."""
    kept = [_column_data(table, column, values, places) for column, values in zip(table.columns, columns(table), strict=True)]
    heads = [
        {"name": column.name, "kind": column.kind, "decimals": decimals(column, values), "of": _of(table, column)}
        for column, values in zip(table.columns, columns(table), strict=True)
    ]
    return {"direction": table.direction, "columns": heads, "cells": kept, "rows": len(table.rows)}


def _column_data(table: Table, column: Column, values: tuple[Cell, ...], places: dict[str, dict[str, int]]) -> list[Cell]:
    kind = _of(table, column)
    return [places[kind].get(str(value), value) for value in values] if kind else list(values)


def _of(table: Table, column: Column) -> str:
    """ "image" or "text" for a column of ids, else nothing."""
    if table.direction is None or column.kind not in ("query", "item"):
        return ""
    query = QUERY_KIND[table.direction]
    return query if column.kind == "query" else "text" if query == "image" else "image"
