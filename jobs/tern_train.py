"""Train TERN on a corpus's region features and captions.

python jobs/tern_train.py --corpus data/coco --partition gpu
python jobs/tern_train.py --config jobs/presets/tern_flickr.yaml --corpus data/flickr30k
sbatch slurm/tern_train.sh --corpus data/coco --epochs 10
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from launch.entry import main
from launch.resources import Resources
from training.learning import Learning, require
from training.objective import Objective

if TYPE_CHECKING:
    from corpora.corpus import Corpus, Split
    from models.tern import Tern, TernInputs, TernShape

Aggregation = Literal["first", "mean", "sum", "sum-mlp", "gated", "gru", "encoder"]


@dataclass(frozen=True)
class Config(Objective, Learning):
    corpus: Path = Path("data/scenes")
    """Corpus folder."""
    regions: str = ""
    """Region features by extractor name; by default the only ones the corpus has."""
    train_split: str = "train"
    """Split to learn from."""
    validation_split: str = "val"
    """Split that chooses the best checkpoint."""
    epochs: float = 30
    """Times every training caption is seen; with --one-caption, every image."""
    batch_size: int = 80
    """Samples of one optimizer step, over all processes together: in-batch negatives come from all of them."""
    learning_rate: float = 2e-6
    """Peak learning rate (AdamW)."""
    weight_decay: float = 0.0
    """Weight decay of matrices; biases and LayerNorms have none."""
    warmup: float = 0.005
    """Share of the steps in which the learning rate rises from zero; the default is about the paper's 1,000 steps of 212,000 on COCO."""
    decay: Literal["linear", "cosine", "none"] = "none"
    """How the learning rate falls to zero after the warm-up."""
    clip: float = 2.0
    """Largest gradient norm; 0 = no clipping."""
    one_caption: bool = False
    """A sample is an image with one of its captions, drawn anew every epoch, instead of a caption with its image."""
    chunk: int = 0
    """Pairs encoded at once in a process, to save memory at the cost of a second forward pass; 0 = all."""
    preset: Literal["paper", "flickr"] = "paper"
    """paper: boxes concatenated, 4 layers 2,048 wide, 2 shared layers, first position; flickr: 4 pre-norm layers 768 wide, boxes added, mean."""
    text: str = "bert-base-uncased"
    """Hub name or folder of the text tower, or "scratch" for a small new one."""
    text_depth: int = 6
    """Layers of the text tower to keep, from the first; 0 = all."""
    freeze_text: bool = False
    """Leave the text tower as it is; the states of all texts are then computed once."""
    text_features: Path | None = None
    """Folder that jobs/extract_texts.py wrote, to read instead of a text tower; the options of the tower then do nothing."""
    width: int | None = None
    """Width of the vision encoder; like all below, by default as the preset has it."""
    embedding: int | None = None
    """Width of the common space."""
    vision_layers: int | None = None
    """Layers of the vision encoder."""
    text_layers: int | None = None
    """Layers of a text encoder over the tower's states."""
    shared_layers: int | None = None
    """Layers through which both sides go."""
    separate: bool = False
    """Give each side shared layers of its own."""
    heads: int | None = None
    """Attention heads of every layer."""
    feed_forward: int | None = None
    """Width of every layer's feed-forward part."""
    dropout: float | None = None
    """Dropout of every layer."""
    input_dropout: float = 0.0
    """Share of region and of text features left out, the same for all regions of an image; 0.3 or more where images are few."""
    boxes: Literal["concat", "add"] | None = None
    """Whether boxes are concatenated to their features, or projected and added."""
    image_aggregation: Aggregation | None = None
    """How regions become one vector; encoder: their mean before the shared layers."""
    text_aggregation: Aggregation | None = None
    """The same for words."""
    measure: Literal["cosine", "order"] | None = None
    """Score: cosine, or how far a text goes beyond the image (order embeddings)."""
    relative: int = 0
    """Relative positions up to this distance in every layer (Shaw et al. 2018); 0 = none."""

    def __post_init__(self) -> None:
        Learning.__post_init__(self)
        Objective.__post_init__(self)
        require(
            self,
            ("batch_size", self.batch_size > 1, "2 or more for in-batch negatives"),
            ("accumulate", self.accumulate == 1, "1: negatives come from the whole batch; --chunk saves memory"),
            ("chunk", self.chunk >= 0, "0 or more"),
            ("text_depth", self.text_depth >= 0, "0 or more"),
            ("input_dropout", 0 <= self.input_dropout < 1, "at least 0 and below 1"),
            ("relative", self.relative >= 0, "0 or more"),
            ("measure", self.measure != "order" or self.loss == "hinge", "cosine for any --loss but hinge"),
        )


RESOURCES = Resources(minutes=24 * 60)


def run(config: Config, run_dir: Path) -> None:
    import torch

    from corpora.corpus import Corpus
    from corpora.leakage import note_training
    from launch.attempt import current
    from launch.process_group import device_name, loader_workers
    from models import tern
    from models.tern_training import TernPairs, TernTrainee, freeze_text
    from ranking.engine import Engine
    from ranking.fit import fit
    from training.loop import Data, process_group

    corpus = Corpus(config.corpus)
    train, validation = corpus.split(config.train_split), corpus.split(config.validation_split)
    accelerator = process_group(config.precision)
    torch.manual_seed(config.seed)
    model, inputs = _model(config, corpus, train)
    model.to(device_name())
    read = inputs
    if config.freeze_text and config.text_features is None:
        features = freeze_text(model, config.text, [train, validation], run_dir / "cache", current())
        read = tern.TernInputs(inputs.regions, features)
    pairs = TernPairs(train, read, config.one_caption)
    engine = Engine(model, read, validation, config.precision, 1 << 20, loader_workers(), current())

    def save(folder: Path) -> None:
        tern.save(model, inputs, folder)
        note_training(folder, train, config.text)

    data = Data(pairs.samples, pairs.batch, pairs.describe, loader_workers())
    fit(TernTrainee(model, config, config.chunk), data, engine, config, run_dir, accelerator, save)


def _model(config: Config, corpus: Corpus, train: Split) -> tuple[Tern, TernInputs]:
    from models import tern
    from models.text_features import TextFeatures
    from models.text_tower import load_text_tower

    regions, shape = corpus.regions(config.regions), _shape(config)
    if config.text_features is not None:
        return tern.from_scratch(shape, regions, TextFeatures(config.text_features))
    depth = 0 if config.text == "scratch" else config.text_depth
    tower = load_text_tower(config.text, frozen=config.freeze_text, depth=depth, texts=train.texts)
    return tern.from_scratch(shape, regions, tower)


def _shape(config: Config) -> TernShape:
    """The preset, with what the options change."""
    from dataclasses import fields, replace

    from models.tern import PRESETS

    asked = {field.name: getattr(config, field.name, None) for field in fields(PRESETS[config.preset])}
    return replace(PRESETS[config.preset], **{name: value for name, value in asked.items() if value is not None})


if __name__ == "__main__":
    main(Config, RESOURCES, run)
