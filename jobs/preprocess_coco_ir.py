"""Turn the captions of Oscar and VinVL (coco_ir, .pt files) and COCO's images into a corpus folder.

As a Slurm array, every element packs its part of the images, and the last one makes the corpus.

python jobs/preprocess_coco_ir.py --captions downloads/coco_ir --images downloads/coco --folder data/coco-ir
sbatch slurm/preprocess_coco_ir.sh --captions downloads/coco_ir --images downloads/coco --folder data/coco-ir
sbatch --array=1-8 slurm/preprocess_coco_ir.sh --captions downloads/coco_ir --images downloads/coco --folder data/coco-ir
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from launch.entry import main
from launch.resources import Resources
from preprocess.packing import Packing


@dataclass(frozen=True)
class Config(Packing):
    captions: Path = Path("downloads/coco_ir")
    """Folder of {train,val,test,minival}_captions.pt and, if there, test_img_keys.tsv and test_img_keys_1k.tsv."""
    images: Path = Path("downloads/coco")
    """Folder of COCO's images; the one that holds train2014 and val2014."""
    folder: Path = Path("data/coco-ir")
    """Corpus folder to make. A corpus made by the same options is left as it stands."""


RESOURCES = Resources(gpus_per_node=0, minutes=240)


def run(config: Config, run_dir: Path) -> None:
    """Prepare the corpus, or say that it stands."""
    from preprocess.build import announce
    from preprocess.coco_ir import prepare

    announce(config.folder, prepare(config.captions, config.images, config.folder, config))


if __name__ == "__main__":
    main(Config, RESOURCES, run)
