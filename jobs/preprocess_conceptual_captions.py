"""Fetch the images of Conceptual Captions from the web and turn them into a corpus folder.

What was fetched is not fetched again, whenever and however the job was stopped. downloads/.../failures.jsonl lists every row that
has no image (file, row, url, reason); such rows are not in the corpus. As a Slurm array, every element fetches its part; when all
have ended, the same command packs the images.

python jobs/preprocess_conceptual_captions.py --train Train_GCC-training.tsv --val Validation_GCC-1.1.0-Validation.tsv --folder data/conceptual-captions
sbatch slurm/preprocess_conceptual_captions.sh --train Train_GCC-training.tsv --val Validation_GCC-1.1.0-Validation.tsv --folder data/conceptual-captions
sbatch --array=1-8 slurm/preprocess_conceptual_captions.sh --train Train_GCC-training.tsv --val Validation_GCC-1.1.0-Validation.tsv --folder data/conceptual-captions
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from launch.entry import main
from launch.resources import Resources
from preprocess.packing import Packing


@dataclass(frozen=True)
class Config(Packing):
    train: Path | None = Path("downloads/conceptual_captions/Train_GCC-training.tsv")
    """List of split train: lines of caption<TAB>URL."""
    val: Path | None = Path("downloads/conceptual_captions/Validation_GCC-1.1.0-Validation.tsv")
    """List of split val. A URL that is in both lists stays in val alone."""
    downloads: Path = Path("downloads/conceptual_captions")
    """Where the images and the log of failures are kept."""
    folder: Path = Path("data/conceptual-captions")
    """Corpus folder to make. A corpus made by the same options is left as it stands."""
    threads: int = 32
    """Images fetched at once."""
    per_host: int = 4
    """Images fetched from one host at once."""
    seconds: float = 30.0
    """Time for one image, redirects included."""
    megabytes: float = 20.0
    """Larger files are not fetched."""
    tries: int = 2
    """Tries after faults that may pass: no connection, a broken answer, HTTP 408, 429 and 5xx."""
    user_agent: str = "misrank/0.1 (images of a public research corpus)"
    """What servers are told of who asks; name a contact."""
    retry_failed: bool = False
    """Try URLs again that could not be fetched before (in an array of as many elements as then)."""


RESOURCES = Resources(gpus_per_node=0, minutes=1440)


def run(config: Config, run_dir: Path) -> None:
    """Fetch what is missing and prepare the corpus, or say that it stands."""
    from preprocess.build import announce
    from preprocess.conceptual_captions import prepare
    from preprocess.http_fetch import Limits

    files = {split: path for split, path in (("val", config.val), ("train", config.train)) if path}
    limits = Limits(config.threads, config.per_host, config.seconds, config.megabytes, config.tries, config.user_agent)
    made = prepare(files, config.downloads, config.folder, limits=limits, retry_failed=config.retry_failed, packing=config)
    announce(config.folder, made)


if __name__ == "__main__":
    main(Config, RESOURCES, run)
