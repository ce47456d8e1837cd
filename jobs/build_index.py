"""Build an index folder over a vectors folder, exact or approximate, for any type that faiss has.

python jobs/build_index.py --vectors vectors/open-images --index indexes/open-images --type IVF4096,PQ64
python jobs/build_index.py --vectors vectors/products --index indexes/products --type Flat
sbatch slurm/build_index.sh --vectors vectors/open-images --index indexes/open-images --type IVF4096,PQ64
sbatch --array=1-8 slurm/build_index.sh --vectors vectors/laion --index indexes/laion --type OPQ32_128,IVF65536_HNSW32,PQ32 --shards 8
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from launch.entry import main
from launch.resources import Resources
from training.learning import require


@dataclass(frozen=True)
class Config:
    vectors: Path = Path("vectors/scenes-images")
    """Vectors folder; jobs/encode.py makes one."""
    index: Path = Path("indexes/scenes-images")
    """Index folder to make. One made by the same options is left as it stands."""
    type: str = "Flat"
    """faiss's factory string: Flat and SQfp16 are exact (over floats and halves); SQ8, HNSW32, IVF1024,Flat, IVF4096,PQ64 are not."""
    shards: int = 1
    """Parts that are built, kept and searched each by itself; each must fit in memory."""
    part: str = ""
    """This job's part of the shards, such as 3/8; a job array sets it. Who ends last joins them."""

    def __post_init__(self) -> None:
        require(self, ("shards", self.shards > 0, "1 or more"))


RESOURCES = Resources(gpus_per_node=0, minutes=12 * 60)


def run(config: Config, run_dir: Path) -> None:
    from corpora.pieces import Part
    from launch.attempt import current
    from ranking.index_build import build_index
    from ranking.vectors import read_vectors

    vectors, part = read_vectors(config.vectors), Part.parse(config.part)
    info = build_index(config.index, vectors, config.type, config.shards, part, current())
    if info is None:
        print(f"this share is done; {config.index} will stand when all are", flush=True)
    else:
        size = sum(path.stat().st_size for path in config.index.rglob("*") if path.is_file())
        print(f"{info.type} over {len(vectors):,} vectors of {info.dimension}, {size / 1e6:,.0f} MB: {config.index}", flush=True)


if __name__ == "__main__":
    main(Config, RESOURCES, run)
