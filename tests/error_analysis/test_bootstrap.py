from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from error_analysis import bootstrap
from error_analysis.bootstrap import (
    ends,
    holm,
    interval,
    mcnemar,
    mean_interval,
    paired_permutation,
    resampled,
    resampled_auroc,
    resampled_medians,
    share_interval,
    signed_ranks,
    unanimous,
    wilcoxon,
)

RNG = np.random.default_rng(5)


@pytest.fixture
def few(monkeypatch):
    """Fewer draws, taken in blocks that do not divide them."""
    monkeypatch.setattr(bootstrap, "RESAMPLES", 70)
    monkeypatch.setattr(bootstrap, "AT_ONCE", 30)


def weights_of(clusters, seed):
    """How often each query stands in each resample."""
    ids, of = np.unique(clusters, return_inverse=True)
    return np.concatenate([block[:, of] for block in bootstrap._draws(len(ids), seed)]).astype(int)


def test_a_resample_draws_as_many_clusters_as_there_are(few):
    drawn = np.concatenate(list(bootstrap._draws(9, 0)))
    assert drawn.shape == (70, 9)
    assert (drawn.sum(axis=1) == 9).all()
    assert len(np.unique(drawn, axis=0)) > 60


def test_figures_are_those_of_the_queries_written_out(few):
    clusters, values = np.array([7, 7, 3, 5, 5, 5, 1]), np.array([0.5, 1, 0, 3, 2, 2, 7])
    inside = np.array([1, 0, 1, 1, 0, 1, 1])
    found = resampled(np.stack([values, values * inside], 1), np.stack([np.ones(7), inside], 1), clusters, 3)
    medians = resampled_medians(values, clusters, 3)
    for row, (weights, median) in enumerate(zip(weights_of(clusters, 3), medians, strict=True)):
        written, kept = np.repeat(values, weights), np.repeat(inside, weights) > 0
        assert found[row, 0] == pytest.approx(written.mean())
        assert found[row, 1] == (pytest.approx(written[kept].mean()) if kept.any() else pytest.approx(np.nan, nan_ok=True))
        assert median == np.median(written)


def test_auroc_is_that_of_the_queries_written_out(few):
    clusters, signal = np.arange(30) // 3, RNG.integers(0, 6, 30).astype(float)
    positive = RNG.random(30) < 0.4
    found = resampled_auroc(signal, positive, clusters, 1)
    for area, weights in zip(found, weights_of(clusters, 1), strict=True):
        assert area == pytest.approx(roc_auc_score(np.repeat(positive, weights), np.repeat(signal, weights)))
    nothing = resampled_auroc(signal, np.ones(30, bool), clusters)
    assert np.isnan(nothing).all()


def test_as_scipys_bootstrap_where_every_query_is_a_cluster():
    values = RNG.exponential(size=200)
    expected = stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=1).confidence_interval
    assert mean_interval(values, np.arange(200)) == pytest.approx((expected.low, expected.high), abs=0.02)


def test_queries_that_fail_together_widen_the_interval():
    hits = np.repeat(RNG.random(60) < 0.5, 5)
    low, high = share_interval(hits, np.arange(300) // 5)
    alone = share_interval(hits, np.arange(300))
    assert high - low > 1.9 * (alone[1] - alone[0])
    assert (low, high) == mean_interval(hits[::5], np.arange(60))  # as many as there are images


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng, inside = np.random.default_rng(0), 0
    for seed in range(150):
        hits = np.repeat(rng.random(80) < 0.3, 2) & (rng.random(160) < 0.9)
        low, high = share_interval(hits, np.arange(160) // 2, seed)
        inside += low <= 0.27 <= high
    assert 133 <= inside <= 149  # of 150; 95 % are 142


def test_all_or_none():
    assert share_interval(np.ones(6, bool), np.arange(6)) == pytest.approx((0.025 ** (1 / 6), 1))
    exact = stats.binomtest(0, 4).proportion_ci(method="exact")
    assert share_interval(np.zeros(8, bool), np.arange(8) // 2) == pytest.approx((exact.low, exact.high))
    exact = stats.binomtest(4, 4).proportion_ci(method="exact")
    assert unanimous(True, 4) == pytest.approx((exact.low, exact.high))


def test_one_cluster_says_nothing():
    assert np.isnan(resampled(np.ones((3, 2)), np.ones((3, 2)), np.zeros(3))).all()
    assert np.isnan(resampled_medians(np.arange(3), np.zeros(3))).all()
    assert np.isnan(resampled_auroc(np.arange(3), np.array([True, False, True]), np.zeros(3))).all()
    assert ends(resampled(np.ones((3, 1)), np.ones((3, 1)), np.zeros(3))) == [(None, None)]


def test_intervals_leave_out_empty_draws():
    drawn = np.stack([np.arange(101.0), np.full(101, np.nan), np.append(np.full(50, np.nan), np.arange(51.0))], 1)
    low, high = interval(drawn)
    assert low.tolist() == pytest.approx([2.5, np.nan, 1.25], nan_ok=True)
    assert high.tolist() == pytest.approx([97.5, np.nan, 48.75], nan_ok=True)
    assert ends(drawn)[1] == (None, None)
    assert ends(drawn[:, :1])[0] == pytest.approx((2.5, 97.5))


def test_the_seed_alone_decides_bit_for_bit():
    """In another process and with another number of threads, too."""
    code = (
        "import numpy as np, hashlib; from error_analysis.bootstrap import *; rng = np.random.default_rng(0)\n"
        "v, c = rng.random((4000, 7)), rng.integers(0, 900, 4000)\n"
        "out = [resampled(v, np.ones_like(v), c, 4), resampled_medians(v[:, 0], c, 4), paired_permutation(v - 0.49, c, 4)]\n"
        "print(hashlib.sha256(b''.join(x.tobytes() for x in out)).hexdigest())"
    )
    digests = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads, "PYTHONPATH": "."},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "2")
    ]
    assert digests[0] == digests[1] != ""
    values, ones, clusters = np.arange(9.0)[:, None], np.ones((9, 1)), np.arange(9)
    assert (resampled(values, ones, clusters, 1) != resampled(values, ones, clusters, 2)).any()
    wide = resampled(np.tile(values, 3), np.tile(ones, 3), clusters, 1)
    assert (wide[:, 2] == resampled(values, ones, clusters, 1)[:, 0]).all()  # draws do not depend on how many figures there are


def test_permutation_as_all_sign_flips():
    differences, clusters = np.array([3.0, 1, 2, 2, -1, 4, 0.5]), np.array([0, 0, 1, 2, 2, 3, 4])
    sums = np.bincount(clusters, differences)
    flips = np.array(np.meshgrid(*[[-1, 1]] * 5)).reshape(5, -1).T @ sums
    exact = (np.abs(flips) >= sums.sum()).mean()
    assert paired_permutation(differences[:, None], clusters)[0] == pytest.approx(exact, abs=0.01)


def test_permutation_never_says_zero_and_always_one_for_nothing():
    clusters = np.arange(60)
    p = paired_permutation(np.stack([np.ones(60), np.zeros(60)], 1), clusters)
    assert p.tolist() == [1 / 10000, 1]
    alone = paired_permutation(np.ones((60, 1)), np.zeros(60))  # one cluster has no other sign to differ from
    assert alone.tolist() == [1]


def test_mcnemar_by_hand_and_against_scipy():
    first, second = np.array([1] * 8 + [0] * 2 + [1] * 5 + [0] * 3, bool), np.array([0] * 8 + [1] * 2 + [1] * 5 + [0] * 3, bool)
    assert mcnemar(first, second) == pytest.approx(2 * (1 + 10 + 45) / 1024)
    assert mcnemar(second, first) == mcnemar(first, second) == pytest.approx(stats.binomtest(2, 10).pvalue)
    assert mcnemar(first, first) == 1
    assert mcnemar(np.array([True, False]), np.array([False, True])) == 1


def test_wilcoxon_and_its_ranks():
    differences = np.array([0, 4, -1, 1, 9, 0, 2.0])
    assert signed_ranks(differences).tolist() == [0, 4, -1.5, 1.5, 5, 0, 3]
    assert np.abs(signed_ranks(differences))[signed_ranks(differences) < 0].sum() == stats.wilcoxon(differences).statistic
    assert wilcoxon(np.array([1.0, 2, 3, 4, 5])) == pytest.approx(2 / 32)
    assert wilcoxon(np.zeros(4)) == 1
    many = RNG.normal(0.2, 1, 90)
    assert wilcoxon(many) == pytest.approx(stats.wilcoxon(many).pvalue)


def test_holm_by_hand():
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.6, 0.9])).tolist() == [1, 1]
    assert holm(np.array([0.02])).tolist() == [0.02]
    assert holm(np.array([])).tolist() == []
