"""Turn Stanford Online Products, or images listed in its layout, into a corpus of images with classes.

As a Slurm array, every element packs its part of the images, and the last one makes the corpus.

python jobs/preprocess_products.py --lists downloads/Stanford_Online_Products --images downloads/Stanford_Online_Products --folder data/products
sbatch slurm/preprocess_products.sh --lists downloads/Stanford_Online_Products --images downloads/Stanford_Online_Products --folder data/products
sbatch --array=1-8 slurm/preprocess_products.sh --lists downloads/Stanford_Online_Products --images downloads/Stanford_Online_Products --folder data/products
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from launch.entry import main
from launch.resources import Resources
from preprocess.packing import Packing


@dataclass(frozen=True)
class Config(Packing):
    lists: Path = Path("downloads/Stanford_Online_Products")
    """Folder of Ebay_train.txt and Ebay_test.txt and, if there, Ebay_info.txt, query.txt and gallery.txt."""
    images: Path = Path("downloads/Stanford_Online_Products")
    """Folder that the paths in the lists begin from."""
    folder: Path = Path("data/products")
    """Corpus folder to make. A corpus made by the same options is left as it stands."""
    validation_classes: int = 2318
    """Classes of train that become split val; 2318 leaves the 9,000 that are usually trained on, 0 all."""
    collection: str = "stanford-online-products"
    """Where the pictures come from; by it they are known again in other corpora."""


RESOURCES = Resources(gpus_per_node=0, minutes=240)


def run(config: Config, run_dir: Path) -> None:
    """Prepare the corpus, or say that it stands."""
    from preprocess.build import announce
    from preprocess.products import prepare

    made = prepare(
        config.lists,
        config.images,
        config.folder,
        validation_classes=config.validation_classes,
        collection=config.collection,
        packing=config,
    )
    announce(config.folder, made)


if __name__ == "__main__":
    main(Config, RESOURCES, run)
