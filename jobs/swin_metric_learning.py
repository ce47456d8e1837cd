"""Train Swin V2, or any backbone, so that images of one class lie near each other; for image-to-image search.

python jobs/swin_metric_learning.py --corpus data/products --partition gpu --precision bf16
sbatch slurm/swin_metric_learning.sh --corpus data/products --precision bf16
python jobs/sweep.py swin_metric_learning --over loss=triplet,multi-similarity --over learning_rate=3e-5,1e-4 --metric R@1 --corpus data/products
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from launch.entry import main
from launch.resources import Resources
from training.class_objective import ClassObjective
from training.learning import Learning, require

if TYPE_CHECKING:
    from corpora.corpus import Corpus, Split
    from models.swin import ImageEncoder, ImageInputs


@dataclass(frozen=True)
class Config(ClassObjective, Learning):
    epochs: float = 15
    """Times about as many images are seen as there are; with --sampler triplets 15 for each class."""
    batch_size: int = 128
    """Images of one optimizer step, over all processes together; triplets count as three."""
    learning_rate: float = 3e-5
    """Peak learning rate (AdamW)."""
    weight_decay: float = 1e-2
    """Weight decay of matrices; biases and LayerNorms have none."""
    corpus: Path = Path("data/products")
    """Corpus folder, of images with classes."""
    train_split: str = "train"
    """Split to learn from."""
    validation_split: str = "val"
    """Split that chooses the best checkpoint, by R@1 of each image against all others."""
    checkpoint: str = "scratch"
    """Checkpoint folder of this job to go on from, which brings backbone and head; or "scratch" for the backbone below."""
    backbone: str = "swinv2-base"
    """swinv2-tiny, -base or -large; any image model of the Hugging Face hub, torchvision:<model>[:<file>], efficientnet-lite0; "scratch", a small new ResNet."""
    image_size: int = 0
    """Side of the backbone's square input, in pixels; 0 = its own."""
    projection: int = 0
    """Width of a linear head (128, 256, 512 ...); 0 = none, the backbone's pooled vector."""
    normalise: bool = True
    """Unit vectors, compared by cosine; --no-normalise: as they are, compared by Euclidean distance, as published."""
    augmentation: Literal["none", "flip", "crop", "crop-colour"] = "crop"
    """flip: half the pictures mirrored, as published; crop: also a random part of each; crop-colour: also its light and colours."""
    layer_decay: float = 1.0
    """Each block of the backbone learns so many times as fast as the one above it."""
    average: float = 0.0
    """Keep a moving average of the weights, which moves by one minus this every step (0.999 ...), and search with it; 0 = none."""
    feedback: Path | None = None
    """JSONL file of users' judgements, a line {"query": id, "item": id, "relevant": true or false}, of any images outside of the validation split. One query in five is held out and measured with."""
    feedback_triplets: int = 8
    """Triplets of query, relevant and irrelevant item in a step, beside the batch."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, a third slower."""

    def __post_init__(self) -> None:
        Learning.__post_init__(self)
        ClassObjective.__post_init__(self)
        require(
            self,
            (
                "accumulate",
                self.accumulate == 1,
                "1: images are compared with the whole batch; --gradient-checkpointing saves memory",
            ),
            ("image_size", self.image_size >= 0, "0 or more"),
            ("projection", self.projection >= 0, "0 or more"),
            ("layer_decay", 0 < self.layer_decay <= 1, "above 0, at most 1"),
            ("feedback_triplets", self.feedback_triplets > 0, "1 or more"),
            ("average", 0 <= self.average < 1, "at least 0 and below 1"),
        )


RESOURCES = Resources(minutes=24 * 60)


def run(config: Config, run_dir: Path) -> None:
    import torch

    from corpora.corpus import Corpus
    from corpora.leakage import note_training
    from launch.attempt import current
    from launch.options import plain
    from launch.process_group import device_name, loader_workers
    from models import swin
    from models.swin_feedback import FeedbackBatches, open_feedback
    from models.swin_training import ClassBatches, Learner, SwinTrainee
    from ranking.image_validation import ImageValidation
    from training.class_losses import ClassLoss
    from training.class_sampling import make_sampler, numbered
    from training.loop import Data, Loop, process_group
    from training.sampling import Share

    corpus = Corpus(config.corpus)
    train, validation = corpus.split(config.train_split), corpus.split(config.validation_split)
    sampler, labels = make_sampler(config, config.batch_size, train.classes), numbered(train.classes)
    feedback = config.feedback and open_feedback(config.feedback, corpus, train, config.validation_split)
    accelerator = process_group(config.precision)
    torch.manual_seed(config.seed)
    encoder, inputs = _encoder(config, corpus)
    if config.gradient_checkpointing:
        encoder.trunk.save_memory()
    loss = ClassLoss(config, encoder.width, len(set(train.classes)), encoder.shape.normalise)
    learner = Learner(encoder, loss, config.average).to(device_name())
    rates = learner.rates(config.layer_decay, config.proxy_rate)
    batches = ClassBatches(train.image_ids, labels, corpus.images, encoder.trunk.prepare, config.augmentation)
    make = batches.batch
    if feedback:
        share = Share(accelerator.process_index, accelerator.num_processes)
        make = FeedbackBatches(batches, feedback.triplets, config.feedback_triplets, share).batch

    def ranker(split: Split) -> ImageValidation:
        return ImageValidation(learner.searched, inputs, split, config.precision, workers=loader_workers(), supervisor=current())

    def validate() -> dict[str, float]:
        agreement = ranker(feedback.judged).agreement(encoder.measure, feedback.held_out) if feedback else {}
        return ranker(validation).figures(encoder.measure) | agreement

    def save(folder: Path) -> None:
        swin.save(learner, encoder, folder)
        note_training(folder, train, config.checkpoint)
        if feedback:
            note_training(folder, feedback.judged, str(folder))

    if feedback:
        accelerator.print(f"{feedback}\nbefore: {validate()}", flush=True)
    data = Data(len(sampler), make, batches.describe, loader_workers(), sampler)
    trainee = SwinTrainee(learner)
    loop = Loop(
        trainee, data, config, run_dir, accelerator, save, validate, current(), lambda name: rates.get(name, 1.0), learner.follow
    )
    best = loop.run(config.wandb, plain(config))
    if accelerator.is_main_process:
        print(f"best validation R@1 {best['validation']['R@1']:.1f} at step {best['step']}: {run_dir / 'checkpoints' / 'best'}")


def _encoder(config: Config, corpus: Corpus) -> tuple[ImageEncoder, ImageInputs]:
    from models import swin
    from models.image_trunk import load_trunk

    if config.checkpoint != "scratch":
        return swin.load(config.checkpoint, corpus.images, frozen=False)
    trunk = load_trunk(swin.full_name(config.backbone), False, config.image_size)
    return swin.from_trunk(trunk, swin.Shape(config.projection, config.normalise), corpus.images)


if __name__ == "__main__":
    main(Config, RESOURCES, run)
