"""Fine-tune LXMERT for image-text retrieval on a corpus's region features.

python jobs/lxmert_finetune.py --corpus data/coco --partition gpu
sbatch slurm/lxmert_finetune.sh --corpus data/coco --epochs 3
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
    from models.lxmert import Lxmert, LxmertInputs


@dataclass(frozen=True)
class Config(Learning):
    corpus: Path = Path("data/scenes")
    """Corpus folder."""
    regions: str = ""
    """Region features by extractor name; by default the only ones the corpus has."""
    train_split: str = "train"
    """Split to learn from."""
    validation_split: str = "val"
    """Split that chooses the best checkpoint."""
    validation_images: int = 1000
    """Images of the validation split to rank, from its start; 0 = all. A cross-encoder scores every pair."""
    checkpoint: str = "unc-nlp/lxmert-base-uncased"
    """Hub name or folder of LXMERT weights, or "scratch" for a new model of the shape below."""
    language: str = ""
    """With scratch: hub name or folder of a BERT checkpoint for the language layers, tokenizer and width."""
    freeze_language: bool = False
    """Leave the language layers as they are; the states of all captions are then computed once."""
    width: int = 768
    """With scratch: hidden width."""
    heads: int = 12
    """With scratch: attention heads."""
    language_layers: int = 9
    """With scratch: language layers."""
    vision_layers: int = 5
    """With scratch: vision layers."""
    cross_layers: int = 5
    """With scratch: cross layers."""
    dropout: float = 0.1
    """With scratch: dropout."""
    head: Literal["binary", "match"] = "binary"
    """binary: a fresh two-layer head; match: the pretraining match head."""
    formulation: Literal["binary", "contrastive"] = "binary"
    """binary: is this pair aligned? contrastive: scores pairs within the batch, both directions."""
    prob_unaligned: float | None = None
    """binary: share of pairs made unaligned, between 0 and 1; by default every pair comes with one unaligned pair."""
    loss: Literal["softmax", "hinge"] = "softmax"
    """contrastive: cross-entropy over the candidates, or margin violations."""
    negatives: int = 0
    """contrastive: other items of the batch scored against each item; 0 = all, so B x B pairs."""
    chunk: int = 0
    """contrastive: items encoded and pairs scored at once in a process, to save memory at the cost of a second forward pass; 0 = all."""
    margin: float = 0.2
    """contrastive, hinge: margin."""
    top_k_violations: int = 0
    """contrastive, hinge: count only the k worst violations of each query; 0 = all."""
    pair_batch: int = 512
    """Pairs scored at once in validation."""

    def __post_init__(self) -> None:
        super().__post_init__()
        rules = [("chunk", self.chunk >= 0, "0 or more")]
        if self.formulation == "contrastive":
            rules += [
                ("batch_size", self.batch_size > 1, "2 or more for in-batch negatives"),
                ("negatives", 0 <= self.negatives < self.batch_size, f"at least 0 and below --batch-size {self.batch_size}"),
                ("accumulate", self.accumulate == 1, "1: negatives come from the whole batch; --chunk saves memory"),
            ]
        else:
            rules += [("chunk", self.chunk == 0, "0 for --formulation binary; --accumulate saves memory")]
        require(self, *rules)


RESOURCES = Resources(minutes=24 * 60)


def run(config: Config, run_dir: Path) -> None:
    import torch

    from corpora.corpus import Corpus
    from corpora.leakage import note_training
    from launch.attempt import current
    from launch.process_group import device_name, loader_workers
    from models import lxmert
    from models.lxmert_training import LxmertPairs, LxmertTrainee, freeze
    from ranking.engine import Engine
    from ranking.fit import fit
    from training.loop import Data, process_group

    corpus = Corpus(config.corpus)
    train, validation = corpus.split(config.train_split), corpus.split(config.validation_split)
    if config.validation_images:
        validation = validation.subset(validation.image_ids[: config.validation_images])
    accelerator = process_group(config.precision)
    torch.manual_seed(config.seed)
    model, inputs = _model(config, corpus, train)
    states = freeze(model.to(device_name()), inputs, train, run_dir / "cache") if config.freeze_language else None
    pairs = LxmertPairs(train, inputs, states, config.formulation, config.prob_unaligned)
    contrast = (config.loss, config.margin, config.top_k_violations, config.negatives, config.chunk)
    trainee = LxmertTrainee(model, config.formulation, *contrast)
    engine = Engine(model, inputs, validation, config.precision, config.pair_batch, supervisor=current())

    def save(folder: Path) -> None:
        lxmert.save(model, inputs, folder)
        note_training(folder, train, config.checkpoint)

    data = Data(len(train.pairs), pairs.batch, pairs.describe, loader_workers())
    fit(trainee, data, engine, config, run_dir, accelerator, save)


def _model(config: Config, corpus: Corpus, train: Split) -> tuple[Lxmert, LxmertInputs]:
    from models import lxmert
    from models.tokenizer import learn_tokenizer

    regions = corpus.regions(config.regions)
    if config.checkpoint != "scratch":
        return lxmert.load(config.checkpoint, regions, config.head)
    tokenizer = None if config.language else learn_tokenizer(train.texts)
    shape = lxmert.LxmertShape(
        config.width, config.heads, config.language_layers, config.vision_layers, config.cross_layers, config.dropout
    )
    return lxmert.from_scratch(shape, regions, tokenizer, config.language, config.head)


if __name__ == "__main__":
    main(Config, RESOURCES, run)
