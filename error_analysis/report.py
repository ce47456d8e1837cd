"""The report folder: index.html with its thumbnails and report.json. It opens from disk, without a network.

index.html    the page, its styles and script inside it
report.json   the same content as data (error_analysis.layouts.document)
thumbnails/   one JPEG for each image the page shows
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from corpora.images import ImageStore
from error_analysis.analysis import Analysis
from error_analysis.layouts import document, thumbnail_paths
from error_analysis.mining import DIRECTIONS, Direction, Example

TEMPLATES = Path(__file__).parent / "templates"
SHORT_SIDE, LONG_SIDE, JPEG_QUALITY = 160, 480, 80
FIGURES = {"R@1": max, "R@5": max, "R@10": max, "MedR": min, "MeanR": min, "MRR": max, "mAP": max}
"""Figures of the table and which of two values is the better."""


def write_report(analysis: Analysis, images: ImageStore, folder: Path) -> Path:
    """Write the report folder and return the path of its index.html.

    It is built in `<folder>.part` and takes the place of an earlier report only when whole. A folder that is no report
    is never replaced: that raises ValueError.
    """
    if folder.exists() and not (folder / "report.json").exists():
        raise ValueError(f"{folder}: exists and is not a report; remove it or choose another folder")
    part, old = folder.with_name(f"{folder.name}.part"), folder.with_name(f"{folder.name}.old")
    shutil.rmtree(part, ignore_errors=True)  # left by a job that died
    (part / "thumbnails").mkdir(parents=True)
    content = document(analysis)
    sizes = write_thumbnails(images, pictured(analysis), part)
    (part / "report.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (part / "index.html").write_text(render(content, sizes), encoding="utf-8")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    part.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    return folder / "index.html"


def pictured(analysis: Analysis) -> dict[str, str]:
    """Image id -> thumbnail path of every image the page shows."""
    found = [
        example
        for model in analysis.models
        for lists in model.mined.values()
        for mined in lists.values()
        for example in mined.examples
    ]
    found += [
        example for contrast in analysis.contrasts for pairs in contrast.examples.values() for pair in pairs for example in pair
    ]
    shown = {image_id for example in found for image_id in _images_of(example)}
    return {image_id: path for image_id, path in thumbnail_paths(analysis.split).items() if image_id in shown}


def _images_of(example: Example) -> tuple[str, ...]:
    return (example.query,) if example.direction == "i2t" else (*example.relevant, *example.retrieved)


def write_thumbnails(images: ImageStore, paths: dict[str, str], folder: Path) -> dict[str, tuple[int, int]]:
    """Encode each image once; returns width and height in pixels by path. Never enlarged; a very long image is cut down further."""
    sizes = {}
    for image_id, path in paths.items():
        picture = images.picture(image_id)
        scale = min(1.0, SHORT_SIDE / min(picture.size), LONG_SIDE / max(picture.size))
        sizes[path] = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        picture.resize(sizes[path]).save(folder / path, quality=JPEG_QUALITY)
    return sizes


def render(content: dict[str, Any], sizes: dict[str, tuple[int, int]]) -> str:
    """The page, from the content of report.json and the thumbnails' sizes. All text is escaped, and only its own script may run."""
    templates = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    templates.filters |= {"share": "{:.1%}".format, "count": "{:,}".format, "score": "{:.4g}".format, "figure": "{:.1f}".format}
    script = Markup((TEMPLATES / "script.js").read_text(encoding="utf-8"))
    models = content["models"]
    return templates.get_template("index.html").render(
        report=content,
        sizes=sizes,
        figures={direction: _figures(models, direction) for direction in DIRECTIONS},
        rsum=_cells([model["metrics"]["figures"]["rsum"] for model in models], max),
        charts={direction: _chart(models, direction) for direction in DIRECTIONS},
        script=script,
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _figures(models: list[Any], direction: Direction) -> list[dict[str, Any]]:
    """Rows of the table: a label and a cell for each model."""
    return [
        {"label": label, "cells": _cells([model["metrics"]["figures"][direction][label] for model in models], better)}
        for label, better in FIGURES.items()
    ]


def _cells(values: list[float], better: Callable[[list[float]], float]) -> list[dict[str, Any]]:
    best = better(values) if len(set(values)) > 1 else None
    return [{"value": value, "best": value == best} for value in values]


def _chart(models: list[Any], direction: Direction) -> dict[str, Any]:
    """A row for each range of ranks, with the shares and numbers of queries of each model; and the largest share."""
    ranges = zip(*(model["histogram"][direction] for model in models), strict=True)
    rows = [
        {
            "label": f"{bars[0]['first']:,}" + (f"\u2013{bars[0]['last']:,}" if bars[0]["last"] > bars[0]["first"] else ""),
            "shares": [bar["share"] for bar in bars],
            "queries": [bar["queries"] for bar in bars],
        }
        for bars in ranges
    ]
    return {"rows": rows, "most": max(share for row in rows for share in row["shares"])}
