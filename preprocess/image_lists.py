"""Lists of image ids in a corpus folder, one id a line: what `--protocol fixed --image-ids` of the ranking jobs reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from corpora.corpus import Corpus, CorpusError
from preprocess.source_files import check_ids, read_lines


def read_image_list(path: Path) -> list[str]:
    """The ids of a list, one a line; empty lines are passed over, an id that stands twice is an error."""
    ids = [line.strip() for _, line in read_lines(path) if line.strip()]
    check_ids(ids, "image", str(path))
    if not ids:
        raise CorpusError(f"{path}: holds no image ids; expected one a line")
    return ids


def check_image_list(path: Path, ids: Sequence[str], split_of: Mapping[str, str]) -> None:
    """CorpusError unless all images of a list are known, and of one split."""
    unknown = [image for image in ids if image not in split_of]
    if unknown:
        raise CorpusError(
            f"{path}: {len(unknown)} of {len(ids)} images are in no split, the first: {', '.join(unknown[:3])}; "
            "the list and the other files must be of one download"
        )
    splits = sorted({split_of[image] for image in ids})
    if len(splits) > 1:
        raise CorpusError(f"{path}: lists images of several splits: {', '.join(splits)}; expected those of one")


def write_image_lists(folder: Path, lists: Mapping[str, Sequence[str]]) -> None:
    """Write <name>.txt into a corpus folder for every list, without images that were left out when the corpus was built."""
    left_out = {row["id"] for row in Corpus(folder).info["left_out"]}
    for name, ids in lists.items():
        kept = [image for image in ids if image not in left_out]
        path = folder / f"{name}.txt"
        path.with_suffix(".part").write_text("".join(f"{image}\n" for image in kept), encoding="utf-8")
        path.with_suffix(".part").replace(path)
        less = f" ({len(ids) - len(kept)} were left out)" if len(kept) < len(ids) else ""
        print(f"{path}: {len(kept):,} images{less}")
