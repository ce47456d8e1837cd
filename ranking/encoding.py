"""Images or texts of a split -> a vectors folder, by a dual encoder: every item is encoded once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from corpora.pieces import Part
from corpora.progress import progress
from models.protocols import Batch, Inputs
from ranking.engine import BLOCK, Engine
from ranking.search import is_dual
from ranking.vectors import PIECE, Kind, Measure, Origin, Vectors, VectorsError, VectorType, in_memory, write_vectors
from training import processes
from training.weights import weights_digest

PROVED = 16
"""Images and texts whose scores are compared with the products of their vectors before a split is encoded."""
TOLERANCE = 1e-3
"""Largest part of the scores' spread by which they may differ from those products, scaled and shifted."""


@dataclass(frozen=True)
class _Batches:
    """Makes batches of one kind in loader workers."""

    inputs: Inputs
    kind: Kind
    items: Sequence[str]
    """Image ids, or texts."""

    def __call__(self, places: np.ndarray) -> Batch:
        some = [self.items[place] for place in places]
        return self.inputs.images(some) if self.kind == "images" else self.inputs.texts(some)


class Encoder(Engine):
    """A dual encoder ready to encode one split."""

    def origin(self, model: str, checkpoint: str, corpus: str, kind: Kind, revision: str, measure: Measure = "ip") -> Origin:
        """Where the vectors of `vectors_of` come from."""
        split, weights = self.split, weights_digest(cast(nn.Module, self.model))
        return Origin(model, checkpoint, corpus, split.name, kind, measure, split.digest, weights, self.precision, revision)

    def vectors_of(
        self,
        folder: Path,
        made_by: Origin,
        dtype: VectorType = "float32",
        part: Part = Part(),  # noqa: B008
    ) -> Vectors | None:
        """The vectors of the images or texts, written by all processes of the job; None if other parts are still to come.

        Goes on where a stopped job was. VectorsError if the model makes no vectors or, in a split of images and texts, if inner
        products of its vectors do not order items as its scores do.
        """
        if made_by.measure == "ip" and self.split.image_ids and self.split.texts:
            self._prove(made_by.model)
        of_images = made_by.kind == "images"
        ids, items = (self.split.image_ids, self.split.image_ids) if of_images else (self.split.text_ids, self.split.texts)
        batches = _Batches(self.inputs, made_by.kind, items)
        mine = part.share(processes.rank(), processes.size())
        write_vectors(folder, lambda ranges: self._encoded(batches, ranges), ids, made_by, dtype, mine)
        processes.barrier()
        return write_vectors(folder, in_memory(np.empty(0)), ids, made_by, dtype, mine)

    def _encoded(self, batches: _Batches, ranges: Sequence[range]) -> Iterator[np.ndarray]:
        """(len(range), D) of each range; texts of about one length at once."""
        orders = [_by_length(batches, some) for some in ranges]
        cuts = [order[start : start + BLOCK] for order in orders for start in range(0, len(order), BLOCK)]
        loader = DataLoader(
            cast(Any, cuts),
            batch_size=None,
            collate_fn=cast(Any, batches),
            num_workers=min(self.workers, len(cuts)),
            worker_init_fn=processes.outlive_sigterm,
        )
        encoded = (
            self._encode(batches.kind, batch) for batch in progress(loader, f"encoding batches of {batches.kind}", len(cuts))
        )
        pieces = -(-len(batches.items) // PIECE)
        for number, order in enumerate(orders, 1):
            rows = np.concatenate([next(encoded).numpy() for _ in range(0, len(order), BLOCK)])
            self.supervisor.check()
            yield rows[np.argsort(order)]
            self.supervisor.saved(pieces - len(orders) + number)

    def _encode(self, kind: Kind, batch: Batch) -> Tensor:
        self.supervisor.beat()
        with self._inference():
            here = {key: value.to(self._device) for key, value in batch.items()}
            states = self.model.encode_images(here) if kind == "images" else self.model.encode_texts(here)
        if not is_dual(states):
            shapes = ", ".join(str(tuple(state.shape)) for state in states)
            raise VectorsError(
                f"this model makes no vector of {kind} but states {shapes}; only a dual encoder can be searched so"
            )
        return states[0].float().cpu()

    def _prove(self, name: str) -> None:
        """Some models make one vector an item and compare them otherwise (order embeddings)."""
        images = self._encode("images", self.inputs.images(self.split.image_ids[:PROVED]))
        texts = self._encode("texts", self.inputs.texts(self.split.texts[:PROVED]))
        with self._inference():
            scores = self.model.score((images.to(self._device),), (texts.to(self._device),)).float().cpu().flatten()
        products = (images @ texts.T).flatten()
        line = torch.stack([products, torch.ones_like(products)], 1).double()
        fit = torch.linalg.lstsq(line, scores.double()[:, None]).solution
        off = float((line @ fit - scores[:, None]).abs().max())
        if not (fit[0] > 0 and off <= TOLERANCE * float(scores.max() - scores.min())):
            raise VectorsError(
                f"{name}: its scores ({self.model.score_meaning}) are not inner products of its vectors, so a search over vectors would "
                "find others than it ranks first; rank with its own job"
            )


def _by_length(batches: _Batches, some: range) -> np.ndarray:
    """Rows of a range in the order in which they are encoded."""
    order = np.arange(some.start, some.stop)
    if batches.kind == "texts":
        order = order[np.argsort([len(batches.items[place].split()) for place in some], kind="stable")]
    return order
