"""Small image files for tests."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image


def jpeg(number: int = 0, size: tuple[int, int] = (6, 4)) -> bytes:
    """A small JPEG that differs by number."""
    out = io.BytesIO()
    Image.new("RGB", size, (number * 7 % 256, 90, 200)).save(out, "JPEG")
    return out.getvalue()


def draw(*paths: Path) -> None:
    """A JPEG, or a PNG where the suffix says so, at each path."""
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6 + number % 5, 4), (number * 7 % 256, 90, 200)).save(path)
