"""How the images of a corpus are packed: options of every job that makes one; imports nothing heavy, so that --help stays fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Packing:
    """`part` and `workers` change nothing in the corpus, only who does the work. A job's Config inherits them."""

    bad_images: Literal["stop", "skip"] = "stop"
    """What to do about images that are missing or damaged: stop, or leave them out with their captions."""
    short_side: int = 0
    """Shrink images whose shorter side is longer than this many pixels, as JPEG of quality 95; 0 keeps every file as it is."""
    part: str = ""
    """This job's part of the images, such as 3/8; whoever finds all parts done joins them."""
    workers: int = 0
    """Processes that read and decode; 0 is one a core."""

    def __post_init__(self) -> None:
        for name in ("short_side", "workers"):
            if getattr(self, name) < 0:
                raise ValueError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be 0 or more")
