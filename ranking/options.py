"""The options of every job that ranks a split; imports nothing heavy, so that --help stays fast."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class RankingOptions:
    """What to rank and how to count; a job's Config inherits them."""

    corpus: Path = Path("data/scenes")
    """Corpus folder."""
    split: str = "test"
    """Split to rank."""
    protocol: Literal["all", "fixed", "folds"] = "all"
    """all: the whole split (5k on COCO); fixed: the images listed in --image-ids (1k); folds: the mean over folds of --fold-size images."""
    image_ids: Path | None = None
    """File of image ids, one a line, for protocol fixed."""
    fold_size: int = 1000
    """Images of one fold, for protocol folds."""
    ties: Literal["pessimistic", "optimistic", "expected"] = "pessimistic"
    """How an irrelevant item with the same score counts: above, below or half-way."""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """Precision of the forward passes; bf16 is fast on recent GPUs, and rounds scores."""
    pair_batch: int = 512
    """Pairs scored at once; lower it if a cross-encoder runs out of memory."""
    allow_leakage: bool = False
    """Rank a split although the checkpoint was trained on images of it; every result says so."""
    relevance: tuple[Path, ...] = field(default=(), metadata={"identity": False})
    """Files of graded relevance for NDCG@25, in both directions: of jobs/rouge_relevance.py, or bare float32 values as TERN's (SPICE)."""
    npz: bool = False
    """Also write the original suite's .npz (logits, labels, i2t_ranks, t2i_ranks) beside the ranking file."""

    def __post_init__(self) -> None:
        if (self.image_ids is None) == (self.protocol == "fixed"):
            raise ValueError(
                f"--protocol {self.protocol} {'needs' if self.image_ids is None else 'takes no'} --image-ids, a file with one image id a line"
            )
        for name in ("fold_size", "pair_batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be 1 or more")
