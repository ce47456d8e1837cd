"""What every source of a corpus is turned into before its images are read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from corpora.corpus import Caption


@dataclass(frozen=True, slots=True)
class Entry:
    """One image of a source and what is said of it; `source` as in corpora.corpus.ImageRecord."""

    id: str
    split: str
    path: Path
    captions: tuple[Caption, ...] = ()
    class_name: str = ""
    source: str = ""
