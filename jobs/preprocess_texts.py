"""Turn a file of texts or dialogues, one a line or JSONL, into a corpus of texts without images.

python jobs/preprocess_texts.py --texts downloads/texts.txt --folder data/texts
python jobs/preprocess_texts.py --texts downloads/reddit.tsv --layout contexts --folder data/reddit
sbatch slurm/preprocess_texts.sh --texts downloads/texts.txt --folder data/texts
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from launch.entry import main
from launch.resources import Resources


@dataclass(frozen=True)
class Config:
    texts: Path = Path("downloads/texts.txt")
    """One text a line, or .jsonl of {"text"} or {"id", "text"}."""
    folder: Path = Path("data/texts")
    """Corpus folder to make. A corpus made by the same options is left as it stands."""
    split: str = "test"
    """Split of all texts."""
    layout: Literal["texts", "dialogues", "contexts"] = "texts"
    """A line is a text; or a dialogue, its utterances parted by tabs; contexts leaves out its last utterance, the response."""


RESOURCES = Resources(gpus_per_node=0, minutes=60)


def run(config: Config, run_dir: Path) -> None:
    """Prepare the corpus, or say that it stands."""
    from preprocess.build import announce
    from preprocess.text_corpus import prepare

    announce(config.folder, prepare(config.texts, config.folder, config.split, config.layout))


if __name__ == "__main__":
    main(Config, RESOURCES, run)
