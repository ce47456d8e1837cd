"""Retrieve images for every text of a corpus: a JSON line a text, and how much of the collection they reach.

Texts and images are encoded once each by jobs/encode.py. As a Slurm array, every element takes its part of the texts.

python jobs/retrieve_corpus.py --texts vectors/reddit --collection vectors/open-images --folder retrieved/reddit --top 5
python jobs/retrieve_corpus.py --texts vectors/reddit --collection indexes/open-images --parameters nprobe=64 --vectors vectors/open-images --folder retrieved/reddit
sbatch slurm/retrieve_corpus.sh --texts vectors/reddit --collection vectors/open-images --folder retrieved/reddit
sbatch --array=1-8 slurm/retrieve_corpus.sh --texts vectors/reddit --collection vectors/open-images --folder retrieved/reddit
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from launch.entry import main
from launch.resources import Resources
from training.learning import require


@dataclass(frozen=True)
class Config:
    texts: Path = Path("vectors/texts")
    """Vectors folder of the texts."""
    collection: Path = Path("vectors/images")
    """Vectors folder of the images, which is searched exactly, or an index folder (jobs/build_index.py)."""
    folder: Path = Path("retrieved/texts")
    """Folder to make: retrieved.jsonl and retrieval.json. One made by the same options is left as it stands."""
    top: int = 5
    """Images of each text."""
    parameters: str = ""
    """How much of an approximate index is searched, in faiss's words: nprobe=64, efSearch=256."""
    vectors: Path | None = None
    """Vectors folder that the index was built from: prints how much of what exact search finds for a sample of the texts was found."""
    corpus: Path | None = None
    """Corpus folder of the texts, if it is no longer where it was when they were encoded."""
    part: str = ""
    """This job's part of the texts, such as 3/8; a job array sets it. Who ends last joins them."""

    def __post_init__(self) -> None:
        require(self, ("top", self.top > 0, "1 or more"))


RESOURCES = Resources(minutes=24 * 60)


def run(config: Config, run_dir: Path) -> None:
    import faiss

    from corpora.pieces import Part
    from launch.attempt import current
    from launch.process_group import Place, find_place
    from ranking.collection import open_collection
    from ranking.corpus_retrieval import Retrieval, read_retrieval, split_of
    from ranking.diversity import as_text
    from ranking.vectors import read_vectors

    texts, place = read_vectors(config.texts), find_place() or Place()
    device = place.local_rank % faiss.get_num_gpus() if faiss.get_num_gpus() else None
    collection = open_collection(config.collection, config.parameters, device)
    split, part = split_of(texts, config.corpus), Part.parse(config.part)
    retrieval = Retrieval(texts, split, collection, config.folder, config.top, part, place.rank, place.size, current())
    whole = retrieval.run()
    if whole and place.rank == 0:
        print(as_text(read_retrieval(config.folder)["statistics"]))
        if config.vectors is not None:
            share = collection.recall(texts, read_vectors(config.vectors), config.top)
            print(f"recall@{config.top} against exact search: {share:.4f}")
        print(f"retrieved: {config.folder}/retrieved.jsonl", flush=True)
    elif not whole:
        print(f"this share is done; {config.folder} will stand when all are", flush=True)


if __name__ == "__main__":
    main(Config, RESOURCES, run)
