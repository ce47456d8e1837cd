"""The formats of region features, and how they are told apart: by content, never by name."""

from __future__ import annotations

import zipfile
from pathlib import Path

import h5py

from corpora.corpus import CorpusError
from corpora.store import open_hdf5
from preprocess.numpy_files import refusing_damage
from preprocess.region_choices import Format
from preprocess.region_folder import NpzFolder, TernFolder
from preprocess.region_hdf5 import Hdf5Groups, RegionFile
from preprocess.region_npz import StackedNpz
from preprocess.region_source import RegionSource
from preprocess.region_tsv import BottomUpTsv, LxmertTsv, VinvlTsv

FORMATS: dict[str, type[RegionSource]] = {
    "lxmert-tsv": LxmertTsv,
    "bottom-up-tsv": BottomUpTsv,
    "vinvl-tsv": VinvlTsv,
    "npz": StackedNpz,
    "npz-folder": NpzFolder,
    "tern-folder": TernFolder,
    "hdf5": Hdf5Groups,
    "region-file": RegionFile,
}
COLUMNS = {10: LxmertTsv, 6: BottomUpTsv, 3: VinvlTsv, 2: VinvlTsv}
"""TSV layouts by their number of columns."""


def open_regions(path: Path, name: Format = "auto") -> RegionSource:
    """A file or folder of region features, by default in the format that its content shows; CorpusError where it is none."""
    try:
        path.stat()
        return (recognise(path) if name == "auto" else FORMATS[name])(path)
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read ({error.strerror or error}); check the path") from None


def recognise(path: Path) -> type[RegionSource]:
    """The format of a file or folder, by its content; CorpusError for anything else."""
    if path.is_dir():
        return NpzFolder if any(one.suffix in (".npz", ".npy") for one in path.iterdir()) else TernFolder
    if zipfile.is_zipfile(path):
        return StackedNpz
    if h5py.is_hdf5(path):
        with refusing_damage(path, Hdf5Groups.expected), open_hdf5(path) as file:
            return RegionFile if {"features", "boxes", "ids"} <= set(file) else Hdf5Groups
    with path.open("rb") as file:
        line = file.readline(1 << 26)
    if not line:
        raise CorpusError(f"{path}: is empty; fetch it again")
    columns = line.count(b"\t") + 1
    if columns not in COLUMNS:
        expected = "; ".join(source.expected for source in FORMATS.values())
        raise CorpusError(
            f"{path}: no known format of region features (its first line has {columns} columns); known are: {expected}"
        )
    return COLUMNS[columns]


def _open(path: Path, name: Format) -> RegionSource:
    try:
        path.stat()
        return (recognise(path) if name == "auto" else FORMATS[name])(path)
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read ({error.strerror or error}); check the path") from None
