"""Rank a split with any CLIP checkpoint: ranking file, metrics.json, table.

python jobs/clip_zero_shot.py --corpus data/coco --checkpoint openai/clip-vit-base-patch32
sbatch slurm/clip_zero_shot.sh --corpus data/coco --protocol fixed --image-ids data/coco/test_1k.txt
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from launch.entry import main
from launch.resources import Resources
from ranking.options import RankingOptions


@dataclass(frozen=True)
class Config(RankingOptions):
    checkpoint: str = "openai/clip-vit-base-patch32"
    """Hub name or folder of a CLIP checkpoint; a run of clip_finetune leaves one in checkpoints/best."""
    pair_batch: int = 1 << 20
    """Pairs scored at once: a pair is one product of two vectors."""


RESOURCES = Resources(minutes=60)


def run(config: Config, run_dir: Path) -> None:
    from corpora.corpus import Corpus
    from launch.attempt import current
    from launch.process_group import device_name, loader_workers
    from launch.source import revision
    from models import clip
    from ranking.engine import Engine
    from ranking.predict import predict, ranked_split
    from training.loop import process_group

    corpus = Corpus(config.corpus)
    split = ranked_split(corpus, config, config.checkpoint)
    process_group(config.precision)
    model, inputs = clip.load(config.checkpoint, corpus.images)
    engine = Engine(model.to(device_name()), inputs, split, config.precision, config.pair_batch, loader_workers(), current())
    predict(engine, "CLIP", config.checkpoint, config, run_dir, revision())


if __name__ == "__main__":
    main(Config, RESOURCES, run)
