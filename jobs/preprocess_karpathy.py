"""Turn Karpathy's caption file (COCO, Flickr30k, Flickr8k) and its images into a corpus folder.

As a Slurm array, every element packs its part of the images, and the last one makes the corpus.

python jobs/preprocess_karpathy.py --annotations downloads/coco/dataset_coco.json --images downloads/coco --folder data/coco
sbatch slurm/preprocess_karpathy.sh --annotations downloads/coco/dataset_coco.json --images downloads/coco --folder data/coco
sbatch --array=1-8 slurm/preprocess_karpathy.sh --annotations downloads/coco/dataset_coco.json --images downloads/coco --folder data/coco
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from launch.entry import main
from launch.resources import Resources
from preprocess.packing import Packing


@dataclass(frozen=True)
class Config(Packing):
    annotations: Path = Path("downloads/coco/dataset_coco.json")
    """Caption file in Karpathy's layout, such as dataset_coco.json."""
    images: Path = Path("downloads/coco")
    """Folder of the images; for COCO the one that holds train2014 and val2014."""
    folder: Path = Path("data/coco")
    """Corpus folder to make. A corpus made by the same options is left as it stands."""
    restval: Literal["train", "keep", "drop"] = "train"
    """COCO's 30,504 restval images: part of train, a split of their own, or left out."""
    captions_an_image: int = 0
    """Keep the first so many captions of an image, 5 where a protocol counts on that; 0 keeps all."""


RESOURCES = Resources(gpus_per_node=0, minutes=240)


def run(config: Config, run_dir: Path) -> None:
    from preprocess.build import announce
    from preprocess.karpathy import prepare

    made = prepare(
        config.annotations,
        config.images,
        config.folder,
        restval=config.restval,
        captions_an_image=config.captions_an_image,
        packing=config,
    )
    announce(config.folder, made)


if __name__ == "__main__":
    main(Config, RESOURCES, run)
