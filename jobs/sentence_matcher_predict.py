"""Rank a split with a trained sentence matcher: ranking file, metrics.json, table.

python jobs/sentence_matcher_predict.py --corpus data/coco --checkpoint runs/sentence_matcher_train/default/checkpoints/best
sbatch slurm/sentence_matcher_predict.sh --corpus data/coco --checkpoint runs/sentence_matcher_train/default/checkpoints/best
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from launch.entry import main
from launch.resources import Resources
from ranking.options import RankingOptions


@dataclass(frozen=True)
class Config(RankingOptions):
    checkpoint: str = "runs/sentence_matcher_train/default/checkpoints/best"
    """Folder of a sentence matcher; a run of sentence_matcher_train leaves one in checkpoints/best."""
    pair_batch: int = 1 << 20
    """Pairs scored at once: a pair is one product of two vectors."""


RESOURCES = Resources(minutes=60)


def run(config: Config, run_dir: Path) -> None:
    from corpora.corpus import Corpus
    from launch.attempt import current
    from launch.process_group import device_name, loader_workers
    from launch.source import revision
    from models import sentence_matcher
    from ranking.engine import Engine
    from ranking.predict import predict, ranked_split
    from training.loop import process_group

    corpus = Corpus(config.corpus)
    split = ranked_split(corpus, config, config.checkpoint)
    process_group(config.precision)
    model, inputs = sentence_matcher.load(config.checkpoint, corpus.images)
    engine = Engine(model.to(device_name()), inputs, split, config.precision, config.pair_batch, loader_workers(), current())
    predict(engine, "sentence matcher", config.checkpoint, config, run_dir, revision())


if __name__ == "__main__":
    main(Config, RESOURCES, run)
