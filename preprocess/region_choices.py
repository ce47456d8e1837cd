"""What a user can choose about region features that come from other programs; light enough for a job's options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Format = Literal["auto", "lxmert-tsv", "bottom-up-tsv", "vinvl-tsv", "npz", "npz-folder", "tern-folder", "hdf5", "region-file"]


@dataclass(frozen=True)
class Choices:
    """What of the sources is kept, and how."""

    format: Format = "auto"
    """Layout of the sources; by default each is recognised by its content."""
    regions: int = 0
    """Keep so many regions of each image: the best by score, or the first where there are no scores; images that have fewer are padded."""
    exact: bool = False
    """Keep features as float32 and boxes as float64 (twice the space), so that an export equals its source; otherwise features are rounded to float16."""
    class_names: Path | None = None
    """File of class names, one a line in the order of their numbers, such as objects_vocab.txt."""
    attribute_names: Path | None = None
    """File of attribute names, such as attributes_vocab.txt."""
