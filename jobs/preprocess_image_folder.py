"""Turn any folder of images, such as Open Images, into a corpus folder; with classes or captions if there are any.

As a Slurm array, every element packs its part of the images, and the last one makes the corpus.

python jobs/preprocess_image_folder.py --images downloads/open-images --collection open-images --folder data/open-images
sbatch slurm/preprocess_image_folder.sh --images downloads/open-images --collection open-images --folder data/open-images
sbatch --array=1-8 slurm/preprocess_image_folder.sh --images downloads/open-images --collection open-images --folder data/open-images
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from launch.entry import main
from launch.resources import Resources
from preprocess.packing import Packing


@dataclass(frozen=True)
class Config(Packing):
    images: Path = Path("downloads/open-images")
    """Folder of images, with folders in it or without; an image's id is its path in it without the suffix."""
    folder: Path = Path("data/open-images")
    """Corpus folder to make. A corpus made by the same options is left as it stands."""
    split: str = ""
    """Split of all images; without one the folders of the first level are the splits."""
    classes: bool = False
    """The folders an image lies in, below that of its split, are its class."""
    captions: Path | None = None
    """Captions: .csv or .tsv with the columns file and caption, or .jsonl of {"file", "caption"}; file is a path in --images."""
    collection: str = ""
    """Where the pictures come from, such as open-images; by it, and their file names, they are known again in other corpora."""


RESOURCES = Resources(gpus_per_node=0, minutes=240)


def run(config: Config, run_dir: Path) -> None:
    """Prepare the corpus, or say that it stands."""
    from preprocess.build import announce
    from preprocess.image_folder import prepare

    made = prepare(
        config.images,
        config.folder,
        split=config.split,
        classes=config.classes,
        captions=config.captions,
        collection=config.collection,
        packing=config,
    )
    announce(config.folder, made)


if __name__ == "__main__":
    main(Config, RESOURCES, run)
