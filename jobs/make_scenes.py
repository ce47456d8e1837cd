"""Make a corpus of made-up scenes with known truth, to try everything without a download.

python jobs/make_scenes.py --folder data/scenes
sbatch slurm/make_scenes.sh --folder data/scenes
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from launch.entry import main
from launch.resources import Resources


@dataclass(frozen=True)
class Config:
    folder: Path = Path("data/scenes")
    """Corpus folder to make. A corpus made by the same options is left as it stands."""
    train: int = 2000
    """Images to train on."""
    val: int = 200
    """Images to validate on."""
    test: int = 200
    """Images to test on."""
    seed: int = 0
    """The same seed makes the same scenes."""
    size: int = 96
    """Side of an image in pixels."""
    near_duplicates: float = 0.04
    """Share of the images that are planted as pairs of near-duplicates."""
    shared_captions: float = 0.04
    """Share of the images that are planted as pairs with a caption that fits both."""
    swapped_attributes: float = 0.04
    """Share of the images that are planted as pairs in which two things exchange their colours."""


RESOURCES = Resources(gpus_per_node=0, minutes=60)


def run(config: Config, run_dir: Path) -> None:
    """Make the corpus, or say that it stands."""
    from corpora.corpus import Corpus
    from corpora.planting import Shares
    from corpora.synthetic import make_scenes

    images = {"train": config.train, "val": config.val, "test": config.test}
    planted = Shares(config.near_duplicates, config.shared_captions, config.swapped_attributes)
    made = make_scenes(config.folder, images, config.seed, config.size, planted)
    print("made:" if made else "stands already:", Corpus(config.folder))


if __name__ == "__main__":
    main(Config, RESOURCES, run)
