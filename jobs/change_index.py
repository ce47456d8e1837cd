"""Change an index without building it again: put items in, replace them, take them out, merge its shards.

python jobs/change_index.py --index indexes/products --vectors vectors/new-products
python jobs/change_index.py --index indexes/products --remove sold-out.txt --merge
sbatch slurm/change_index.sh --index indexes/products --merge
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from launch.entry import main
from launch.resources import Resources


@dataclass(frozen=True)
class Config:
    index: Path = Path("indexes/scenes-images")
    """Index folder."""
    remove: Path | None = None
    """File of ids to take out, one a line."""
    vectors: Path | None = None
    """Vectors folder of items to put in, by the same model; those whose ids the index has already are replaced."""
    merge: bool = False
    """Make one shard of all and forget what was taken out: searches are then as fast as after a build. Needs memory for the whole index."""


RESOURCES = Resources(gpus_per_node=0, minutes=4 * 60)


def run(config: Config, run_dir: Path) -> None:
    from ranking.evaluate import read_ids
    from ranking.index import read_index
    from ranking.index_changes import merge, put, remove
    from ranking.vectors import read_vectors

    if not (config.remove or config.vectors or config.merge):
        raise ValueError("nothing to change: give --remove, --vectors or --merge")
    if config.remove is not None:
        print(f"{remove(config.index, read_ids(config.remove)):,} items taken out", flush=True)
    if config.vectors is not None:
        print("{:,} items put in, {:,} replaced".format(*put(config.index, read_vectors(config.vectors))), flush=True)
    if config.merge:
        merge(config.index)
    index = read_index(config.index)
    print(f"{len(index):,} items in {len(index.shards)} shards: {config.index}", flush=True)


if __name__ == "__main__":
    main(Config, RESOURCES, run)
