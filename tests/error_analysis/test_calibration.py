from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from error_analysis.analysis import Options, analyse
from error_analysis.calibration import (
    auroc,
    bins,
    cross_fitted,
    expected_calibration_error,
    fitted_temperature,
    risks,
    section,
    softmax_of_first,
)

RNG = np.random.default_rng(8)


def test_auroc():
    signal, right = RNG.integers(0, 9, 200).astype(float), RNG.random(200) < 0.3
    assert auroc(signal, right) == pytest.approx(roc_auc_score(right, signal))
    assert auroc(np.array([1, 2, 2, 3.0]), np.array([False, True, False, True])) == 3.5 / 4


def test_risks_by_hand():
    right = np.array([True, False, True, False])
    assert risks(np.array([4, 3, 2, 1.0]), right).tolist() == [0, 1 / 2, 1 / 3, 1 / 2]
    assert risks(np.array([4, 4, 2, 1.0]), right).tolist() == [1 / 2, 1 / 2, 1 / 3, 1 / 2]  # of a tie either may come first
    assert risks(np.zeros(4), right).tolist() == [1 / 2] * 4


def test_risks_are_the_mean_over_the_orders_of_ties():
    signal, right = RNG.integers(0, 4, 40).astype(float), RNG.random(40) < 0.5
    drawn = []
    for _ in range(3000):
        order = np.lexsort((RNG.random(40), -signal))
        drawn.append(np.cumsum(~right[order]) / np.arange(1, 41))
    assert risks(signal, right) == pytest.approx(np.mean(drawn, axis=0), abs=0.03)


def test_softmax():
    scores = np.array([[2.0, 1, 0], [5, 5, 5]])
    assert softmax_of_first(scores, 1.0) == pytest.approx([1 / (1 + np.exp(-1) + np.exp(-2)), 1 / 3])
    assert softmax_of_first(scores, 0.5)[0] == pytest.approx(1 / (1 + np.exp(-2) + np.exp(-4)))
    assert softmax_of_first(1e30 * scores, 1e-30).tolist() == pytest.approx([1, 1 / 3])


@pytest.mark.parametrize("temperature", [0.01, 0.6, 30.0])
def test_a_temperature_is_found_again(temperature):
    scores = -np.sort(-RNG.normal(0, 3 * temperature, (20_000, 6)), axis=1)
    right = RNG.random(20_000) < softmax_of_first(scores, temperature)
    assert fitted_temperature(scores, right) == pytest.approx(temperature, rel=0.05)
    fitted, mean = cross_fitted(scores, right, np.arange(20_000) // 5)
    assert mean == pytest.approx(temperature, rel=0.05)
    assert expected_calibration_error(fitted, right) < 0.02
    assert expected_calibration_error(softmax_of_first(scores, temperature / 5), right) > 0.1


def test_the_temperature_of_a_query_comes_from_the_other_half():
    scores, right = -np.sort(-RNG.normal(size=(40, 5)), axis=1), RNG.random(40) < 0.5
    clusters = np.arange(40) // 4
    before, _ = cross_fitted(scores, right, clusters)
    changed = right.copy()
    changed[:4] = ~changed[:4]
    after, _ = cross_fitted(scores, changed, clusters)
    assert (before[:4] == after[:4]).all()
    assert (before != after).sum() == 20


def test_ece_by_hand():
    confidence, right = np.array([0.1, 0.1001, 0.19, 0.95, 1.0]), np.array([True, False, False, True, True])
    assert bins(confidence).tolist() == [0, 1, 1, 9, 9]
    assert bins(np.array([0.0, 0.3])).tolist() == [0, 2]
    assert expected_calibration_error(confidence, right) == pytest.approx((0.9 + 0.2901 + 0.05) / 5)


@pytest.fixture
def study(make_corpus, make_ranking):
    corpus = make_corpus({f"i{n}": [f"{n} a", f"{n} b"] for n in range(40)})
    split = corpus.split("val")

    def make(scores):
        return analyse({"m": make_ranking(split, scores)}, corpus, Options())

    return make


def test_the_section(study):
    analysis = study(np.repeat(np.eye(40), 2, axis=1) + RNG.normal(0, 0.5, (40, 80)))
    found = section(analysis)
    signals, probabilities = found.tables
    near, right = analysis.models[0].neighbours["t2i"], analysis.models[0].retrievals["t2i"].ranks == 0
    row = next(row for row in signals.rows if row[1:3] == ("Text to image", "lead of the first item"))
    lead = (near.scores[:, 0].astype(float) - near.scores[:, 1]).tolist()
    assert row[3] == pytest.approx(roc_auc_score(right, lead))
    assert row[4] < row[3] < row[5]
    assert row[7] == pytest.approx(right.mean())
    surest = np.argsort(-np.array(lead))[:64]
    assert row[9] == pytest.approx(right[surest].mean())
    assert row[6] == pytest.approx(np.mean([1 - right[np.argsort(-np.array(lead))[:n]].mean() for n in range(1, 81)]))
    assert probabilities.rows[1][2] == pytest.approx(right.mean())
    assert len(found.sentences) == 2
    assert [plot.name for plot in found.plots] == ["risk-i2t", "risk-t2i", "reliability-i2t", "reliability-t2i"]
    for plot in found.plots[2:]:
        (series,) = plot.series
        assert all(low <= y <= high for low, y, high in zip(series.low, series.y, series.high, strict=True))


def test_what_cannot_be_judged(study, make_corpus, make_ranking):
    truth = np.repeat(np.eye(40), 2, axis=1)
    for scores in (truth, -truth, np.ones((40, 80))):
        found = section(study(scores))
        assert (len(found.sentences), found.tables) == (1, ())
    corpus = make_corpus({"a": ["x"]}, "one")
    assert not section(analyse({"m": make_ranking(corpus.split("val"), np.ones((1, 1)))}, corpus, Options())).tables


def test_three_queries(make_corpus, make_ranking):
    corpus = make_corpus({"a": ["x"], "b": ["y"], "c": ["z"]})
    scores = np.array([[3, 1, 0], [2, 0, 1], [0, 1, 5]])
    found = section(analyse({"m": make_ranking(corpus.split("val"), scores)}, corpus, Options()))
    assert found.sentences[0].startswith("m, image to text:")
