"""What users said of search results: a JSONL file, a line {"query": id, "item": id, "relevant": true or false} for each judgement."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

HELD_OUT = 5
"""One query in so many is never learned from, but measured with."""
Judgements = dict[str, dict[str, bool]]
"""Query -> item -> whether it is relevant."""


class FeedbackError(ValueError):
    """A feedback file that cannot be used; the message names the file, the line and what is allowed."""


def read_feedback(path: Path) -> Judgements:
    """Of two judgements of one pair the later one counts."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FeedbackError(f"{path}: cannot be read ({error})") from None
    found: Judgements = {}
    for number, line in enumerate(lines, 1):
        if line.strip():
            query, item, relevant = _judgement(line, f"{path}, line {number}")
            found.setdefault(query, {})[item] = relevant
    if not found:
        raise FeedbackError(f"{path}: holds no feedback")
    return found


def _judgement(line: str, where: str) -> tuple[str, str, bool]:
    expected = 'expected {"query": "<image id>", "item": "<another image id>", "relevant": true or false}'
    try:
        row = json.loads(line)
        query, item, relevant = row["query"], row["item"], row["relevant"]
    except (ValueError, KeyError, TypeError):
        raise FeedbackError(f"{where}: {line[:80]!r}; {expected}") from None
    if not isinstance(query, str) or not isinstance(item, str) or not isinstance(relevant, bool) or query == item:
        raise FeedbackError(f"{where}: {line[:80]!r}; {expected}")
    return query, item, relevant


def image_ids(judgements: Judgements) -> list[str]:
    """All queries and items, sorted."""
    return sorted({*judgements, *(item for items in judgements.values() for item in items)})


def divide(judgements: Judgements) -> tuple[Judgements, Judgements]:
    """(to learn from, held out), by a digest of the query's id: a query stays on its side when more feedback comes."""
    held = {query for query in judgements if hashlib.sha256(query.encode()).digest()[0] % HELD_OUT == 0}
    parts = ({query: items for query, items in judgements.items() if (query in held) is side} for side in (False, True))
    learned, held_out = parts
    return learned, held_out


def agreement(judgements: Judgements, scores: Mapping[tuple[str, str], float]) -> float | None:
    """Of all pairs of a relevant and an irrelevant item of one query, how many percent a model orders as the user did; a tie is wrong.

    The mean over queries; None if no query has both. `scores` of (query, item), higher is nearer.
    """
    shares = []
    for query, items in judgements.items():
        good, bad = ([scores[query, item] for item, relevant in items.items() if relevant is side] for side in (True, False))
        if good and bad:
            shares.append(np.mean(np.array(good)[:, None] > np.array(bad)))
    return float(100 * np.mean(shares)) if shares else None


class FeedbackTriplets:
    """Query, relevant item, irrelevant item. What a user did not give is drawn: any image of the query's class is relevant, and one of
    another class is not. Without a relevant item and without a known class a query teaches nothing; `left_out` counts such.
    """

    def __init__(self, judgements: Judgements, classes: Mapping[str, str]) -> None:
        self._judgements, self._classes, self._ids = judgements, classes, list(classes)
        mates: dict[str, list[str]] = {}
        for image_id, name in classes.items():
            mates.setdefault(name, []).append(image_id)
        relevant = {query: self._relevant(query, mates) for query in sorted(judgements)}
        self._relevant_of = {query: found for query, found in relevant.items() if found}
        self._queries = list(self._relevant_of)
        self.left_out = len(judgements) - len(self._queries)
        if not self._queries:
            raise FeedbackError("the feedback has no query with a relevant item, and none whose class is known")

    @property
    def queries(self) -> int:
        """How many teach something."""
        return len(self._queries)

    def draw(self, count: int, generator: np.random.Generator) -> list[str]:
        """3 x count ids."""
        return [image_id for _ in range(count) for image_id in self._triplet(generator)]

    def _triplet(self, generator: np.random.Generator) -> Sequence[str]:
        query = _one(self._queries, generator)
        refused = [item for item, relevant in self._judgements[query].items() if not relevant]
        return (
            query,
            _one(self._relevant_of[query], generator),
            _one(refused, generator) if refused else self._other(query, generator),
        )

    def _relevant(self, query: str, mates: Mapping[str, list[str]]) -> list[str]:
        judged = self._judgements[query]
        return [item for item, relevant in judged.items() if relevant] or [
            image_id for image_id in mates.get(self._classes.get(query, ""), ()) if image_id != query and image_id not in judged
        ]

    def _other(self, query: str, generator: np.random.Generator) -> str:
        """An image of a class that is neither the query's nor that of a relevant item."""
        near = {self._classes.get(image_id) for image_id in (query, *self._relevant_of[query])}
        for _ in range(1000):
            drawn = _one(self._ids, generator)
            if self._classes[drawn] not in near:
                return drawn
        raise FeedbackError(f"no image was found that is of another class than query {query!r} and its relevant items")


def _one(some: Sequence[str], generator: np.random.Generator) -> str:
    return some[int(generator.integers(len(some)))]
