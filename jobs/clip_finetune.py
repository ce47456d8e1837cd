"""Fine-tune CLIP, or train a small one from scratch, on a corpus's images and captions.

python jobs/clip_finetune.py --corpus data/coco --partition gpu
sbatch slurm/clip_finetune.sh --corpus data/coco --epochs 3
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from launch.entry import main
from launch.resources import Resources
from training.learning import Learning, require

if TYPE_CHECKING:
    from corpora.corpus import Corpus, Split
    from models.clip import Clip, ClipInputs


@dataclass(frozen=True)
class Config(Learning):
    corpus: Path = Path("data/scenes")
    """Corpus folder."""
    train_split: str = "train"
    """Split to learn from."""
    validation_split: str = "val"
    """Split that chooses the best checkpoint."""
    checkpoint: str = "openai/clip-vit-base-patch32"
    """Hub name or folder of CLIP weights, or "scratch" for a small new model of the shape below."""
    image_size: int = 96
    """With scratch: side of the square image, in pixels."""
    patch: int = 12
    """With scratch: side of a patch, in pixels."""
    width: int = 128
    """With scratch: hidden width of both towers."""
    layers: int = 3
    """With scratch: layers of each tower."""
    heads: int = 4
    """With scratch: attention heads."""
    projection: int = 128
    """With scratch: width of the common space."""
    chunk: int = 0
    """Pairs encoded at once in a process, to save memory at the cost of a second forward pass; 0 = all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self,
            ("batch_size", self.batch_size > 1, "2 or more for in-batch negatives"),
            ("accumulate", self.accumulate == 1, "1: negatives come from the whole batch; --chunk saves memory"),
            ("chunk", self.chunk >= 0, "0 or more"),
        )


RESOURCES = Resources(minutes=12 * 60)


def run(config: Config, run_dir: Path) -> None:
    import torch

    from corpora.corpus import Corpus
    from corpora.leakage import note_training
    from launch.attempt import current
    from launch.process_group import device_name, loader_workers
    from models import clip
    from models.clip_training import ClipPairs, ClipTrainee
    from ranking.engine import Engine
    from ranking.fit import fit
    from training.loop import Data, process_group

    corpus = Corpus(config.corpus)
    train, validation = corpus.split(config.train_split), corpus.split(config.validation_split)
    accelerator = process_group(config.precision)
    torch.manual_seed(config.seed)
    model, inputs = _model(config, corpus, train)
    pairs = ClipPairs(train, inputs)
    engine = Engine(model.to(device_name()), inputs, validation, config.precision, workers=loader_workers(), supervisor=current())

    def save(folder: Path) -> None:
        clip.save(model, inputs, folder)
        note_training(folder, train, config.checkpoint)

    data = Data(len(train.pairs), pairs.batch, pairs.describe, loader_workers())
    fit(ClipTrainee(model, config.chunk), data, engine, config, run_dir, accelerator, save)


def _model(config: Config, corpus: Corpus, train: Split) -> tuple[Clip, ClipInputs]:
    from models import clip
    from models.tokenizer import learn_tokenizer

    if config.checkpoint != "scratch":
        return clip.load(config.checkpoint, corpus.images)
    shape = clip.ClipShape(config.image_size, config.patch, config.width, config.layers, config.heads, config.projection)
    return clip.from_scratch(shape, corpus.images, learn_tokenizer(train.texts))


if __name__ == "__main__":
    main(Config, RESOURCES, run)
