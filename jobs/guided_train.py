"""Train a dual encoder (DE), or SIAM over a trained one, on a corpus's images and captions.

python jobs/guided_train.py --corpus data/coco --partition gpu --name de
python jobs/guided_train.py --corpus data/coco --partition gpu --dual-encoder runs/guided_train/de/checkpoints/best --name siam
sbatch slurm/guided_train.sh --corpus data/coco --epochs 10
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from launch.entry import main
from launch.resources import Resources
from training.learning import Learning, require

if TYPE_CHECKING:
    from corpora.corpus import Corpus, Split
    from models.guided import DualEncoder


@dataclass(frozen=True)
class Config(Learning):
    corpus: Path = Path("data/scenes")
    """Corpus folder."""
    train_split: str = "train"
    """Split to learn from, all of it; its captions are all used."""
    validation_split: str = "val"
    """Split that chooses the best checkpoint."""
    dual_encoder: str = ""
    """Checkpoint folder of a trained dual encoder: train SIAM over it. By default a new dual encoder is trained."""
    regions: str = ""
    """SIAM: region features by extractor name; by default the only ones the corpus has."""
    start: Literal["dual", "random"] = "dual"
    """SIAM over the dual encoder's own image tower: begin with its image layer and no modulation, or with random layers as published."""
    siam_image_tower: str = ""
    """SIAM: an image tower of its own, such as microsoft/resnet-101 in the original; by default the dual encoder's."""
    image_tower: str = "microsoft/resnet-50"
    """Of a dual encoder: hub name or folder, torchvision:<model>[:<file>], efficientnet-lite0, or "scratch" for a small new ResNet."""
    image_size: int = 0
    """Side of a new image tower's square input, in pixels; 0 = its own."""
    finetune_image: bool = False
    """Let a dual encoder's image tower learn; otherwise every picture goes through it once."""
    text_tower: str = "bert-base-uncased"
    """Of a dual encoder: hub name or folder of a BERT-like or left-to-right model, or "scratch" for a small new BERT."""
    pool: Literal["auto", "pooler", "first", "last", "mean"] = "auto"
    """What stands for the text: the pooler's output as published, or a token; auto: the first in the BERT family, the last of left-to-right models."""
    max_length: int = 64
    """Longest text in tokens."""
    finetune_text: bool = False
    """Let a dual encoder's text tower learn; otherwise every caption goes through it once."""
    text_rate: float = 1.0
    """Learning rate of a dual encoder's text side, as a multiple of --learning-rate."""
    projection: int = 512
    """Width of a dual encoder's common space; the original tried 256, 512 and 1024."""
    input_dropout: float = 0.4
    """Dropout of the towers' vectors, and of SIAM's regions; the original had none."""
    temperature: float = 0.05
    """Divides the cosines in the loss; 1 as published."""
    symmetric: bool = True
    """The loss also ranks texts for each image; published is images for each text alone."""
    chunk: int = 0
    """Pairs encoded at once in a process, to save memory at the cost of a second forward pass; 0 = all."""
    epochs: float = 10
    """Times every training caption is seen."""
    learning_rate: float = 1e-3
    """Peak learning rate (AdamW); with towers that learn, 1e-5 to 1e-4."""
    weight_decay: float = 0.01
    """Weight decay of matrices; biases and LayerNorms have none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        finetune = self.finetune_image or self.finetune_text
        require(
            self,
            ("batch_size", self.batch_size > 1, "2 or more for in-batch negatives"),
            ("accumulate", self.accumulate == 1, "1: negatives come from the whole batch; --chunk saves memory"),
            ("chunk", self.chunk >= 0, "0 or more"),
            ("image_tower", self.image_tower != "scratch" or self.finetune_image, "trained if it is new: --finetune-image"),
            ("text_tower", self.text_tower != "scratch" or self.finetune_text, "trained if it is new: --finetune-text"),
            ("text_rate", 0 < self.text_rate < math.inf, "above 0"),
            ("projection", self.projection > 0, "1 or more"),
            ("input_dropout", 0 <= self.input_dropout < 1, "at least 0 and below 1"),
            ("temperature", self.temperature > 0, "above 0"),
            ("dual_encoder", not (self.dual_encoder and finetune), "left out with towers that learn: SIAM's are frozen"),
        )


RESOURCES = Resources(minutes=12 * 60)


def run(config: Config, run_dir: Path) -> None:
    import torch

    from corpora.corpus import Corpus
    from corpora.leakage import note_training
    from launch.attempt import current
    from launch.process_group import device_name, loader_workers
    from models import guided
    from models.guided_training import TEXT_SIDE, GuidedTrainee
    from models.tower_inputs import TowerPairs, frozen_inputs
    from ranking.engine import Engine
    from ranking.fit import fit
    from training.loop import Data, process_group

    corpus = Corpus(config.corpus)
    train, validation = corpus.split(config.train_split), corpus.split(config.validation_split)
    accelerator = process_group(config.precision)
    torch.manual_seed(config.seed)
    model = _model(config, corpus, train).to(device_name())
    towers = frozen_inputs(guided.tower_inputs(model, corpus), model.trunk, model.tower, [train, validation], run_dir / "cache")
    inputs = guided.with_regions(model, towers, corpus, config.regions)
    pairs = TowerPairs(train, inputs)
    engine = Engine(
        model, inputs, validation, config.precision, pair_batch=1 << 16, workers=loader_workers(), supervisor=current()
    )

    def rate(name: str) -> float:
        return config.text_rate if name.startswith(TEXT_SIDE) else 1.0

    def save(folder: Path) -> None:
        guided.save(model, folder)
        note_training(folder, train, config.dual_encoder)

    data = Data(len(train.pairs), pairs.batch, pairs.describe, loader_workers())
    trainee = GuidedTrainee(model, config.temperature, config.symmetric, config.chunk)
    fit(trainee, data, engine, config, run_dir, accelerator, save, rate)


def _model(config: Config, corpus: Corpus, train: Split) -> DualEncoder:
    from models import guided
    from models.image_trunk import load_trunk
    from models.text_tower import load_text_tower

    if config.dual_encoder:
        dual, width = guided.read(config.dual_encoder), corpus.regions(config.regions).width
        own = load_trunk(config.siam_image_tower, size=config.image_size) if config.siam_image_tower else None
        model = guided.siam_over(dual, width, own, config.input_dropout)
        if own is None and config.start == "dual":
            guided.start_as(model, dual, guided.tower_inputs(dual, corpus).images(train.image_ids[:64]))
        return model
    trunk = load_trunk(config.image_tower, not config.finetune_image, config.image_size)
    pool = None if config.pool == "auto" else config.pool
    tower = load_text_tower(
        config.text_tower, pool=pool, frozen=not config.finetune_text, max_length=config.max_length, texts=train.texts
    )
    return guided.DualEncoder(trunk, tower, config.projection, config.input_dropout)


if __name__ == "__main__":
    main(Config, RESOURCES, run)
