"""regions-<extractor>.h5 of a corpus folder -> the formats other programs read."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

from corpora.corpus import Corpus, CorpusError
from corpora.progress import progress
from corpora.regions import LABELS, RegionStore
from preprocess.region_folder import write_npz_folder
from preprocess.region_npz import write_stacked_npz
from preprocess.region_tsv import write_lxmert_tsv
from preprocess.regions import read_images

ExportFormat = Literal["lxmert-tsv", "npz", "npz-folder"]


def export_regions(folder: Path, extractor: str, output: Path, layout: ExportFormat, split: str = "") -> int:
    """Write the regions of a corpus, or of one split, to a new file or folder; the number of images.

    Images keep the order of the region file and are called by their ids. LXMERT's boxes are in pixels of the corpus's images.
    From an exact region file everything comes out as it went in, otherwise features are rounded to float16 and boxes in pixels
    to float32. Written aside and renamed.
    """
    corpus = Corpus(folder)
    store = corpus.regions(extractor)
    wanted = set(corpus.split(split).image_ids) if split else set(store.ids)
    image_ids = [image_id for image_id in store.ids if image_id in wanted]
    if output.exists():
        raise CorpusError(f"{output}: exists already; remove it or choose another name")
    if not image_ids:
        raise CorpusError(f"{store.path}: none of its images is in split {split}; nothing to export")
    part = output.with_name(output.name + ".part")
    _remove(part)  # left by a job that died
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        _write(part, corpus, store, image_ids, layout)
        part.rename(output)
    finally:
        _remove(part)
    return len(image_ids)


def _write(part: Path, corpus: Corpus, store: RegionStore, image_ids: list[str], layout: ExportFormat) -> None:
    if layout == "npz":
        write_stacked_npz(part, store, image_ids)
    elif layout == "npz-folder":
        part.mkdir()
        write_npz_folder(part, store, progress(image_ids, "regions"))
    else:
        unknown = LABELS.keys() - store.of(image_ids[0]).labels.keys()
        if unknown:
            raise CorpusError(
                f"{store.path}: LXMERT's columns hold {', '.join(sorted(unknown))}, which this extractor does not tell; export npz or npz-folder"
            )
        sizes = {image.id: (image.width, image.height) for image in read_images(corpus.folder).values()}
        write_lxmert_tsv(part, ((store.of(image_id), sizes[image_id]) for image_id in progress(image_ids, "regions")))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
