"""Search the images of a split by its own images, with a trained encoder or a backbone as it comes: vectors, metrics.json, table.

python jobs/swin_predict.py --corpus data/products --checkpoint runs/swin_metric_learning/default/checkpoints/best
python jobs/swin_predict.py --corpus data/products --checkpoint swinv2-base --no-normalise --published-map
sbatch slurm/swin_predict.sh --corpus data/products --checkpoint runs/swin_metric_learning/default/checkpoints/best
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from launch.entry import main
from launch.resources import Resources
from training.learning import require


@dataclass(frozen=True)
class Config:
    corpus: Path = Path("data/products")
    """Corpus folder, of images with classes."""
    split: str = "test"
    """Split to search."""
    checkpoint: str = "runs/swin_metric_learning/default/checkpoints/best"
    """Checkpoint folder of a run of swin_metric_learning; or the name of a backbone, as that job takes it."""
    image_size: int = 0
    """Of a backbone by name: side of its square input, in pixels; 0 = its own."""
    normalise: bool = True
    """Of a backbone by name: unit vectors, compared by cosine; --no-normalise: as they are, by Euclidean distance."""
    queries: Path | None = None
    """File of image ids, one a line, that are searched for among --gallery; by default every image among all others."""
    gallery: Path | None = None
    """File of image ids, one a line."""
    published_map: bool = False
    """Also give what the original printed as MAP, of which a perfect ranking has 50."""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """Precision of the forward passes."""
    allow_leakage: bool = False
    """Search a split although the checkpoint was trained on images of it; every result says so."""

    def __post_init__(self) -> None:
        require(
            self,
            ("queries", (self.queries is None) == (self.gallery is None), "given with --gallery, or both left out"),
            ("image_size", self.image_size >= 0, "0 or more"),
        )


RESOURCES = Resources(minutes=60)


def run(config: Config, run_dir: Path) -> None:
    from corpora.corpus import Corpus
    from corpora.leakage import leakage, refuse_leakage
    from launch.attempt import current
    from launch.process_group import device_name, loader_workers
    from launch.source import revision
    from models import swin
    from ranking.encoding import Encoder
    from ranking.evaluate import read_ids, write_result
    from ranking.image_retrieval import as_table, evaluate, of_ids
    from training.loop import process_group

    corpus = Corpus(config.corpus)
    split = corpus.split(config.split)
    if not config.allow_leakage:
        refuse_leakage(config.checkpoint, split, corpus.folder)
    accelerator = process_group(config.precision)
    model, inputs = swin.open_encoder(config.checkpoint, corpus.images, config.normalise, config.image_size)
    encoder = Encoder(model.to(device_name()), inputs, split, config.precision, workers=loader_workers(), supervisor=current())
    name = config.checkpoint if not swin.is_checkpoint(config.checkpoint) else model.trunk.name
    made_by = encoder.origin(name, config.checkpoint, str(config.corpus), "images", revision(), model.measure)
    vectors = encoder.vectors_of(run_dir / f"vectors-{config.split}", made_by)
    if not accelerator.is_main_process or vectors is None:
        return
    sides = [vectors if path is None else of_ids(vectors, read_ids(path)) for path in (config.queries, config.gallery)]
    classes = dict(zip(split.image_ids, split.classes, strict=True))
    result = evaluate(sides[0], sides[1], classes, leakage=leakage(config.checkpoint, split), published_map=config.published_map)
    write_result(run_dir / "metrics.json", result)
    print(f"{as_table(result)}\nvectors: {run_dir / f'vectors-{config.split}'}", flush=True)


if __name__ == "__main__":
    main(Config, RESOURCES, run)
