"""Pictures that a model was trained on and is then tested with.

A checkpoint carries trained-on.txt: the sources of its training images, such as coco/391895, one a line. LXMERT's nominival and
Karpathy's test split, say, share pictures of COCO's val2014 under names of their own. Of a checkpoint without the file, or of
images without a source, nothing is known.
"""

from __future__ import annotations

from pathlib import Path

from corpora.corpus import CorpusError, Split

FILE = "trained-on.txt"


def trained_on(checkpoint: str | Path) -> frozenset[str]:
    """The sources a checkpoint was trained on; empty if it does not say."""
    path = Path(checkpoint, FILE)
    return frozenset(path.read_text(encoding="utf-8").split("\n")) - {""} if path.is_file() else frozenset()


def note_training(folder: Path, train: Split, start: str) -> None:
    """Write the sources of the training split into a checkpoint, with those of the checkpoint that the training started from."""
    sources = (trained_on(start) | set(train.sources)) - {""}
    if sources:
        (folder / FILE).write_text("".join(f"{source}\n" for source in sorted(sources)), encoding="utf-8")


def leakage(checkpoint: str, split: Split) -> str:
    """What the checkpoint has seen of a split, in words for a result; empty if nothing, as far as is known."""
    seen = trained_on(checkpoint)
    shared = sum(source in seen for source in split.sources)
    return f"{shared:,} of the {len(split.image_ids):,} images were trained on" if shared else ""


def refuse_leakage(checkpoint: str, split: Split, where: Path) -> None:
    """CorpusError with the count, if the checkpoint was trained on images of this split."""
    if found := leakage(checkpoint, split):
        first = min(set(split.sources) & trained_on(checkpoint))
        raise CorpusError(
            f"{where}: split {split.name}: {found} by {checkpoint} (the first: {first}); rank another split, or give --allow-leakage, "
            "which notes it in every result"
        )
