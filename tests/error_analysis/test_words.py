from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import sparse, stats

from corpora.corpus import Corpus
from error_analysis.analysis import Options, analyse
from error_analysis.contents import Contents
from error_analysis.words import LEAST, PRIOR, design_effect, section, word_odds
from ranking.matrix import Ranking


def documents(rng: np.random.Generator, shares: dict[str, np.ndarray]) -> list[frozenset[str]]:
    """Each has a word by its own chance."""
    count = len(next(iter(shares.values())))
    return [frozenset(word for word, share in shares.items() if rng.random() < share[i]) for i in range(count)]


def test_log_odds_of_a_hand_worked_case():
    """40 failed documents of which 20 have the word, 60 others of which 12 have: 32 of 100 in all."""
    own = [frozenset({"a", "dog"})] * 20 + [frozenset({"a"})] * 20 + [frozenset({"a", "dog"})] * 12 + [frozenset({"a"})] * 48
    failed = np.arange(100) < 40
    found = word_odds(own, failed, np.arange(100))
    assert found is not None
    place = found.words.index("dog")
    yes, no = 20 + PRIOR * 0.32, 20 + PRIOR * 0.68
    other_yes, other_no = 12 + PRIOR * 0.32, 48 + PRIOR * 0.68
    assert found.log_odds[place] == pytest.approx(np.log(yes / no) - np.log(other_yes / other_no))
    z = found.log_odds[place] / np.sqrt(1 / yes + 1 / no + 1 / other_yes + 1 / other_no)
    assert found.z[place] == pytest.approx(z)
    assert (found.failed[place], found.others[place]) == (0.5, 0.2)
    assert found.p[place] == pytest.approx(stats.false_discovery_control([1, 2 * stats.norm.sf(z)])[1])
    place = found.words.index("a")  # every document has it
    assert (found.log_odds[place], found.p[place]) == (0, 1)


def test_the_design_effect_by_the_loop():
    rng = np.random.default_rng(0)
    clusters = rng.integers(0, 12, 60)
    failed = rng.random(60) < np.where(clusters % 2, 0.8, 0.2)
    having = (rng.random((60, 3)) < np.stack([clusters % 2, clusters % 3 == 0, np.full(60, 0.5)], axis=1) * 0.9).astype(float)
    weight = np.where(failed, 1 / failed.sum(), -1 / (~failed).sum())
    expected = []
    for word in having.T:
        parts = (word - word.mean()) * weight
        together = sum(parts[clusters == one].sum() ** 2 for one in set(clusters.tolist()))
        expected.append(max(1, together / (parts**2).sum()))
    assert design_effect(sparse.csr_array(having), failed, clusters) == pytest.approx(expected)
    assert max(expected) > 1.5


def test_alone_in_their_clusters_documents_have_no_design_effect():
    having = sparse.csr_array((np.random.default_rng(0).random((30, 4)) < 0.5).astype(float))
    assert design_effect(having, np.arange(30) < 12, np.arange(30)) == pytest.approx(np.ones(4))


def test_words_that_make_queries_fail_are_found_and_others_not():
    rng = np.random.default_rng(1)
    failed = np.arange(2000) < 800
    shares = {f"w{i}": np.full(2000, 0.1) for i in range(60)}
    shares["bad"], shares["good"] = np.where(failed, 0.3, 0.1), np.where(failed, 0.1, 0.3)
    found = word_odds(documents(rng, shares), failed, np.arange(2000))
    assert found is not None
    assert (found.words[0], found.words[-1]) == ("bad", "good")
    assert found.p[0] < 1e-6
    assert found.p[-1] < 1e-6
    assert (np.diff(found.z) <= 0).all()
    assert sum(found.p <= 0.05) <= 5


def test_false_discoveries_are_rare_though_captions_of_an_image_share_words_and_fail_together():
    """In 40 splits without any effect, 60 words each: a word is discovered in few of them; without clusters in most."""
    rng = np.random.default_rng(2)
    clusters = np.repeat(np.arange(120), 5)
    wrong = naive = 0
    for _ in range(40):
        failed = rng.random(600) < np.repeat(rng.choice([0.1, 0.9], 120), 5)
        shares = {f"w{i}": np.repeat(rng.choice([0.02, 0.9], 120, p=[0.8, 0.2]), 5) for i in range(60)}
        own = documents(rng, shares)
        wrong += (word_odds(own, failed, clusters).p <= 0.05).any()
        naive += (word_odds(own, failed, np.arange(600)).p <= 0.05).any()
    assert wrong <= 7
    assert naive > 20


def test_seldom_words_are_left_out():
    own = [frozenset({"dog"})] * LEAST + [frozenset({"cat"})] * (LEAST - 1)
    found = word_odds(own, np.arange(len(own)) % 2 == 0, np.arange(len(own)))
    assert found is not None
    assert found.words == ("dog",)


@pytest.mark.parametrize("failed", [np.zeros(30, bool), np.ones(30, bool)])
def test_nothing_to_compare(failed: np.ndarray):
    assert word_odds([frozenset({"dog"})] * 30, failed, np.arange(30)) is None


def test_no_word_is_frequent_enough():
    assert word_odds([frozenset({str(i)}) for i in range(30)], np.arange(30) < 9, np.arange(30)) is None
    assert word_odds([frozenset()] * 30, np.arange(30) < 9, np.arange(30)) is None


def test_the_words_of_a_model(make_corpus: Callable[..., Corpus], make_ranking: Callable[..., Ranking]):
    captions = {f"i{i}": ["a red dog" if i < 40 else "a cat", f"number {i}"] for i in range(120)}
    corpus = make_corpus(captions)
    split = corpus.split("val")
    scores = np.random.default_rng(0).random((120, 240)) * 0.5
    for image, text in split.pairs.tolist():
        scores[image, text] = 0 if split.texts[text] == "a red dog" else 1
    analysis = analyse({"m": make_ranking(split, scores)}, corpus, Options())
    found = section(analysis, Contents.of(split, corpus))
    assert "m, image to text: too few images fail, or too few do not, to compare their words." in found.sentences
    assert "m, text to image: in failed captions stand too often dog, red, a; too seldom number, cat." in found.sentences
    assert found.lead.startswith("m, text to image: in failed captions stand too often dog")
    images, texts = found.tables
    assert images.rows == ()
    assert [row[1] for row in texts.rows][:2] == ["dog", "red"]
    assert texts.rows[0][2:4] == (1.0, 0.0)
