from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import matthews_corrcoef

from error_analysis.analysis import Options, analyse
from error_analysis.head_to_head import contingency, fixed, movers, outcomes, phi, section


def test_outcomes_and_contingency():
    first, second = np.array([0, 3, 5, 5, 9]), np.array([1, 3, 2, 7, 0])
    assert outcomes(first, second) == (2, 1, 2)
    hits = first < 4, second < 3
    assert contingency(*hits) == (1, 1, 2, 1)


def test_phi():
    rng = np.random.default_rng(0)
    first = rng.random(90) < 0.4
    second = np.where(rng.random(90) < 0.7, first, ~first)
    assert phi(*contingency(first, second)) == pytest.approx(matthews_corrcoef(first, second))
    assert phi(*contingency(first, first)) == pytest.approx(1)
    assert phi(*contingency(first, np.ones(90, bool))) is None


def test_who_fixes_whom():
    ranks = np.array([[0, 4, 5, 9], [7, 0, 5, 0], [9, 9, 9, 9]])
    failures, found = fixed(ranks, 1)
    assert failures.tolist() == [3, 2, 4]
    assert found.tolist() == [[0, 2, 0], [1, 0, 0], [1, 2, 0]]
    assert fixed(ranks + 0.5, 5)[0].tolist() == [3, 2, 4]  # halfway between places 5 and 6 is not among the first five


def test_movers():
    assert movers(np.array([[0, 4, 5, 9], [7, 4, 5, 0], [1, 4, 6, 1]])).tolist() == [3, 0, 2]


@pytest.fixture
def study(numbered_corpus, make_ranking):
    """study(ranks of the captions by model name)."""

    def make(options=None, **ranks):
        split = numbered_corpus.split("val")
        rankings = {}
        for name, own in ranks.items():
            scores = np.full((24, 24), -1.0)
            for text, rank in enumerate(own):
                scores[[image for image in range(24) if image != text][:rank], text] = 1
                scores[text, text] = 0
            rankings[name] = make_ranking(split, scores)
        return analyse(rankings, numbered_corpus, options or Options())

    return make


def tables(section):
    return {table.name: table for table in section.tables}


def test_the_section(study):
    found = section(study(a=[0] * 20 + [12, 3, 0, 0], b=[0] * 18 + [1, 14, 0, 3, 0, 0]))
    kept = tables(found)
    text = [sentence for sentence in found.sentences if sentence.startswith("Text")]
    assert text == [
        "Text to image: no model puts a truth first for 1 caption of 24.",
        "Text to image: a places the truth better than b for 2 captions, worse for 1, alike for 21. Of the 3 that b does not put first a "
        "puts 66.7% first, of the 2 that a does not b 50.0%.",
    ]
    assert ("a", "b", "Text to image", 2, 21, 1) in kept["outcomes"].rows
    assert kept["movers-t2i"].rows[:2] == (("c19", 0, 14, 14), ("c20", 12, 0, 12))
    assert kept["much-worse-t2i"].rows == (("a", "b", "c19", 0, 14, 14), ("b", "a", "c20", 0, 12, 12))
    assert ("Text to image", "R@1", "b", 3, pytest.approx(2 / 3), None) in kept["fixes"].rows


def test_three_models_and_a_sample(study):
    found = section(study(Options(sample=2), a=[0] * 24, b=[5, 4, 3] + [0] * 21, c=[1] * 24))
    kept = tables(found)
    assert [row[0] for row in kept["movers-t2i"].rows] == ["c0", "c1"]
    assert "2 of 24 that move" in kept["movers-t2i"].note
    assert len(kept["outcomes"].rows) == 6
    everything = section(study(Options(sample=0), a=[0] * 24, b=[5, 4, 3] + [0] * 21))
    assert len(tables(everything)["movers-t2i"].rows) == 3


def test_no_failures_and_one_model(study):
    found = section(study(a=[0] * 24, b=[0] * 24))
    assert "Of the 0 that b does not put first a puts none first" in found.sentences[-1]
    alone = section(study(a=[0] * 24))
    assert (len(alone.sentences), alone.tables) == (1, ())
