"""Rules by which a query and a wrong item that stands above its truth are told apart: from what one caption and one image have in common.

Of the two, one is the query and the other the item, and the corpus does not call them a pair. The image speaks through its own captions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from error_analysis.contents import RARE, Contents
from error_analysis.language import Meaning, attribute_kind
from error_analysis.likeness import normal
from error_analysis.mining import Direction, Retrieval
from error_analysis.near_duplicates import Duplicates
from error_analysis.neighbours import Neighbours

MANY = 5
"""A caption says too little if it fits the captions of more than so many images."""
HUB_TOP, HUB_SPREAD = 10, 3.0
"""A hub is among the first HUB_TOP items of more queries than the average item by HUB_SPREAD standard deviations."""


@dataclass(frozen=True)
class Evidence:
    """What the rules look at, in one direction of one ranking. Images and captions are known by their places in the split."""

    retrieval: Retrieval
    neighbours: Neighbours
    contents: Contents
    duplicates: Duplicates
    accepted: frozenset[tuple[int, int]] = field(default=frozenset())
    """Pairs (image, caption) that other judges hold right."""

    @property
    def direction(self) -> Direction:
        return self.retrieval.direction

    def truths(self, query: int) -> list[int]:
        truths: list[int] = self.retrieval.ranking.relevant.of(query).tolist()
        return truths

    def pair(self, query: int, item: int) -> tuple[int, int]:
        """The image and the caption."""
        return (query, item) if self.direction == "i2t" else (item, query)

    @cached_property
    def alike_images(self) -> dict[int, set[int]]:
        return self.duplicates.images.of

    @cached_property
    def alike_texts(self) -> dict[int, set[int]]:
        return self.duplicates.texts.of

    @cached_property
    def images_of(self) -> tuple[list[int], ...]:
        """The images that each caption describes."""
        found: tuple[list[int], ...] = tuple([] for _ in self.contents.readings)
        for image, text in self.contents.split.pairs.tolist():
            found[text].append(image)
        return found

    @cached_property
    def wordings(self) -> frozenset[tuple[int, str]]:
        """(image, caption without case and punctuation) of every true pair."""
        texts = [normal(text) for text in self.contents.split.texts]
        return frozenset((image, texts[text]) for image, text in self.contents.split.pairs.tolist() if texts[text])

    @cached_property
    def occurrences(self) -> np.ndarray:
        """(items,) among the first HUB_TOP items of how many queries each is."""
        return np.bincount(self.neighbours.items[:, :HUB_TOP].ravel(), minlength=len(self.retrieval.ranking.items.ids))

    @cached_property
    def hub_from(self) -> float:
        return float(self.occurrences.mean() + HUB_SPREAD * self.occurrences.std())


def near_duplicate(evidence: Evidence, query: int, item: int) -> str:
    """The item is all but the same as a right one, by its letters or its looks."""
    image, text = evidence.pair(query, item)
    split = evidence.contents.split
    if evidence.direction == "t2i":
        twins = evidence.alike_images.get(image, set()).intersection(evidence.truths(query))
        return f"looks like {split.image_ids[min(twins)]}" if twins else ""
    twins = evidence.alike_texts.get(text, set()).intersection(evidence.truths(query))
    if twins:
        return f"reads like {split.text_ids[min(twins)]}"
    twins = evidence.alike_images.get(image, set()).intersection(evidence.images_of[text])
    return f"describes {split.image_ids[min(twins)]}, which looks like it" if twins else ""


def ground_truth_gap(evidence: Evidence, query: int, item: int) -> str:
    """The pair is right, though the corpus does not say so."""
    image, text = evidence.pair(query, item)
    if (image, text) in evidence.accepted:
        return "other judges hold it right"
    if (image, normal(evidence.contents.split.texts[text])) in evidence.wordings:
        return "the image has a caption with the same words"
    fits = _fits(evidence, image, text)
    return "the image's captions say all that this one says" if 0 < fits <= MANY else ""


def under_specified(evidence: Evidence, query: int, item: int) -> str:
    """The caption fits, as it fits many images."""
    image, text = evidence.pair(query, item)
    if not evidence.contents.readings[text].meaning.content:
        return "the caption names nothing"
    fits = _fits(evidence, image, text)
    return f"what it says is said of {fits:,} images" if fits > MANY else ""


def _fits(evidence: Evidence, image: int, text: int) -> int:
    """0 if the caption does not fit the image, else how many images have all its words in their captions."""
    meaning, said = evidence.contents.readings[text].meaning, evidence.contents.said[image]
    if not meaning.content or not meaning.content <= said.content or contradictions(meaning, said):
        return 0
    return evidence.contents.fitting(meaning)


def detail(evidence: Evidence, query: int, item: int) -> str:
    """All the caption's objects are there, with another attribute, relation, number or action."""
    image, text = evidence.pair(query, item)
    meaning, said = evidence.contents.readings[text].meaning, evidence.contents.said[image]
    if not meaning.objects or not meaning.objects <= said.objects:
        return ""
    spoken = evidence.contents.spoken
    other = [
        f"{' '.join(spoken([one]) for one in words)}, there {', '.join(there)}" for words, there in contradictions(meaning, said)
    ]
    return "; ".join(other) or f"not said of the image: {spoken(meaning.content - said.content)}"


class Contradiction(NamedTuple):
    """What a caption says, and what is said of the image instead; stems."""

    said: tuple[str, ...]
    there: tuple[str, ...]


def contradictions(meaning: Meaning, said: Meaning) -> list[Contradiction]:
    """What a caption says of a thing of which other captions say the like but never this: a colour, size or number, or the reverse relation."""
    found = []
    for attribute, thing in sorted(meaning.attributes - said.attributes):
        kind = attribute_kind(attribute)
        others = {other for other, same in said.attributes if same == thing and attribute_kind(other) == kind}
        if others:
            found.append(Contradiction((attribute, thing), tuple(sorted(others))))
    for one, relation, other in sorted(meaning.relations - said.relations):
        if (other, relation, one) in said.relations:
            found.append(Contradiction((*one.split(), relation, *other.split()), ("the other way round",)))
    return found


def hub(evidence: Evidence, query: int, item: int) -> str:
    """The item comes first for far too many queries."""
    count = int(evidence.occurrences[item])
    return f"among the first {HUB_TOP} of {count:,} queries" if count > evidence.hub_from else ""


def rare_words(evidence: Evidence, query: int, item: int) -> str:
    """Every true caption has a rare word or a misspelling: by the query itself, or by all captions of the image that is the query."""
    texts = evidence.truths(query) if evidence.direction == "i2t" else [query]
    found = [evidence.contents.rare(text) for text in texts]
    return ", ".join(sorted({word for words in found for word in words})) if all(found) else ""


def wrong_object(evidence: Evidence, query: int, item: int) -> str:
    """The caption and the image share an object, and another is not there."""
    image, text = evidence.pair(query, item)
    objects, there = evidence.contents.readings[text].meaning.objects, evidence.contents.said[image].objects
    spoken = evidence.contents.spoken
    return f"{spoken(objects & there)}, but no {spoken(objects - there)}" if objects & there else ""


def gross_error(evidence: Evidence, query: int, item: int) -> str:
    """Nothing the caption names is named of the image."""
    _, text = evidence.pair(query, item)
    objects = evidence.contents.readings[text].meaning.objects
    return f"no {evidence.contents.spoken(objects)}" if objects else "the caption names no object"


Rule = Callable[[Evidence, int, int], str]
"""(evidence, query, wrong item) -> the evidence in words, or "" where the rule does not hold."""
RULES: dict[str, tuple[Rule, str]] = {
    "near-duplicate": (
        near_duplicate,
        "The wrong item is all but the same as a right one: an image by its looks, a caption by its letters.",
    ),
    "ground-truth gap": (
        ground_truth_gap,
        "The pair is right, though the corpus does not say so: other judges accept it, the image has a caption of the same words, or its "
        f"captions together say all that this one says, as those of at most {MANY} images do.",
    ),
    "under-specified caption": (
        under_specified,
        f"The image's captions together say all that this one says, as those of more than {MANY} images do.",
    ),
    "attribute or relation": (
        detail,
        "The image's captions name every object of this one, with another colour, size, number, relation or action.",
    ),
    "hub": (
        hub,
        f"The wrong item is among the first {HUB_TOP} of so many queries as to be {HUB_SPREAD:g} standard deviations above the mean.",
    ),
    "wrong object": (wrong_object, "The image's captions name some objects of the caption, but not all."),
    "typo or rare word": (
        rare_words,
        f"Every true caption has a word that fewer than {RARE} captions of the corpus have, or a misspelling.",
    ),
    "gross error": (gross_error, "They name none of them."),
}
