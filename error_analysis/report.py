"""The report folder. It opens from disk, without a network.

index.html    the page; page/ holds its styles and scripts, data/ what the scripts read
report.json   the same content as data: the analysis (error_analysis.layouts.document) and its sections
overview.json what the page over several reports shows of this one (error_analysis.reports)
plots/        every plot as SVG and PNG
tables/       every table as CSV and LaTeX
thumbnails/   one JPEG for each image of the split, by its place in it
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from corpora.corpus import Corpus, Split
from corpora.images import ImageStore, decode_from
from error_analysis import page_data
from error_analysis.analysis import Analysis
from error_analysis.drawing import draw, in_page
from error_analysis.formats import as_csv, as_latex, columns, outside
from error_analysis.layouts import document, thumbnail_paths
from error_analysis.mining import DIRECTIONS
from error_analysis.ranks import LISTS
from error_analysis.section import Section, Table
from error_analysis.sections import sections as all_sections
from error_analysis.summary import WAY

TEMPLATES = Path(__file__).parent / "templates"
STYLE, SCRIPTS, LAST_SCRIPT = "style.css", ("store.js", "table.js", "query.js"), "page.js"
SHORT_SIDE, LONG_SIDE, JPEG_QUALITY = 160, 480, 80
FIGURES = {"R@1": max, "R@5": max, "R@10": max, "MedR": min}
"""Figures of the overview and which of two values is the better."""

Json = dict[str, Any]


def write_report(analysis: Analysis, corpus: Corpus, folder: Path, judged: Sequence[Path] = (), others: str = "") -> Path:
    """Write the report folder and return the path of its index.html.

    `judged` are files of further relevant pairs, `others` the address of the page over several reports. The folder is built
    in `<folder>.part` and takes the place of an earlier report only when whole. A folder that is no report is never
    replaced: that raises ValueError.
    """
    if folder.exists() and not (folder / "report.json").exists():
        raise ValueError(f"{folder}: exists and is not a report; remove it or choose another folder")
    part, old = folder.with_name(f"{folder.name}.part"), folder.with_name(f"{folder.name}.old")
    shutil.rmtree(part, ignore_errors=True)  # left by a job that died
    part.mkdir(parents=True)
    sections = tuple(all_sections(analysis, corpus, judged))
    _check_names(sections)
    _write(part, analysis, corpus, sections, others)
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    part.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    return folder / "index.html"


def _check_names(sections: Iterable[Section]) -> None:
    """ValueError for two tables, or two plots, of one name: their files would be one."""
    for kind in ("tables", "plots"):
        names = [one.name for section in sections for one in getattr(section, kind)]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"{kind} of one name: {', '.join(sorted(twice))}")


def _write(folder: Path, analysis: Analysis, corpus: Corpus, sections: tuple[Section, ...], others: str) -> None:
    sizes = write_thumbnails(corpus, analysis.split, folder)
    _put(folder / "report.json", _json(document(analysis) | {"sections": [_section_data(section) for section in sections]}))
    _put(folder / "overview.json", _json(overview(analysis, sections)))
    for table in (table for section in sections for table in section.tables):
        _put(folder / "tables" / f"{table.name}.csv", as_csv(table))
        _put(folder / "tables" / f"{table.name}.tex", as_latex(table))
    drawings = write_plots(analysis, sections, folder)
    for name in (STYLE, *SCRIPTS, LAST_SCRIPT):
        _put(folder / "page" / name, (TEMPLATES / name).read_text(encoding="utf-8"))
    data = dict(page_data.files(analysis, sections, sizes))
    for name, text in data.items():
        _put(folder / "data" / name, text)
    scripts = [*(f"page/{name}" for name in SCRIPTS), *(f"data/{name}" for name in data), f"page/{LAST_SCRIPT}"]
    _put(folder / "index.html", render(analysis, sections, drawings, scripts, others))


def _put(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _json(content: Json) -> str:
    return json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n"


def _section_data(section: Section) -> Json:
    return {
        "name": section.name,
        "title": section.title,
        "sentences": section.sentences,
        "tables": [_table_data(table) for table in section.tables],
        "plots": [asdict(plot) for plot in section.plots],
    }


def _table_data(table: Table) -> Json:
    """A table with its ranks 1-based."""
    values = [[outside(cell, column) for cell in cells] for column, cells in zip(table.columns, columns(table), strict=True)]
    return {
        "name": table.name,
        "title": table.title,
        "note": table.note,
        "direction": table.direction,
        "columns": [asdict(column) for column in table.columns],
        "rows": list(zip(*values, strict=True)),
    }


def overview(analysis: Analysis, sections: Iterable[Section]) -> Json:
    """What is said of this report where there are several."""
    return {
        "corpus": analysis.corpus,
        "split": analysis.split.name,
        "images": len(analysis.split.image_ids),
        "texts": len(analysis.split.text_ids),
        "models": [
            {"name": model.name, "rsum": model.metrics["figures"]["rsum"]}
            | {direction: {label: model.metrics["figures"][direction][label] for label in FIGURES} for direction in DIRECTIONS}
            for model in analysis.models
        ],
        "findings": findings(sections),
    }


def findings(sections: Iterable[Section]) -> list[Json]:
    """What every section with something to show says first: where it is, and the sentence."""
    return [
        {"name": section.name, "title": section.title, "sentence": section.lead or section.sentences[0]}
        for section in sections
        if section.sentences and (section.tables or section.plots) and section.name not in LISTS
    ]


def write_thumbnails(corpus: Corpus, split: Split, folder: Path) -> np.ndarray:
    """A JPEG of each image; returns width and height in pixels, (images, 2), 0 in a corpus without pictures.

    Never enlarged; a very long image is cut down further.
    """
    if not (corpus.folder / "images.h5").exists():
        return np.zeros((len(split.image_ids), 2), int)
    (folder / "thumbnails").mkdir()
    images, paths = corpus.images, thumbnail_paths(split)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        sizes = threads.map(lambda key: _thumbnail(images, key, folder / paths[key]), split.image_ids)
        return np.array(list(sizes))


def _thumbnail(images: ImageStore, image_id: str, path: Path) -> tuple[int, int]:
    try:
        picture = decode_from(images.read(image_id), SHORT_SIDE).pixels
    except (OSError, ValueError):
        picture = images.picture(image_id)  # whose error names the image and what to do
    scale = min(1.0, SHORT_SIDE / min(picture.size), LONG_SIDE / max(picture.size))
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    picture.resize(size).save(path, quality=JPEG_QUALITY)
    return size


def write_plots(analysis: Analysis, sections: Iterable[Section], folder: Path) -> dict[str, Markup]:
    """Every plot as SVG and PNG; returns each as an element of the page."""
    (folder / "plots").mkdir()
    names, drawings = [model.name for model in analysis.models], {}
    for plot in (plot for section in sections for plot in section.plots):
        svg, png = draw(plot, names)
        (folder / "plots" / f"{plot.name}.svg").write_bytes(svg)
        (folder / "plots" / f"{plot.name}.png").write_bytes(png)
        drawings[plot.name] = Markup(in_page(svg, plot.title))
    return drawings


def render(
    analysis: Analysis, sections: Sequence[Section], drawings: dict[str, Markup], scripts: Sequence[str], others: str
) -> str:
    """The page. All text is escaped, and only scripts of its own folder may run."""
    templates = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    templates.filters |= {"count": "{:,}".format, "figure": "{:.1f}".format, "joined": _joined}
    return templates.get_template("index.html").render(
        corpus=analysis.corpus,
        split=analysis.split,
        models=[{"name": model.name, "provenance": asdict(model.provenance)} for model in analysis.models],
        sections=sections,
        findings=findings(sections),
        drawings=drawings,
        key_figures=_key_figures(analysis),
        ties=analysis.options.ties,
        scripts=scripts,
        others=others,
    )


def _joined(sentence: str) -> str:
    """A sentence whose percent signs stand all alike, and none at the beginning of a line."""
    return re.sub(r"(?<=\d) ?%", "\u202f%", sentence)


def _key_figures(analysis: Analysis) -> dict[str, list[Json]]:
    """Rows of the overview's table under the name of their group: a label and a cell for each model."""
    figures = [model.metrics["figures"] for model in analysis.models]
    rows = {
        WAY[direction]: [
            {"label": label, "cells": _cells([one[direction][label] for one in figures], better)}
            for label, better in FIGURES.items()
        ]
        for direction in DIRECTIONS
    }
    return rows | {"Both directions": [{"label": "rsum", "cells": _cells([one["rsum"] for one in figures], max)}]}


def _cells(values: list[float], better: Callable[[list[float]], float]) -> list[Json]:
    best = better(values) if len(set(values)) > 1 else None
    return [{"value": value, "best": value == best} for value in values]
