"""Add region features of other programs to a corpus: TSV of LXMERT, bottom-up attention or VinVL, .npz, HDF5.

python jobs/import_regions.py --corpus data/coco --sources train2014_obj36.tsv val2014_obj36.tsv --extractor bottom-up --class-names objects_vocab.txt
sbatch slurm/import_regions.sh --corpus data/coco --sources train2014_obj36.tsv val2014_obj36.tsv --extractor bottom-up
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from launch.entry import main
from launch.resources import Resources
from preprocess.region_choices import Choices


@dataclass(frozen=True)
class Config(Choices):
    corpus: Path = Path("data/coco")
    """Corpus folder the regions are added to."""
    sources: tuple[Path, ...] = ()
    """Files or folders that hold the regions of its images, each image once in all."""
    extractor: str = "bottom-up"
    """Name of what made the regions; they are stored as regions-<extractor>.h5."""


RESOURCES = Resources(gpus_per_node=0, minutes=240)


def run(config: Config, run_dir: Path) -> None:
    from preprocess.regions import import_regions

    made = import_regions(config.corpus, config.sources, config.extractor, config)
    print("made:" if made else "stands already:", config.corpus / f"regions-{config.extractor}.h5")


if __name__ == "__main__":
    main(Config, RESOURCES, run)
