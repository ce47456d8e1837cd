"""Users' judgements of a corpus's images, and the batches that teach them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from corpora.corpus import Corpus, Split
from models.swin_training import ClassBatches
from training.feedback import FeedbackError, FeedbackTriplets, Judgements, divide, image_ids, read_feedback
from training.sampling import Share


@dataclass(frozen=True)
class UserFeedback:
    """A feedback file beside its corpus."""

    judged: Split
    """All images that were judged or searched for, of whatever splits."""
    held_out: Judgements
    triplets: FeedbackTriplets

    def __str__(self) -> str:
        """One line for the terminal."""
        left_out = f"; {self.triplets.left_out} teach nothing: no item is known to be relevant" if self.triplets.left_out else ""
        return f"feedback: {self.triplets.queries} queries to learn from, {len(self.held_out)} held out{left_out}"


def open_feedback(path: Path, corpus: Corpus, train: Split, validation_split: str) -> UserFeedback:
    """FeedbackError if it names images that the corpus lacks, or some of the split that chooses the checkpoint.

    Classes are known of the training split alone.
    """
    judgements = read_feedback(path)
    splits = [corpus.split(name) for name in corpus.info["splits"] if name != validation_split]
    place = {image_id: (split, row) for split in splits for row, image_id in enumerate(split.image_ids)}
    ids = image_ids(judgements)
    unknown = [image_id for image_id in ids if image_id not in place]
    if unknown:
        raise FeedbackError(
            f"{path}: {len(unknown)} of {len(ids)} images are not in {corpus.folder} outside of split {validation_split}, the first: {unknown[0]!r}"
        )
    found = [place[image_id] for image_id in ids]
    sources = tuple(split.sources[row] for split, row in found)
    judged = Split("feedback", tuple(ids), ("",) * len(ids), (), (), np.empty((0, 2), np.int64), sources)
    learned, held_out = divide(judgements)
    triplets = FeedbackTriplets(learned, dict(zip(train.image_ids, train.classes, strict=True)))
    return UserFeedback(judged, held_out, triplets)


class FeedbackBatches:
    """The batches of `batches`, each with `count` triplets of the feedback behind it; runs in loader workers."""

    def __init__(self, batches: ClassBatches, triplets: FeedbackTriplets, count: int, share: Share) -> None:
        if count % share.size:
            raise ValueError(f"--feedback-triplets {count}: must be a multiple of the {share.size} processes")
        self._batches, self._triplets, self._count, self._share = batches, triplets, count, share

    def batch(self, samples: np.ndarray, generator: np.random.Generator) -> dict[str, Tensor]:
        """As `ClassBatches.batch`; `pixel_values` also holds this process's share of the triplets."""
        batch = self._batches.batch(samples, generator)
        drawn = self._triplets.draw(self._count, generator)
        mine = np.split(np.arange(len(drawn)), self._share.size)[self._share.rank]
        views = self._batches.pixels([drawn[place] for place in mine], mine, generator)
        return batch | {"pixel_values": torch.cat([batch["pixel_values"], views])}
