"""How well a model finds images by images, for choosing a checkpoint."""

from __future__ import annotations

import numpy as np

from ranking import metrics
from ranking.engine import Engine
from ranking.image_retrieval import by_class, figures
from ranking.vectors import Measure, Origin, Vectors
from training.feedback import Judgements, agreement


class ImageValidation(Engine):
    """An encoder of images ready to rank one split with itself."""

    def vectors(self, measure: Measure) -> Vectors:
        """Of all images, in memory, on every process."""
        (rows,) = self._image_states(shown=False)
        return Vectors(
            self.split.image_ids,
            rows.float().cpu().numpy().astype(np.float32),
            Origin("", "", "", self.split.name, measure=measure),
        )

    def figures(self, measure: Measure) -> dict[str, float]:
        """In percent, R@1 first: every image against all others."""
        vectors = self.vectors(measure)
        classes = dict(zip(self.split.image_ids, self.split.classes, strict=True))
        return figures(metrics.positions(by_class(vectors, vectors, classes)), len(vectors) - 1)

    def agreement(self, measure: Measure, held_out: Judgements) -> dict[str, float]:
        """How far the order of the judged images is the users' (`training.feedback.agreement`); empty where that cannot be said."""
        vectors = self.vectors(measure)
        row = dict(zip(vectors.ids, vectors.rows, strict=True))
        near = {"ip": lambda one, other: one @ other, "l2": lambda one, other: -((one - other) ** 2).sum()}[measure]
        scores = {(query, item): float(near(row[query], row[item])) for query, items in held_out.items() for item in items}
        share = agreement(held_out, scores)
        return {} if share is None else {"feedback": share}
