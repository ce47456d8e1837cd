"""Rank a split with a trained dual encoder (DE) or SIAM: ranking file, metrics.json, table.

python jobs/guided_predict.py --corpus data/coco --checkpoint runs/guided_train/de/checkpoints/best --name de
sbatch slurm/guided_predict.sh --corpus data/coco --checkpoint runs/guided_train/siam/checkpoints/best --name siam
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from launch.entry import main
from launch.resources import Resources
from ranking.options import RankingOptions


@dataclass(frozen=True)
class Config(RankingOptions):
    checkpoint: str = "runs/guided_train/default/checkpoints/best"
    """Checkpoint folder of a DE or a SIAM; a run of guided_train leaves one in checkpoints/best."""
    regions: str = ""
    """SIAM: region features by extractor name; by default the only ones the corpus has."""
    pair_batch: int = 1 << 16
    """Pairs scored at once."""


RESOURCES = Resources(minutes=60)


def run(config: Config, run_dir: Path) -> None:
    from corpora.corpus import Corpus
    from launch.attempt import current
    from launch.process_group import device_name, loader_workers
    from launch.source import revision
    from models import guided
    from ranking.engine import Engine
    from ranking.predict import predict, ranked_split
    from training.loop import process_group

    corpus = Corpus(config.corpus)
    split = ranked_split(corpus, config, config.checkpoint)
    process_group(config.precision)
    model, inputs = guided.load(config.checkpoint, corpus, config.regions)
    engine = Engine(model.to(device_name()), inputs, split, config.precision, config.pair_batch, loader_workers(), current())
    predict(engine, model.kind.upper(), config.checkpoint, config, run_dir, revision())


if __name__ == "__main__":
    main(Config, RESOURCES, run)
