from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from corpora.corpus import Corpus
from error_analysis.analysis import Analysis, Options, analyse
from error_analysis.causes import diagnose, section
from error_analysis.contents import Contents
from error_analysis.likeness import Pairs
from error_analysis.near_duplicates import Duplicates
from error_analysis.neighbours import Neighbours
from error_analysis.rules import RULES, Evidence
from error_analysis.section import Section
from error_analysis.truths import Judgement
from ranking.matrix import Ranking
from ranking.metrics import Ties

CAPTIONS = {"a": ["a dog on grass"], "b": ["a dog on a sofa"], "c": ["a red car"], "d": ["a blue car"], "e": ["a zebra"]}


@pytest.fixture(autouse=True)
def _rare_words_of_small_corpora(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("error_analysis.contents.SELDOM", 1)


@pytest.fixture
def analysed(make_corpus: Callable[..., Corpus], make_ranking: Callable[..., Ranking]) -> Callable[..., tuple[Analysis, Corpus]]:
    """analysed(scores of images and captions, by model): captions c0 to c4 describe images a to e; black pictures of other sizes."""

    def make(scores: dict[str, np.ndarray], ties: Ties = "pessimistic") -> tuple[Analysis, Corpus]:
        corpus = make_corpus(CAPTIONS)
        split = corpus.split("val")
        return analyse({name: make_ranking(split, own) for name, own in scores.items()}, corpus, Options(ties=ties)), corpus

    return make


def scored(order: dict[int, list[int]]) -> np.ndarray:
    """(5, 5) scores by which each caption ranks these images first, in this order; else the truth, then the rest."""
    scores = np.eye(5) * 0.5 - np.arange(5)[:, None] / 100
    for text, images in order.items():
        for place, image in enumerate(images):
            scores[image, text] = 5 - place
    return scores


def evidence(analysis: Analysis) -> Evidence:
    """Without near-duplicates: every picture of the corpus is the same."""
    model = analysis.models[0]
    none = np.empty((0, 2), np.int64)
    duplicates = Duplicates(Pairs(none, np.empty(0)), Pairs(none, np.empty(0)), none, (), 0)
    return Evidence(model.retrievals["t2i"], model.neighbours["t2i"], Contents.of(analysis.split), duplicates)


def test_each_failed_query_has_one_cause(analysed: Callable[..., tuple[Analysis, Corpus]]):
    analysis, _ = analysed({"m": scored({0: [1, 0], 2: [3, 0, 2], 4: [0, 4]})})
    found = {one.query: one for one in diagnose(evidence(analysis))}
    assert {query: (one.item, one.cause, one.words) for query, one in found.items()} == {
        0: (1, "wrong object", "dog, but no grass"),
        2: (3, "attribute or relation", "red car, there blue"),
        4: (0, "typo or rare word", "zebra"),
    }
    assert {query: one.alone for query, one in found.items()} == {
        0: True,
        2: False,
        4: True,
    }  # above the red car stands a dog too


def test_one_cause_for_all_items_above(analysed: Callable[..., tuple[Analysis, Corpus]]):
    analysis, _ = analysed({"m": scored({0: [2, 3, 4, 0]})})
    (one,) = diagnose(evidence(analysis))
    assert (one.item, one.cause, one.words, one.alone) == (2, "typo or rare word", "dog, grass, on", True)


@pytest.mark.parametrize(("ties", "failed"), [("pessimistic", [0]), ("expected", [0]), ("optimistic", [])])
def test_ties_fail_as_the_rank_says(analysed: Callable[..., tuple[Analysis, Corpus]], ties: Ties, failed: list[int]):
    scores = scored({})
    scores[1, 0] = scores[0, 0]
    analysis, _ = analysed({"m": scores}, ties)
    found = diagnose(evidence(analysis))
    assert [one.query for one in found] == failed
    assert all((one.item, one.alone) == (1, True) for one in found)


def test_what_stands_beyond_the_kept_items_is_not_known(
    analysed: Callable[..., tuple[Analysis, Corpus]], monkeypatch: pytest.MonkeyPatch
):
    analysis, _ = analysed({"m": scored({0: [2, 3, 4, 0]})})
    whole = evidence(analysis)
    few = Evidence(whole.retrieval, Neighbours.of(whole.retrieval.ranking, k=2), whole.contents, whole.duplicates)
    assert [one.alone for one in diagnose(whole)] == [True]
    assert [one.alone for one in diagnose(few)] == [False]


def test_an_item_that_ties_with_the_truth_stands_above_it(analysed: Callable[..., tuple[Analysis, Corpus]]):
    scores = scored({0: [1, 0]})
    scores[2, 0] = scores[0, 0]  # a car, beside the other dog
    analysis, _ = analysed({"m": scores})
    (one,) = diagnose(evidence(analysis))
    assert (one.item, one.cause, one.alone) == (1, "wrong object", False)


def rows(found: Section, name: str) -> list[tuple[object, ...]]:
    return [row for table in found.tables if table.name == name for row in table.rows]


def test_the_causes_make_up_all_failures(analysed: Callable[..., tuple[Analysis, Corpus]]):
    analysis, corpus = analysed({"m": scored({0: [1, 0], 2: [3, 0, 2]}), "n": scored({})})
    found = section(analysis, Contents.of(analysis.split, corpus), Duplicates.of(analysis.split, corpus))
    table = rows(found, "causes")
    assert len(table) == 2 * 2 * len(RULES)
    failing = [row for row in table if row[:2] == ("m", "Text to image")]
    assert sum(row[3] for row in failing) == 2
    assert sum(row[6] for row in failing) == pytest.approx(2 / 5)
    assert all(0 <= row[5] <= row[6] for row in table)
    assert {row[3] for row in table if row[:2] == ("n", "Text to image")} == {0}
    assert "n, text to image: no caption fails." in found.sentences
    failed = [row for row in table if row[0] == "m"]
    assert found.lead.startswith(f"m fails for {sum(row[3] for row in failed)} of 10 queries, most often for: ")
    assert found.lead.endswith(" n fails nowhere.")
    (first, second) = rows(found, "causes-t2i-1")
    assert first[:3] == ("c0", 1.0, "b")
    assert second[:3] == ("c2", 2.0, "d")
    assert rows(found, "causes-t2i-2") == []
    assert [plot.name for plot in found.plots] == ["causes-i2t", "causes-t2i"]
    assert found.plots[1].series[0].y == tuple(100 * row[6] for row in failing)


def test_all_pictures_the_same_make_every_error_a_near_duplicate(analysed: Callable[..., tuple[Analysis, Corpus]]):
    analysis, corpus = analysed({"m": scored({0: [1, 0], 2: [3, 0, 2]})})
    found = section(analysis, Contents.of(analysis.split, corpus), Duplicates.of(analysis.split, corpus))
    assert {row[3] for row in rows(found, "causes-t2i-1")} == {"near-duplicate"}
    (said,) = [one for one in found.sentences if one.startswith("m, text to image: for 2 of them (100.0%)")]
    assert "40.0 points of R@1" in said


def test_other_judges_are_heard(analysed: Callable[..., tuple[Analysis, Corpus]]):
    analysis, _ = analysed({"m": scored({0: [3, 0], 2: [0, 2]})})
    own = evidence(analysis)
    judgement = Judgement("people", {"t2i": {"c0": ["d", "elsewhere"]}, "i2t": {"a": ["c2"]}})
    found = section(analysis, own.contents, own.duplicates, [judgement])
    assert {row[0]: row[3] for row in rows(found, "causes-t2i-1")} == {"c0": "ground-truth gap", "c2": "typo or rare word"}


def test_a_table_of_rules_and_unique_names(analysed: Callable[..., tuple[Analysis, Corpus]]):
    analysis, corpus = analysed({"m": scored({0: [1, 0]}), "n": scored({0: [1, 0], 4: [1, 4]})})
    found = section(analysis, Contents.of(analysis.split, corpus), Duplicates.of(analysis.split, corpus))
    assert [row[1] for row in rows(found, "cause-rules")] == list(RULES)
    names = [one.name for one in (*found.tables, *found.plots)]
    assert len(set(names)) == len(names)
