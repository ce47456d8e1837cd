"""Write the region features of a corpus in a format other programs read: LXMERT's TSV, one .npz, or an .npz an image.

python jobs/export_regions.py --corpus data/coco --extractor bottom-up --format lxmert-tsv --output coco_obj36.tsv
sbatch slurm/export_regions.sh --corpus data/coco --extractor bottom-up --format lxmert-tsv --output coco_obj36.tsv
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from launch.entry import main
from launch.resources import Resources


@dataclass(frozen=True)
class Config:
    corpus: Path = Path("data/coco")
    """Corpus folder."""
    extractor: str = ""
    """Which of its regions-<extractor>.h5; may be left out where there is one."""
    split: str = ""
    """Only the images of this split; empty for all."""
    format: Literal["lxmert-tsv", "npz", "npz-folder"] = "lxmert-tsv"
    """lxmert-tsv: boxes in pixels, needs classes and attributes. npz: files, features, boxes in [0, 1] and what else is known, all images in one. npz-folder: <image>.npz with visual_feats and visual_pos."""
    output: Path = Path("regions.tsv")
    """File or folder to make; it must not exist."""


RESOURCES = Resources(gpus_per_node=0, minutes=240)


def run(config: Config, run_dir: Path) -> None:
    from preprocess.region_export import export_regions

    count = export_regions(config.corpus, config.extractor, config.output, config.format, config.split)
    print(f"made: {config.output}, {count:,} images")


if __name__ == "__main__":
    main(Config, RESOURCES, run)
