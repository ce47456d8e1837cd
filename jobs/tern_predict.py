"""Rank a split with a trained TERN: ranking file, metrics.json, table.

python jobs/tern_predict.py --corpus data/coco --checkpoint runs/tern_train/default/checkpoints/best
python jobs/tern_predict.py --corpus data/coco --relevance data/coco/relevance-test-rouge-l.h5
sbatch slurm/tern_predict.sh --corpus data/coco --checkpoint runs/tern_train/default/checkpoints/best
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from launch.entry import main
from launch.resources import Resources
from ranking.options import RankingOptions


@dataclass(frozen=True)
class Config(RankingOptions):
    checkpoint: str = "runs/tern_train/default/checkpoints/best"
    """Folder of a TERN checkpoint; a run of tern_train leaves one in checkpoints/best."""
    regions: str = ""
    """Region features by extractor name; by default the only ones the corpus has."""
    text_features: Path | None = None
    """Folder of jobs/extract_texts.py that holds the split's texts, for a TERN that was trained on text features."""
    pair_batch: int = 1 << 20
    """Pairs scored at once: a pair is one product of two vectors."""


RESOURCES = Resources(minutes=60)


def run(config: Config, run_dir: Path) -> None:
    from corpora.corpus import Corpus
    from launch.attempt import current
    from launch.process_group import device_name, loader_workers
    from launch.source import revision
    from models import tern
    from models.text_features import TextFeatures
    from ranking.engine import Engine
    from ranking.predict import predict, ranked_split
    from training.loop import process_group

    corpus = Corpus(config.corpus)
    split = ranked_split(corpus, config, config.checkpoint)
    process_group(config.precision)
    features = None if config.text_features is None else TextFeatures(config.text_features)
    model, inputs = tern.load(config.checkpoint, corpus.regions(config.regions), features)
    engine = Engine(model.to(device_name()), inputs, split, config.precision, config.pair_batch, loader_workers(), current())
    predict(engine, "TERN", config.checkpoint, config, run_dir, revision())


if __name__ == "__main__":
    main(Config, RESOURCES, run)
