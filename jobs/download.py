"""Fetch the raw files of a corpus, check and unpack them, or say what only you can get and where to put it.

python jobs/download.py --source coco
python jobs/download.py --source flickr30k --folder downloads --cluster local
sbatch slurm/download.sh --source sop

preprocess/sources.yaml is the table of sources; `bash setup.sh data coco` also makes the corpus of it. Stopped at any moment, the
same command goes on where it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from launch.entry import main
from launch.resources import Resources


@dataclass(frozen=True)
class Config:
    source: str = "coco"
    """coco, flickr30k, conceptual-captions, sop, open-images or lxmert."""
    folder: Path = Path("downloads")
    """The files go to a folder of the source's name in this one."""
    threads: int = 4
    """Ranges of a file fetched at once."""


RESOURCES = Resources(gpus_per_node=0, minutes=1440)


def run(config: Config, run_dir: Path) -> None:
    from launch.archives import unpack
    from launch.download import download
    from launch.part_file import check_space
    from preprocess.sources import read_source, refuse_missing

    folder, files = config.folder / config.source, read_source(config.source)
    refuse_missing(config.source, files, folder)
    missing = [file for file in files if not file.stands(folder)]
    to_fetch = [file for file in missing if not (folder / file.name).exists()]
    # Photos do not shrink: unpacked they take about what their archive takes
    sizes = [file.size or 0 for file in to_fetch] + [file.size or 0 for file in missing if file.unpack]
    check_space(folder, sum(sizes), f"{config.source}, archives and what they unpack to")
    before = 0
    for file in files:
        path = folder / file.name
        if file.url and file in missing:
            download(file.url, path, size=file.size, digests=file.digests, threads=config.threads, before=before)
        if file.unpack and file in missing:
            unpack(path, folder / file.unpack)
        before += path.stat().st_size if path.exists() else 0
        print(f"{folder / (file.unpack or file.name)}:", "there now" if file in missing else "stood already", flush=True)


if __name__ == "__main__":
    main(Config, RESOURCES, run)
