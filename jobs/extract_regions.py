"""Extract region features of every image of a corpus with a detector, or as a grid over a backbone.

python jobs/extract_regions.py --corpus data/coco --extractor bottom-up-800 --precision bf16
python jobs/extract_regions.py --corpus data/coco --extractor grid --checkpoint facebook/dinov2-base --regions 49
sbatch slurm/extract_regions.sh --corpus data/coco --extractor bottom-up-800 --precision bf16
sbatch --array=1-8 slurm/extract_regions.sh --corpus data/coco --extractor bottom-up-800 --precision bf16
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from launch.entry import main
from launch.resources import Resources

if TYPE_CHECKING:
    from models.region_extractor import RegionExtractor


@dataclass(frozen=True)
class Config:
    corpus: Path = Path("data/coco")
    """Corpus folder; the regions are stored in it."""
    extractor: Literal["bottom-up-800", "bottom-up-600", "faster-rcnn", "grid"] = "bottom-up-800"
    """Bottom-up attention at a short side of 800 or (as in Caffe) 600 pixels; torchvision's Faster R-CNN; a grid over a backbone."""
    checkpoint: str = ""
    """Hub name, folder or file of the weights; by default unc-nlp/frcnn-vg-finetuned for bottom-up. For a grid: hub name, folder or torchvision:<model>:<file>."""
    regions: int = 0
    """Regions an image; by default 36 for bottom-up, 50 for faster-rcnn, 49 for a grid (7 x 7)."""
    store_as: str = ""
    """Stored as regions-<this>.h5; by default the extractor's name."""
    vocabulary: Path | None = None
    """Folder of objects_vocab.txt and attributes_vocab.txt, to store the names of bottom-up's classes and attributes."""
    batch_size: int = 8
    """Images at once; changes the result by no more than rounding."""
    precision: Literal["no", "bf16"] = "no"
    """Numbers to compute with; bf16 is several times faster on a GPU."""
    part: str = ""
    """This job's part of the images, such as 3/8; a job array sets it. Who ends last joins them."""


RESOURCES = Resources(minutes=24 * 60)


def run(config: Config, run_dir: Path) -> None:
    from corpora.corpus import Corpus
    from corpora.pieces import Part
    from launch.attempt import current
    from launch.process_group import Place, device_name, find_place, loader_workers
    from models.bottom_up_weights import read_vocabulary
    from models.region_extraction import Extraction

    corpus, part, place = Corpus(config.corpus), Part.parse(config.part), find_place() or Place()
    class_names, attribute_names = read_vocabulary(config.vocabulary) if config.vocabulary else ((), ())
    extractor = _extractor(config)
    extractor.model.to(device_name())
    extraction = Extraction(
        corpus,
        extractor,
        config.store_as or config.extractor,
        config.precision,
        config.batch_size,
        part,
        place.rank,
        place.size,
        loader_workers(),
        class_names,
        attribute_names,
        current(),
    )
    if extraction.run():
        print(f"regions of {len(corpus.images.ids)} images: {extraction.path}", flush=True)
    else:
        print(f"this share is done; {extraction.path} will stand when all are", flush=True)


def _extractor(config: Config) -> RegionExtractor:
    from models import bottom_up, grid_regions, torchvision_regions

    if config.extractor == "grid":
        return grid_regions.load(config.checkpoint, config.regions or 49, config.precision)
    if config.extractor == "faster-rcnn":
        return torchvision_regions.load(config.checkpoint, config.regions or 50, config.precision)
    return bottom_up.load(config.checkpoint or bottom_up.PUBLISHED, config.extractor, config.regions or 36, config.precision)


if __name__ == "__main__":
    main(Config, RESOURCES, run)
