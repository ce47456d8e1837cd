"""Batches for metric learning: which images of which classes are seen together.

An order is a pure function of seed and epoch, as in `training.sampling`; every `batch` images in it make one step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from training.class_objective import ClassObjective


@dataclass(frozen=True, eq=False)
class ClassTable:
    """The class of each image, and the images of each class."""

    labels: np.ndarray
    """(N,) class numbers, 0 to C - 1, none of them unused."""

    @cached_property
    def order(self) -> np.ndarray:
        """(N,) images by class."""
        return np.argsort(self.labels, kind="stable")

    @cached_property
    def starts(self) -> np.ndarray:
        """(C + 1,): the images of class c are order[starts[c]:starts[c + 1]]."""
        return np.searchsorted(self.labels[self.order], np.arange(self.labels.max() + 2))

    @property
    def sizes(self) -> np.ndarray:
        """(C,) images of each class."""
        return np.diff(self.starts)

    def of(self, label: int) -> np.ndarray:
        """The images of a class."""
        return self.order[self.starts[label] : self.starts[label + 1]]

    def others(self, labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """(T,) images, each drawn evenly from all that are not of the class given."""
        before, size = self.starts[labels], self.sizes[labels]
        drawn = generator.integers(0, len(self.labels) - size)
        return self.order[np.where(drawn < before, drawn, drawn + size)]


class RandomTriplets:
    """Anchor, positive, negative, anchor, ...: a class drawn evenly, two of its images, and any image of another class.

    An epoch has `per_class` times as many triplets as there are classes: 5, as in the original, which took the number of a class for
    that of a row, so that most images could never be negatives and some negatives were of the anchor's class.
    """

    def __init__(self, table: ClassTable, batch: int, per_class: int = 5) -> None:
        self._table, self._classes = table, np.flatnonzero(table.sizes > 1)
        self._triplets = per_class * len(table.sizes)
        if batch % 3:
            raise ValueError(f"--batch-size {batch}: must be a multiple of 3, as images come in triplets")
        if not len(self._classes) or len(table.sizes) < 2:
            raise ValueError("no triplets: needs two classes, one of them with two images")

    def __len__(self) -> int:
        return 3 * self._triplets

    def __call__(self, samples: int, seed: int, epoch: int) -> np.ndarray:
        """(3 T,) images of an epoch."""
        return _cached(self, seed, epoch)

    def draw(self, generator: np.random.Generator) -> np.ndarray:
        """As a call, with these random numbers."""
        table, drawn = self._table, generator.choice(self._classes, self._triplets)
        first = generator.integers(0, table.sizes[drawn])
        second = generator.integers(0, table.sizes[drawn] - 1)
        second += second >= first
        pair = table.order[table.starts[drawn][:, None] + np.stack([first, second], 1)]
        return np.concatenate([pair, table.others(drawn, generator)[:, None]], 1).reshape(-1)


class Balanced:
    """P classes with K images each, no class twice in a batch; of a smaller class every image comes before any comes again.

    With `super_classes` (C,), the super-class of every class, a batch takes its classes in groups of `group` from one super-class after
    the other, each as often as any other: its negatives are of the same kind and hard (a super-class with fewer classes gives those it has).
    """

    def __init__(
        self, table: ClassTable, batch: int, per_class: int, super_classes: np.ndarray | None = None, group: int = 1
    ) -> None:
        self._table, self._per_class, self._batch_classes = table, per_class, batch // per_class
        kinds = np.arange(len(table.sizes)) if super_classes is None else super_classes
        self._kinds = [np.flatnonzero(kinds == kind) for kind in np.unique(kinds)]
        self._group = group
        distinct = sum(min(group, len(kind)) for kind in self._kinds)
        self._round = distinct // max(self._batch_classes, 1) * self._batch_classes
        if batch % per_class or self._batch_classes < 2 or not self._round:
            raise ValueError(
                f"--batch-size {batch}: must be {per_class} images each of at least two and at most {distinct} classes, all that a round has"
            )
        self._rounds = max(1, round(len(table.labels) / (self._round * per_class)))

    def __len__(self) -> int:
        return self._rounds * self._round * self._per_class

    def __call__(self, samples: int, seed: int, epoch: int) -> np.ndarray:
        """(N',) images of an epoch, about as many as there are, K of a class behind each other."""
        return _cached(self, seed, epoch)

    def draw(self, generator: np.random.Generator) -> np.ndarray:
        """As a call, with these random numbers."""
        classes = np.concatenate([self._one_round(generator) for _ in range(self._rounds)])
        return np.concatenate([self._some(label, generator) for label in classes.tolist()])

    def _one_round(self, generator: np.random.Generator) -> np.ndarray:
        """Classes, all different, cut to whole batches."""
        kinds = [self._kinds[kind] for kind in generator.permutation(len(self._kinds))]
        return np.concatenate([generator.permutation(kind)[: self._group] for kind in kinds])[: self._round]

    def _some(self, label: int, generator: np.random.Generator) -> np.ndarray:
        images, count = self._table.of(label), self._per_class
        return np.concatenate([generator.permutation(images) for _ in range(-(-count // len(images)))])[:count]


Sampler = RandomTriplets | Balanced


@lru_cache(maxsize=2)
def _cached(sampler: Sampler, seed: int, epoch: int) -> np.ndarray:
    return sampler.draw(np.random.default_rng([seed, epoch]))


def numbered(names: Sequence[str]) -> np.ndarray:
    """(N,) a number for each name, by its place among the sorted names."""
    return np.unique(np.array(names, object), return_inverse=True)[1]


def make_sampler(objective: ClassObjective, batch: int, classes: Sequence[str]) -> Sampler:
    """The sampler of these options for images of these classes, named <super-class>/<class> where there are super-classes."""
    if not all(classes):
        raise ValueError("some images have no class; metric learning needs the class of every image")
    table = ClassTable(numbered(classes))
    if objective.sampler == "triplets":
        return RandomTriplets(table, batch)
    if objective.sampler == "balanced":
        return Balanced(table, batch, objective.images_per_class)
    kinds = [name.rpartition("/")[0] for name in sorted(set(classes))]
    if not all(kinds):
        raise ValueError("--sampler super-class: classes must be named <super-class>/<class>")
    return Balanced(table, batch, objective.images_per_class, numbered(kinds), objective.classes_per_super_class)
