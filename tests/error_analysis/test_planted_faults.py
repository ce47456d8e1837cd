"""The faults planted in made-up scenes are found: look-alikes, captions that fit two images, exchanged colours.

A made-up model puts first, for every caption, the one wrong image that planted.json or its words make likely. What is true of which
image is known, so each cause is right or wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from corpora.corpus import Corpus, Split
from corpora.planting import Shares
from corpora.synthetic import Planted, make_scenes, read_planted
from error_analysis.causes import NO_FAULTS, diagnose
from error_analysis.contents import Contents
from error_analysis.mining import Retrieval
from error_analysis.near_duplicates import Duplicates
from error_analysis.rules import Evidence
from ranking.matrix import Axis, Provenance, Ranking, Relevance


@dataclass(frozen=True)
class Scenes:
    split: Split
    planted: Planted
    contents: Contents
    duplicates: Duplicates

    def pairs(self, ids: tuple[tuple[str, str], ...]) -> set[tuple[int, int]]:
        """Planted pairs of this split, as places, the smaller first."""
        place = {key: number for number, key in enumerate(self.split.image_ids)}
        return {(place[a], place[b]) for a, b in ids if a in place}

    @property
    def fitting(self) -> set[tuple[int, int]]:
        """(image, caption) of every caption that is true of an image beside its own."""
        image = {key: number for number, key in enumerate(self.split.image_ids)}
        text = {key: number for number, key in enumerate(self.split.text_ids)}
        return {(image[a], text[b]) for b, others in self.planted.shared_captions.items() if b in text for a in others}


@pytest.fixture(scope="module", params=[0, 1])
def scenes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Scenes:
    folder: Path = tmp_path_factory.mktemp("planted") / "scenes"
    make_scenes(folder, {"test": 240}, request.param, 96, Shares(0.2, 0.2, 0.2))
    corpus = Corpus(folder)
    split = corpus.split("test")
    return Scenes(split, read_planted(folder), Contents.of(split, corpus), Duplicates.of(split, corpus))


def precision_and_recall(found: set[tuple[int, int]], true: set[tuple[int, int]]) -> tuple[float, float]:
    return len(found & true) / len(found), len(found & true) / len(true)


def test_look_alikes_are_found_and_exchanged_colours_are_none(scenes: Scenes):
    true = scenes.pairs(scenes.planted.near_duplicates)
    assert len(true) >= 15
    precision, recall = precision_and_recall(set(map(tuple, scenes.duplicates.images.pairs.tolist())), true)
    print(f"look-alikes: {len(true)} pairs, precision {precision:.3f}, recall {recall:.3f}")
    assert precision >= 0.95
    assert recall >= 0.95


def likely_errors(scenes: Scenes) -> Iterator[tuple[int, int, str]]:
    """(caption, wrong image, true cause): the other image of a planted pair; else one that the caption fits; else the one with most of its words."""
    fitting, own = scenes.fitting, set(map(tuple, scenes.split.pairs.tolist()))
    alike, exchanged = (
        {a: b for pair in scenes.pairs(ids) for a, b in (pair, pair[::-1])}
        for ids in (scenes.planted.near_duplicates, scenes.planted.swapped_attributes)
    )
    for image, text in scenes.split.pairs.tolist():
        words = scenes.contents.readings[text].meaning.content
        others = [other for other in range(len(scenes.split.image_ids)) if (other, text) in fitting]
        if image in alike:
            yield text, alike[image], "look-alike"
        elif image in exchanged:
            yield text, exchanged[image], "fits" if (exchanged[image], text) in fitting else "exchanged"
        elif others:
            yield text, others[0], "fits"
        else:
            false = (other for other in range(len(scenes.split.image_ids)) if (other, text) not in own)
            yield text, max(false, key=lambda other: (len(words & scenes.contents.said[other].content), -other)), "false"


@pytest.fixture(scope="module")
def causes(scenes: Scenes) -> Counter[tuple[str, str]]:
    """How many captions of each true cause got each cause."""
    errors = list(likely_errors(scenes))
    scores = np.random.default_rng(0).normal(0, 0.01, (len(scenes.split.image_ids), len(scenes.split.texts))).astype(np.float32)
    for text, image, _ in errors:
        scores[image, text] = 1
    ranking = Ranking(
        Axis("image", scenes.split.image_ids),
        Axis("text", scenes.split.text_ids),
        Relevance.from_pairs(scenes.split.pairs, len(scenes.split.image_ids)),
        scores,
        Provenance("made up", "none", "", "test", scenes.split.digest, "made up"),
    )
    retrieval = Retrieval.of(ranking, "t2i")
    evidence = Evidence(retrieval, retrieval.neighbours, scenes.contents, scenes.duplicates)
    true = {text: cause for text, _, cause in errors}
    return Counter((true[one.query], one.cause) for one in diagnose(evidence))


def share(causes: Counter[tuple[str, str]], keep: Callable[[str, str], bool], of: Callable[[str, str], bool]) -> float:
    total = sum(count for pair, count in causes.items() if of(*pair))
    return sum(count for pair, count in causes.items() if of(*pair) and keep(*pair)) / total


def test_every_caption_fails_for_one_cause(scenes: Scenes, causes: Counter[tuple[str, str]]):
    assert causes.total() == len(scenes.split.texts)


def test_captions_that_fit_what_stands_first_are_told_from_errors(causes: Counter[tuple[str, str]]):
    """Captions of planted pairs, and all others that happen to be true of two scenes. Look-alikes fit too, and have a cause of their own."""
    unlabelled = NO_FAULTS[1:]
    precision = share(causes, lambda true, _: true in ("fits", "look-alike"), lambda _, cause: cause in unlabelled)
    recall = share(causes, lambda _, cause: cause in unlabelled, lambda true, _: true == "fits")
    print(f"captions that fit: precision {precision:.3f}, recall {recall:.3f}")
    assert precision >= 0.85
    assert recall >= 0.85


def test_exchanged_colours_are_found(causes: Counter[tuple[str, str]]):
    """Precision: of what is called an attribute or relation, how much is no caption that fits."""
    precision = share(causes, lambda true, _: true in ("exchanged", "false"), lambda _, cause: cause == "attribute or relation")
    recall = share(causes, lambda _, cause: cause == "attribute or relation", lambda true, _: true == "exchanged")
    print(f"exchanged colours: precision {precision:.3f}, recall {recall:.3f}")
    assert precision >= 0.9
    assert recall >= 0.9


def test_failures_by_look_alikes_are_called_so(causes: Counter[tuple[str, str]]):
    precision = share(causes, lambda true, _: true == "look-alike", lambda _, cause: cause == "near-duplicate")
    recall = share(causes, lambda _, cause: cause == "near-duplicate", lambda true, _: true == "look-alike")
    print(f"failures by look-alikes: precision {precision:.3f}, recall {recall:.3f}")
    assert precision >= 0.95
    assert recall >= 0.95
