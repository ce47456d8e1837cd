"""Find the nearest items of every query in an index: a Parquet file with the columns query, items and scores.

python jobs/search_index.py --queries vectors/products-queries --index indexes/products --file neighbours/products.parquet --top 1000
python jobs/search_index.py --queries vectors/reddit --index indexes/open-images --parameters nprobe=64 --vectors vectors/open-images --file neighbours/reddit.parquet
sbatch slurm/search_index.sh --queries vectors/reddit --index indexes/open-images --file neighbours/reddit.parquet
sbatch --array=1-8 slurm/search_index.sh --queries vectors/reddit --index indexes/laion --file neighbours/reddit.parquet
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from launch.entry import main
from launch.resources import Resources
from training.learning import require


@dataclass(frozen=True)
class Config:
    queries: Path = Path("vectors/scenes-texts")
    """Vectors folder of the queries."""
    index: Path = Path("indexes/scenes-images")
    """Index folder; jobs/build_index.py makes one."""
    file: Path = Path("neighbours/scenes.parquet")
    """File to make. One made by the same options is left as it stands."""
    top: int = 10
    """Items of each query."""
    parameters: str = ""
    """How much of an approximate index is searched, in faiss's words: nprobe=64, efSearch=256. By default a sixteenth of the lists, efSearch=128."""
    vectors: Path | None = None
    """Vectors folder the index was built from: prints the recall of a sample of the queries against exact search."""
    part: str = ""
    """This job's part of the work, such as 3/8; a job array sets it. With as many jobs as shards each opens one shard. Who ends last joins."""

    def __post_init__(self) -> None:
        require(self, ("top", self.top > 0, "1 or more"))


RESOURCES = Resources(gpus_per_node=0, minutes=12 * 60)


def run(config: Config, run_dir: Path) -> None:
    import faiss

    from corpora.pieces import Part
    from launch.attempt import current
    from launch.process_group import Place, find_place
    from ranking.neighbours import NeighbourSearch
    from ranking.vectors import read_vectors

    queries, part, place = read_vectors(config.queries), Part.parse(config.part), find_place() or Place()
    device = place.local_rank % faiss.get_num_gpus() if faiss.get_num_gpus() else None
    search = NeighbourSearch(config.file, queries, config.index, config.top, config.parameters, device, current())
    if not search.run(part.share(place.rank, place.size)):
        print(f"this share is done; {config.file} will stand when all are", flush=True)
        return
    print(f"neighbours of {len(queries):,} queries: {config.file}", flush=True)
    if config.vectors is not None:
        print(f"recall@{config.top} against exact search: {search.recall(read_vectors(config.vectors)):.4f}", flush=True)


if __name__ == "__main__":
    main(Config, RESOURCES, run)
