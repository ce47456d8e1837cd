"""ROUGE-L of every caption of a split against the captions of every image, for NDCG@25.

python jobs/rouge_relevance.py --corpus data/coco --split test
sbatch slurm/rouge_relevance.sh --corpus data/coco --split test
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from launch.entry import main
from launch.resources import Resources

if TYPE_CHECKING:
    from corpora.corpus import Split
    from corpora.pieces import Part, Pieces


@dataclass(frozen=True)
class Config:
    corpus: Path = Path("data/scenes")
    """Corpus folder; relevance-<split>-rouge-l.h5 is stored in it."""
    split: str = "test"
    """Split whose captions and images are compared."""
    part: str = ""
    """This job's part of the captions, such as 3/8; a job array sets it. Who ends last joins them."""


RESOURCES = Resources(gpus_per_node=0, minutes=60)
PIECE = 500
"""Captions of a piece of work."""
METHOD = "rouge-l"


def run(config: Config, run_dir: Path) -> None:
    from corpora.corpus import Corpus
    from corpora.pieces import Part, Pieces
    from ranking.relevance import read_relevance

    split, part = Corpus(config.corpus).split(config.split), Part.parse(config.part)
    path = config.corpus / f"relevance-{config.split}-{METHOD}.h5"
    if not path.exists():
        pieces = Pieces(path.with_suffix(".pieces"), -(-len(split.texts) // PIECE), {"method": METHOD, "digest": split.digest})
        _compute(split, pieces, part)
        if pieces.whole:
            _join(path, split, pieces)
    if path.exists():
        values = read_relevance(path, split).values
        print(f"ROUGE-L of {values.shape[0]} captions and {values.shape[1]} images, mean {values.mean():.4f}: {path}", flush=True)
    else:
        print(f"this share is done; {path} will stand when all are", flush=True)


def _compute(split: Split, pieces: Pieces, part: Part) -> None:
    import numpy as np

    from corpora.progress import progress
    from launch.attempt import current
    from ranking.rouge import RougeL

    rouge, missing = RougeL(split.texts, split.pairs, len(split.image_ids)), pieces.missing(part)
    for number in progress(missing, f"pieces of {PIECE} captions", len(missing)):
        rows = []
        for text in split.texts[number * PIECE : (number + 1) * PIECE]:
            current().beat()
            rows.append(rouge.against_images(text))
        current().check()
        with pieces.writing(number) as aside, aside.open("wb") as file:
            np.save(file, np.stack(rows), allow_pickle=False)
        current().saved(pieces.count - len(pieces.missing()))


def _join(path: Path, split: Split, pieces: Pieces) -> None:
    """Of several jobs that end at once any may be the last: the files are equal."""
    import numpy as np

    from ranking.relevance import write_relevance

    aside = pieces.folder / f"joined.{os.uname().nodename}.{os.getpid()}"
    try:
        blocks = (np.load(pieces.path(number), allow_pickle=False) for number in range(pieces.count))
        write_relevance(aside, METHOD, split, blocks)
        aside.replace(path)
    except OSError:
        if not path.exists():  # else another job has joined the pieces and removed them meanwhile
            raise
    pieces.remove()


if __name__ == "__main__":
    main(Config, RESOURCES, run)
