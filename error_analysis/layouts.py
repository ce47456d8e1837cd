"""JSON layouts of an analysis: our own, one schema for every list, and on request the original system's.

Ours gives 1-based ranks, as papers do, with id and text (or thumbnail) of everything it names. The original's
(lxmert_clip_tiir) has 0-based ranks, image indices in the lists, image ids elsewhere, and a shape of its own for
every list; scripts written for its files go on working.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from corpora.corpus import Split
from error_analysis.analysis import Analysis, Contrast, Level, Model
from error_analysis.mining import DIRECTIONS, QUERY_KIND, Direction, Example
from error_analysis.summary import histogram, sentences
from ranking.matrix import RankingError

SCHEMA = 1
RANKS = "1-based: 1 is the first place; the options count places: hard is, by rank, a truth not among the first `hard`"

Json = dict[str, Any]


def document(analysis: Analysis) -> Json:
    """The whole analysis, JSON-ready. `thumbnail` paths are relative to the report folder."""
    split = analysis.split
    entry = _entries(split)
    ranks = {direction: analysis.ranks(direction) for direction in DIRECTIONS}

    def example(found: Example) -> Json:
        return _example(found, ranks[found.direction][found.query], entry)

    return {
        "schema": SCHEMA,
        "ranks": RANKS,
        "corpus": analysis.corpus,
        "split": split.name,
        "digest": split.digest,
        "images": len(split.image_ids),
        "texts": len(split.text_ids),
        "options": asdict(analysis.options),
        "summary": sentences(analysis),
        "models": [_model(model, example) for model in analysis.models],
        "comparisons": [_contrast(contrast, example) for contrast in analysis.contrasts],
    }


def _entries(split: Split) -> Callable[[str, str], Json]:
    """How a record of a kind is written: a text with its words, an image with its thumbnail."""
    texts, paths = dict(zip(split.text_ids, split.texts, strict=True)), thumbnail_paths(split)

    def entry(kind: str, key: str) -> Json:
        return {"id": key, "text": texts[key]} if kind == "text" else {"id": key, "thumbnail": paths[key]}

    return entry


def thumbnail_paths(split: Split) -> dict[str, str]:
    """Where each image's thumbnail lies in the report folder: by its place in the split, for an id need not be a file name."""
    return {image_id: f"thumbnails/{index:06d}.jpg" for index, image_id in enumerate(split.image_ids)}


def _example(found: Example, ranks: dict[str, float], entry: Callable[[str, str], Json]) -> Json:
    query_kind = QUERY_KIND[found.direction]
    item_kind = "text" if query_kind == "image" else "image"
    return {
        "direction": found.direction,
        "query": entry(query_kind, found.query),
        "rank": one_based(found.rank),
        "ranks": {name: one_based(rank) for name, rank in ranks.items()},
        "relevant": [entry(item_kind, key) for key in found.relevant],
        "retrieved": [
            {**entry(item_kind, key), "score": score, "relevant": key in found.relevant}
            for key, score in zip(found.retrieved, found.scores, strict=True)
        ],
    }


def _model(model: Model, example: Callable[[Example], Json]) -> Json:
    lists: Json = {
        level: {
            direction: {"total": mined.total, "examples": [example(found) for found in mined.examples]}
            for direction, mined in by_direction.items()
        }
        for level, by_direction in model.mined.items()
    }
    ranks = {
        direction: histogram(retrieval.ranks, len(retrieval.ranking.items.ids))
        for direction, retrieval in model.retrievals.items()
    }
    return {"name": model.name, "provenance": asdict(model.provenance), "metrics": model.metrics, "histogram": ranks, **lists}


def _contrast(contrast: Contrast, example: Callable[[Example], Json]) -> Json:
    return {
        "better": contrast.better,
        "worse": contrast.worse,
        **{
            direction: {
                "total": len(shifts),
                "shifts": [
                    {"query": shift.query, contrast.better: one_based(shift.better), contrast.worse: one_based(shift.worse)}
                    for shift in shifts
                ],
                "examples": [{"better": example(a), "worse": example(b)} for a, b in contrast.examples[direction]],
            }
            for direction, shifts in contrast.shifts.items()
        },
    }


def one_based(rank: float) -> float:
    """A 0-based rank as reports give it; whole unless the expected tie policy made it a half."""
    return _plain(rank + 1)


def _plain(rank: float) -> float:
    return int(rank) if rank == int(rank) else rank


def original_files(analysis: Analysis) -> dict[str, Json]:
    """File name -> content in the original's layout: <model>_<split>.json for each model, comparison.json for the first over the second.

    Other pairs are comparison_<better>_over_<worse>.json.
    """
    files = {
        _file_name(f"{model.name}_{analysis.split.name}"): original_lists(model, analysis.split) for model in analysis.models
    }
    for number, contrast in enumerate(analysis.contrasts):
        name = "comparison" if number == 0 else f"comparison_{contrast.better}_over_{contrast.worse}"
        files[_file_name(name)] = original_comparison(contrast, analysis.split)
    if len(files) < len(analysis.models) + len(analysis.contrasts):
        raise ValueError("--names: two of them give the same file name; use letters, digits, and . _ + -")
    return files


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.+-]+", "-", name) + ".json"


def original_lists(model: Model, split: Split) -> Json:
    """The original's error-analysis file of one model.

    A direction with chosen queries has those alone, with image ids; the other has hard and easy lists, with image
    indices in the order of the split. A caption of several images has no place in it and raises RankingError.
    """
    texts = dict(zip(split.text_ids, split.texts, strict=True))
    places = {key: index for index, key in enumerate(model.retrievals["i2t"].ranking.queries.ids)}
    return {direction: _original_direction(model, direction, texts, places) for direction in DIRECTIONS}


def _original_direction(model: Model, direction: Direction, texts: dict[str, str], places: dict[str, int]) -> Any:
    if chosen := model.mined["chosen"][direction].examples:
        return [_original_chosen(example, texts) for example in chosen]
    levels: tuple[Level, Level] = ("hard", "easy")
    write = _original_image if direction == "i2t" else _original_caption
    return {
        level: [write(example, level, texts, places) for example in model.mined[level][direction].examples] for level in levels
    }


def _original_image(example: Example, level: Level, texts: dict[str, str], places: dict[str, int]) -> Json:
    retrieved = [texts[key] for key in example.retrieved]
    return {
        "query": places[example.query],
        "ground_truth": [texts[key] for key in example.relevant],
        "retrieved": retrieved if level == "hard" else retrieved[0],
    }


def _original_caption(example: Example, level: Level, texts: dict[str, str], places: dict[str, int]) -> Json:
    if len(example.relevant) > 1:
        raise RankingError(
            f"text {example.query!r} describes {len(example.relevant)} images; the original layout holds one (drop --original-layouts)"
        )
    written: Json = {"query": texts[example.query], "ground_truth": places[example.relevant[0]]}
    if level == "hard":
        written["retrieved"] = [places[key] for key in example.retrieved]
    return written


def _original_chosen(example: Example, texts: dict[str, str]) -> Json:
    if example.direction == "i2t":
        return {"query": example.query, "retrieved": [texts[key] for key in example.retrieved]}
    return {"query": texts[example.query], "retrieved": list(example.retrieved)}


def original_comparison(contrast: Contrast, split: Split) -> Json:
    """The original's comparison.json: queries of one model's top that the other misses by far, 0-based ranks by model name.

    They stand in the order of the split.
    """
    texts = dict(zip(split.text_ids, split.texts, strict=True))
    ids: dict[Direction, tuple[str, ...]] = {"i2t": split.image_ids, "t2i": split.text_ids}
    place = {way: {key: index for index, key in enumerate(ids[way])} for way in DIRECTIONS}
    return {
        direction: [
            {
                "query": shift.query if direction == "i2t" else texts[shift.query],
                contrast.better: _plain(shift.better),
                contrast.worse: _plain(shift.worse),
            }
            for shift in sorted(shifts, key=lambda shift: place[direction][shift.query])
        ]
        for direction, shifts in contrast.shifts.items()
    }
