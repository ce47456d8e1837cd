"""Encode the images or the texts of a split once, by a dual encoder: a folder of vectors, for search at any scale.

As a Slurm array, every element encodes its part.

python jobs/encode.py --corpus data/open-images --split test --kind images --checkpoint runs/guided_train/de/checkpoints/best --folder vectors/open-images
python jobs/encode.py --corpus data/reddit --kind texts --checkpoint runs/guided_train/de/checkpoints/best --folder vectors/reddit
sbatch slurm/encode.sh --corpus data/reddit --kind texts --checkpoint runs/guided_train/de/checkpoints/best --folder vectors/reddit
sbatch --array=1-8 slurm/encode.sh --corpus data/reddit --kind texts --checkpoint runs/guided_train/de/checkpoints/best --folder vectors/reddit
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from launch.entry import main
from launch.resources import Resources


@dataclass(frozen=True)
class Config:
    corpus: Path = Path("data/scenes")
    """Corpus folder; of texts alone too."""
    split: str = "test"
    """Split to encode."""
    kind: Literal["images", "texts"] = "images"
    """What to encode."""
    checkpoint: str = "openai/clip-vit-base-patch32"
    """Hub name or folder of a dual encoder: CLIP, DE, TERN or the sentence matcher."""
    folder: Path = Path("vectors/scenes-images")
    """Vectors folder to make. One made by the same options is left as it stands."""
    regions: str = ""
    """Region features by extractor name, for a model that reads them; by default the only ones the corpus has."""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """Precision of the forward passes."""
    store_as: Literal["float32", "float16"] = "float32"
    """Numbers of the stored vectors; float16 takes half of the room."""
    part: str = ""
    """This job's part of the items, such as 3/8; a job array sets it. Who ends last joins them."""


RESOURCES = Resources(minutes=24 * 60)


def run(config: Config, run_dir: Path) -> None:
    from corpora.corpus import Corpus, CorpusError
    from corpora.pieces import Part
    from launch.attempt import current
    from launch.process_group import device_name, loader_workers
    from launch.source import revision
    from models.scorer import open_scorer
    from ranking.encoding import Encoder
    from training.loop import process_group
    from training.processes import is_main

    corpus, part = Corpus(config.corpus), Part.parse(config.part)
    split = corpus.split(config.split)
    if not (split.image_ids if config.kind == "images" else split.text_ids):
        raise CorpusError(f"{corpus.folder}: split {split.name} has no {config.kind} to encode")
    process_group(config.precision)
    name, model, inputs = open_scorer(config.checkpoint, corpus, config.regions)
    encoder = Encoder(model.to(device_name()), inputs, split, config.precision, workers=loader_workers(), supervisor=current())
    origin = encoder.origin(name, config.checkpoint, str(config.corpus), config.kind, revision())
    vectors = encoder.vectors_of(config.folder, origin, config.store_as, part)
    if is_main():
        stands = f"{len(vectors):,} vectors of {vectors.dimension}: {config.folder}" if vectors else ""
        print(stands or f"this share is done; {config.folder} will stand when all are", flush=True)


if __name__ == "__main__":
    main(Config, RESOURCES, run)
