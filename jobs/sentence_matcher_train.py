"""Train a sentence matcher: heads over an image trunk and a language model, frozen or not.

python jobs/sentence_matcher_train.py --corpus data/coco --partition gpu
sbatch slurm/sentence_matcher_train.sh --corpus data/coco --config jobs/presets/sentence_matcher_published.yaml
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from launch.entry import main
from launch.resources import Resources
from training.learning import Learning, require

if TYPE_CHECKING:
    from corpora.corpus import Corpus, Split
    from models.sentence_matcher import SentenceMatcher
    from models.tower_inputs import TowerInputs


@dataclass(frozen=True)
class Config(Learning):
    learning_rate: float = 1e-3
    """Peak learning rate (AdamW); towers that learn want 1e-5 to 1e-4."""
    corpus: Path = Path("data/scenes")
    """Corpus folder."""
    train_split: str = "train"
    """Split to learn from."""
    validation_split: str = "val"
    """Split that chooses the best checkpoint; all of it is ranked."""
    checkpoint: str = "scratch"
    """Folder of a sentence matcher to go on from, which brings towers and heads; or "scratch" for new heads over the towers below."""
    image_tower: str = "microsoft/resnet-50"
    """Hub name or folder, torchvision:<model>[:<file>], efficientnet-lite0, or "scratch" for a small new ResNet."""
    image_size: int = 0
    """Side of the image tower's square input, in pixels; 0 = its own."""
    finetune_image: bool = False
    """Let the image tower learn; otherwise every picture goes through it once."""
    text_tower: str = "bert-base-uncased"
    """Hub name or folder of a BERT-like or left-to-right model, or "scratch" for a small new BERT."""
    layers: tuple[int, ...] = (-4, -3, -2, -1)
    """Layers of the text tower whose hidden states are concatenated; -1 is the last."""
    pool: Literal["auto", "first", "last", "mean", "pooler"] = "auto"
    """Token that stands for the text; auto: the first in the BERT family, the last of left-to-right models."""
    max_length: int = 75
    """Longest text in tokens."""
    finetune_text: bool = False
    """Let the text tower learn; otherwise every caption goes through it once."""
    hidden: tuple[int, ...] = (1024, 1024)
    """Widths of the layers between a tower and the common space; given without a number: none, a linear map."""
    projection: int = 512
    """Width of the common space."""
    dropout: float = 0.2
    """Dropout after every hidden layer."""
    input_dropout: float = 0.0
    """Dropout of the towers' vectors: what small corpora need."""
    loss: Literal["softmax", "hinge", "partner"] = "softmax"
    """softmax or hinge against all other items of the batch, both directions; partner: as published, each caption against one other image."""
    temperature: float = 0.07
    """With softmax: what cosines are divided by."""
    margin: float = 0.2
    """With hinge and partner: how far the own item must be ahead."""
    top_k_violations: int = 0
    """With hinge: only the so many worst negatives of each item count; 0 = all."""
    chunk: int = 0
    """Pairs encoded at once in a process, to save memory at the cost of a second forward pass; 0 = all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self,
            ("batch_size", self.batch_size > 1, "2 or more for in-batch negatives"),
            ("accumulate", self.accumulate == 1, "1: negatives come from the whole batch; --chunk saves memory"),
            ("chunk", self.chunk >= 0, "0 or more"),
            ("image_tower", self.image_tower != "scratch" or self.finetune_image, "trained if it is new: --finetune-image"),
            ("text_tower", self.text_tower != "scratch" or self.finetune_text, "trained if it is new: --finetune-text"),
            ("hidden", all(width > 0 for width in self.hidden), "widths of 1 or more"),
            ("projection", self.projection > 0, "1 or more"),
            ("dropout", 0 <= self.dropout < 1, "at least 0 and below 1"),
            ("input_dropout", 0 <= self.input_dropout < 1, "at least 0 and below 1"),
            ("temperature", self.temperature > 0, "above 0"),
            ("margin", self.margin >= 0, "0 or more"),
            ("top_k_violations", self.top_k_violations >= 0, "0 or more"),
            ("top_k_violations", self.loss == "hinge" or not self.top_k_violations, "0 without --loss hinge"),
        )


RESOURCES = Resources(minutes=12 * 60)


def run(config: Config, run_dir: Path) -> None:
    import torch

    from corpora.corpus import Corpus
    from corpora.leakage import note_training
    from launch.attempt import current
    from launch.process_group import device_name, loader_workers
    from models import sentence_matcher
    from models.sentence_matcher_training import SentenceMatcherTrainee
    from models.tower_inputs import TowerPairs, frozen_inputs
    from ranking.engine import Engine
    from ranking.fit import fit
    from training.loop import Data, process_group

    corpus = Corpus(config.corpus)
    train, validation = corpus.split(config.train_split), corpus.split(config.validation_split)
    accelerator = process_group(config.precision)
    torch.manual_seed(config.seed)
    model, live = _model(config, corpus, train)
    model.to(device_name())
    inputs = frozen_inputs(live, model.trunk, model.tower, (train, validation), run_dir / "cache")
    pairs = TowerPairs(train, inputs)
    engine = Engine(model, inputs, validation, config.precision, 1 << 20, workers=loader_workers(), supervisor=current())
    loss = (config.loss, config.temperature, config.margin, config.top_k_violations, config.chunk)

    def save(folder: Path) -> None:
        sentence_matcher.save(model, folder)
        note_training(folder, train, config.checkpoint)

    data = Data(len(train.pairs), pairs.batch, pairs.describe, loader_workers())
    fit(SentenceMatcherTrainee(model, *loss), data, engine, config, run_dir, accelerator, save)


def _model(config: Config, corpus: Corpus, train: Split) -> tuple[SentenceMatcher, TowerInputs]:
    from models import sentence_matcher
    from models.image_trunk import load_trunk
    from models.sentence_matcher import HeadShape
    from models.text_tower import load_text_tower

    image_frozen, text_frozen = not config.finetune_image, not config.finetune_text
    if config.checkpoint != "scratch":
        return sentence_matcher.load(config.checkpoint, corpus.images, image_frozen, text_frozen)
    trunk = load_trunk(config.image_tower, image_frozen, config.image_size)
    pool = None if config.pool == "auto" else config.pool
    tower = load_text_tower(config.text_tower, config.layers, pool, text_frozen, config.max_length, texts=train.texts)
    shape = HeadShape(config.hidden, config.projection, config.dropout, config.input_dropout)
    return sentence_matcher.from_scratch(trunk, tower, shape, corpus.images)


if __name__ == "__main__":
    main(Config, RESOURCES, run)
