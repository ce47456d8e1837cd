"""Write a corpus as the original suite's uniform JSON: <split>_image_captions.json and the image files.

python jobs/export_json.py --corpus data/coco --folder datasets/coco
sbatch slurm/export_json.sh --corpus data/coco --folder datasets/coco
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from launch.entry import main
from launch.resources import Resources


@dataclass(frozen=True)
class Config:
    corpus: Path = Path("data/scenes")
    """Corpus folder."""
    folder: Path = Path("datasets/scenes")
    """Folder to make. One that holds an export of the same corpus is left as it stands."""


RESOURCES = Resources(gpus_per_node=0, minutes=60)


def run(config: Config, run_dir: Path) -> None:
    """Export the corpus, or say that the export stands."""
    from corpora.corpus import Corpus
    from preprocess.uniform_json import export

    made = export(Corpus(config.corpus), config.folder)
    print("made:" if made else "stands already:", config.folder)


if __name__ == "__main__":
    main(Config, RESOURCES, run)
