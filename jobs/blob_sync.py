"""Fetch a folder of blobs from Azure, or send a folder there; stopped at any moment, the same command moves only the rest.

python jobs/blob_sync.py --remote https://ACCOUNT.blob.core.windows.net/vinvl/datasets/coco_ir --folder downloads --exclude-pattern "*.tsv"
python jobs/blob_sync.py --direction up --remote corpora/2026 --credential file:~/.azure-connection --folder data/coco
sbatch slurm/blob_sync.sh --remote https://ACCOUNT.blob.core.windows.net/CONTAINER/PATH --credential env:AZURE_SAS --folder downloads
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from launch.blob_access import check_credential, check_no_secret
from launch.entry import main
from launch.resources import Resources


@dataclass(frozen=True)
class Config:
    remote: str = ""
    """https://ACCOUNT.blob.core.windows.net/CONTAINER/PATH, or CONTAINER/PATH if the credential is a connection string. Without the query: that is a secret."""
    folder: Path = Path("downloads")
    """Folder here; up: what is sent, a folder or one file."""
    direction: Literal["down", "up"] = "down"
    """down: fetch all blobs at and below the path. up: send all files of the folder. Nothing is ever deleted."""
    credential: str = ""
    """Where the SAS (token or URL) or connection string is: env:NAME or file:PATH, never the secret itself. Empty for a public container."""
    exclude_pattern: tuple[str, ...] = ()
    """Patterns of files to leave out, such as "*.tsv" or "gt_objstuff/*", compared with the path below the folder and with the name alone."""
    keep_last_part: bool = True
    """As azcopy --recursive: the last part of what is copied becomes a folder where it goes."""
    threads: int = 4
    """Pieces of 8 MiB, or small files, moved at once."""

    def __post_init__(self) -> None:
        check_no_secret(self.remote, "--remote")
        check_credential(self.credential)
        if self.threads < 1:
            raise ValueError(f"--threads {self.threads}: must be at least 1")


RESOURCES = Resources(gpus_per_node=0, minutes=1440)


def run(config: Config, run_dir: Path) -> None:
    from launch.blob_access import Address, open_container, read_credential
    from launch.blob_manifest import Manifest
    from launch.blob_storage import Place, fetch_blobs
    from launch.blob_upload import send_blobs

    address, secret = Address.parse(config.remote), read_credential(config.credential)
    place = Place(open_container(address, secret), address.path, public=not secret)
    move = fetch_blobs if config.direction == "down" else send_blobs
    done = move(
        place,
        config.folder,
        Manifest(run_dir / "manifest.jsonl"),
        exclude=config.exclude_pattern,
        keep_last_part=config.keep_last_part,
        threads=config.threads,
    )
    print(
        f"{config.folder}: {done.files:,} files {'fetched' if config.direction == 'down' else 'sent'}, {done.bytes / 1e6:,.1f} MB; {done.stood:,} stood already"
    )
    if done.unchecked:
        print(
            f"{done.unchecked:,} blobs have no MD5: their sizes were checked, and their sha256 is in {run_dir / 'manifest.jsonl'}"
        )


if __name__ == "__main__":
    main(Config, RESOURCES, run)
