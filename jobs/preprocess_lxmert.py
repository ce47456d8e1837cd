"""Turn LXMERT's sentence files (mscoco_train.json, ..., vgnococo.json) and their images into a corpus folder.

As a Slurm array, every element packs its part of the images, and the last one makes the corpus.

python jobs/preprocess_lxmert.py --train mscoco_train.json mscoco_nominival.json --val mscoco_minival.json --images downloads/coco --folder data/lxmert
sbatch slurm/preprocess_lxmert.sh --train mscoco_train.json mscoco_nominival.json --val mscoco_minival.json --images downloads/coco --folder data/lxmert
sbatch --array=1-8 slurm/preprocess_lxmert.sh --train mscoco_train.json mscoco_nominival.json --val mscoco_minival.json --images downloads/coco --folder data/lxmert
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from launch.entry import main
from launch.resources import Resources
from preprocess.packing import Packing


@dataclass(frozen=True)
class Config(Packing):
    train: tuple[Path, ...] = (Path("downloads/lxmert/mscoco_train.json"), Path("downloads/lxmert/mscoco_nominival.json"))
    """Files whose images go to split train."""
    val: tuple[Path, ...] = (Path("downloads/lxmert/mscoco_minival.json"),)
    """Files whose images go to split val. LXMERT's minival is another split than Karpathy's val and test."""
    test: tuple[Path, ...] = ()
    """Files whose images go to split test."""
    categories: tuple[str, ...] = ("mscoco",)
    """Which sentences to keep: mscoco (captions), vg (region phrases), vqa, gqa, visual7w (questions). vgnococo.json has no mscoco."""
    images: Path = Path("downloads/coco")
    """Folder that holds train2014 and val2014 and, for vgnococo.json, VG_100K and VG_100K_2."""
    folder: Path = Path("data/lxmert")
    """Corpus folder to make. A corpus made by the same options is left as it stands."""


RESOURCES = Resources(gpus_per_node=0, minutes=240)


def run(config: Config, run_dir: Path) -> None:
    """Prepare the corpus, or say that it stands."""
    from preprocess.build import announce
    from preprocess.lxmert_json import prepare

    splits = {"train": config.train, "val": config.val, "test": config.test}
    announce(config.folder, prepare(splits, config.images, config.folder, config.categories, config))


if __name__ == "__main__":
    main(Config, RESOURCES, run)
