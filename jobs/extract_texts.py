"""Compute a frozen text tower's states of all captions once, for training that reads them instead of the tower.

python jobs/extract_texts.py --corpus data/flickr30k --text distilbert-base-uncased --folder data/flickr30k/texts-distilbert
sbatch slurm/extract_texts.sh --corpus data/flickr30k --text distilbert-base-uncased --folder data/flickr30k/texts-distilbert
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
    splits: tuple[str, ...] = ()
    """Splits whose captions are encoded; by default all of the corpus."""
    text: str = "bert-base-uncased"
    """Hub name or folder of the text tower."""
    text_depth: int = 0
    """Layers of the text tower to keep, from the first; 0 = all."""
    max_length: int = 0
    """Longest text in tokens; 0 = as long as the tower reads."""
    folder: Path = Path("data/scenes/texts")
    """Folder to write the features to. One that stands is left alone."""


RESOURCES = Resources(minutes=4 * 60)


def run(config: Config, run_dir: Path) -> None:
    from corpora.corpus import Corpus
    from launch.attempt import current
    from launch.process_group import device_name
    from models.text_features import TextFeatures, tower_name, write_text_features
    from models.text_tower import load_text_tower
    from training.loop import process_group
    from training.processes import is_main, on_main

    process_group("no")
    corpus = Corpus(config.corpus)
    texts = [text for name in config.splits or corpus.info["splits"] for text in corpus.split(name).texts]
    tower = load_text_tower(config.text, max_length=config.max_length, depth=config.text_depth)
    made_by = tower_name(tower, config.text)
    if not on_main(config.folder.exists):
        on_main(lambda: write_text_features(config.folder, tower.to(device_name()), made_by, texts, current()))
    features = TextFeatures(config.folder)
    if features.made_by != made_by:
        raise ValueError(f"{config.folder}: holds features of {features.made_by}; choose another --folder for those of {made_by}")
    features(texts[:1])
    if is_main():
        print(f"text features of {config.folder}: {features.made_by}", flush=True)


if __name__ == "__main__":
    main(Config, RESOURCES, run)
