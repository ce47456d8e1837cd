"""Rank a split with a fine-tuned LXMERT: ranking file, metrics.json, table.

python jobs/lxmert_predict.py --corpus data/coco --checkpoint runs/lxmert_finetune/default/checkpoints/best
sbatch slurm/lxmert_predict.sh --corpus data/coco --checkpoint runs/lxmert_finetune/default/checkpoints/best --precision bf16
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from launch.entry import main
from launch.resources import Resources
from ranking.options import RankingOptions


@dataclass(frozen=True)
class Config(RankingOptions):
    checkpoint: str = "runs/lxmert_finetune/default/checkpoints/best"
    """Hub name or folder of an LXMERT checkpoint; a run of lxmert_finetune leaves one in checkpoints/best."""
    regions: str = ""
    """Region features by extractor name; by default the only ones the corpus has."""
    head: Literal["binary", "match"] = "match"
    """Head of a checkpoint that names none, as the public LXMERT, whose pretraining match head scores zero-shot."""


RESOURCES = Resources(minutes=24 * 60)


def run(config: Config, run_dir: Path) -> None:
    from corpora.corpus import Corpus
    from launch.attempt import current
    from launch.process_group import device_name, loader_workers
    from launch.source import revision
    from models import lxmert
    from ranking.engine import Engine
    from ranking.predict import predict, ranked_split
    from training.loop import process_group

    corpus = Corpus(config.corpus)
    split = ranked_split(corpus, config, config.checkpoint)
    process_group(config.precision)
    model, inputs = lxmert.load(config.checkpoint, corpus.regions(config.regions), config.head, trained=True)
    engine = Engine(model.to(device_name()), inputs, split, config.precision, config.pair_batch, loader_workers(), current())
    predict(engine, "LXMERT", config.checkpoint, config, run_dir, revision())


if __name__ == "__main__":
    main(Config, RESOURCES, run)
