"""Turn the original suite's uniform JSON ({train,val,test}_image_captions.json) and its images into a corpus folder.

As a Slurm array, every element packs its part of the images, and the last one makes the corpus.

python jobs/preprocess_uniform_json.py --captions datasets/coco --images . --folder data/coco-uniform
sbatch slurm/preprocess_uniform_json.sh --captions datasets/coco --images . --folder data/coco-uniform
sbatch --array=1-8 slurm/preprocess_uniform_json.sh --captions datasets/coco --images . --folder data/coco-uniform
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from launch.entry import main
from launch.resources import Resources
from preprocess.packing import Packing


@dataclass(frozen=True)
class Config(Packing):
    captions: Path = Path("datasets/coco")
    """Folder of the <split>_image_captions.json files; all of them are read."""
    images: Path = Path()
    """Folder that the image_path entries begin from; files that lie in it under their bare names are found too."""
    folder: Path = Path("data/coco-uniform")
    """Corpus folder to make. A corpus made by the same options is left as it stands."""
    collection: str = ""
    """Where the pictures come from, such as flickr30k; by it and their ids they are known again in other corpora. COCO's file names are known anyway."""
    split_in_ids: bool = False
    """Image ids become <split>/<id>, for files that number the images of every split anew, as those of Conceptual Captions do."""


RESOURCES = Resources(gpus_per_node=0, minutes=240)


def run(config: Config, run_dir: Path) -> None:
    """Prepare the corpus, or say that it stands."""
    from preprocess.build import announce
    from preprocess.uniform_json import prepare

    made = prepare(
        config.captions,
        config.images,
        config.folder,
        collection=config.collection,
        split_in_ids=config.split_in_ids,
        packing=config,
    )
    announce(config.folder, made)


if __name__ == "__main__":
    main(Config, RESOURCES, run)
