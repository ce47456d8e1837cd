"""The page over several reports of one project: <shelf>/reports.html, from the overview of every <shelf>/*/report."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from error_analysis.mining import DIRECTIONS
from error_analysis.summary import WAY
from ranking.matrix import written_aside

REPORTS = "reports.html"
TEMPLATES = Path(__file__).parent / "templates"


def write_reports(shelf: Path) -> Path:
    """Write the page, the newest report first, and return its path. Reports of an older version, without an overview, are left out."""
    found = sorted(shelf.glob("*/report/overview.json"), key=lambda path: (-path.stat().st_mtime, path))
    templates = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    templates.filters |= {"count": "{:,}".format, "figure": "{:.1f}".format}
    page = templates.get_template("reports.html").render(
        project=shelf.name,
        reports=[_entry(path) for path in found],
        ways={direction: WAY[direction] for direction in DIRECTIONS},
        style=(TEMPLATES / "style.css").read_text(encoding="utf-8"),
    )
    with written_aside(shelf / REPORTS) as part:
        part.write_text(page, encoding="utf-8")
    return shelf / REPORTS


def _entry(path: Path) -> dict[str, Any]:
    overview: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    run = path.parent.parent.name
    made = datetime.fromtimestamp(path.stat().st_mtime).astimezone()
    return overview | {"run": run, "made": f"{made:%d %b %Y, %H:%M}"}
