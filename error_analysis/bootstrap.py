"""Intervals and tests in which a cluster of queries, such as the captions of one image, is the unit that chance draws.

Everything depends on its arguments and the seed alone, bit for bit: values are rounded to multiples of 2^-24, whose sums
are exact in float64, so that neither the number of threads nor the BLAS changes a digit.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import stats

RESAMPLES = 2000
PERMUTATIONS = 9999
LEVEL = 0.95
AT_ONCE = 200
"""Resamples drawn together: 8 MB at 5,000 clusters."""


def resampled(numerators: np.ndarray, denominators: np.ndarray, clusters: np.ndarray, seed: int = 0) -> np.ndarray:
    """(RESAMPLES, M): sum of each numerator over sum of its denominator, clusters drawn with replacement.

    `numerators`, `denominators` (Q, M), `clusters` (Q,) any ints. A mean is values over ones, the mean of a slice is
    values * mask over mask. NaN where a resample holds nothing of a slice, or where there is but one cluster. The same
    clusters and seed give the same draws whatever M is, so results of different calls are paired.
    """
    of, count = _numbered(clusters)
    if count < 2:
        return np.full((RESAMPLES, numerators.shape[1]), np.nan)
    columns = numerators.shape[1]
    sums = _sums(np.concatenate([numerators, np.broadcast_to(denominators, numerators.shape)], axis=1), of, count)
    drawn = np.concatenate([weights @ sums for weights in _draws(count, seed)])
    with np.errstate(invalid="ignore"):
        ratios: np.ndarray = drawn[:, :columns] / drawn[:, columns:]
    return ratios


def resampled_medians(values: np.ndarray, clusters: np.ndarray, seed: int = 0) -> np.ndarray:
    """(RESAMPLES,): the median of `values` (Q,), with the draws of `resampled`."""
    of, count = _numbered(clusters)
    if count < 2:
        return np.full(RESAMPLES, np.nan)
    order = np.argsort(values, kind="stable")
    ranked, of = values[order], of[order]
    medians = []
    for weights in _draws(count, seed):
        upto = np.cumsum(weights[:, of], axis=1)
        half = upto[:, -1:] / 2
        medians.append((ranked[(upto >= half).argmax(axis=1)] + ranked[(upto > half).argmax(axis=1)]) / 2)
    return np.concatenate(medians)


def resampled_auroc(signal: np.ndarray, positive: np.ndarray, clusters: np.ndarray, seed: int = 0) -> np.ndarray:
    """(RESAMPLES,): how often a positive query has a higher `signal` (Q,) than a negative one, ties half; NaN where either is missing."""
    of, count = _numbered(clusters)
    if count < 2:
        return np.full(RESAMPLES, np.nan)
    wrong = np.flatnonzero(~positive)[np.argsort(signal[~positive], kind="stable")]
    below, upto = (np.searchsorted(signal[wrong], signal[positive], side) for side in ("left", "right"))
    areas = []
    for weights in (row for block in _draws(count, seed) for row in block):
        negatives, positives = np.append(0, np.cumsum(weights[of[wrong]])), weights[of[positive]]
        pairs = negatives[-1] * positives.sum()
        areas.append(positives @ (negatives[below] + negatives[upto]) / 2 / pairs if pairs else np.nan)
    return np.array(areas)


def interval(drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper end (M,) of the LEVEL percentile interval of resampled figures (RESAMPLES, M); NaN where none was drawn."""
    ends = (1 - LEVEL) / 2, (1 + LEVEL) / 2
    if not np.isnan(drawn).any():
        low, high = np.quantile(drawn, ends, axis=0)
        return low, high
    columns = [column[~np.isnan(column)] for column in drawn.T]
    low, high = np.array([np.quantile(column, ends) if len(column) else (np.nan, np.nan) for column in columns]).T
    return low, high


def ends(drawn: np.ndarray) -> list[tuple[float | None, float | None]]:
    """`interval` of each of M figures (RESAMPLES, M) as cells of a table: None where there is none."""
    both = np.stack(interval(drawn), axis=1)
    return [(None, None) if np.isnan(low) else (low, high) for low, high in both.tolist()]


def mean_interval(values: np.ndarray, clusters: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Interval of the mean of `values` (Q,)."""
    low, high = interval(resampled(values[:, None].astype(float), np.ones((len(values), 1)), clusters, seed))
    return float(low[0]), float(high[0])


def share_interval(hits: np.ndarray, clusters: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Interval of the share of `hits` (Q,) bool. Where all or none hit, of which no resample differs, that of Clopper and Pearson over the clusters."""
    if not hits.any() or hits.all():
        return unanimous(bool(hits.any()), len(np.unique(clusters)))
    return mean_interval(hits, clusters, seed)


def unanimous(hit: bool, clusters: int) -> tuple[float, float]:
    """Clopper and Pearson's interval of a share when all clusters hit, or none."""
    least = ((1 - LEVEL) / 2) ** (1 / clusters)
    return (least, 1.0) if hit else (0.0, 1 - least)


def paired_permutation(differences: np.ndarray, clusters: np.ndarray, seed: int = 0) -> np.ndarray:
    """(M,) two-sided p of sums as far from 0 as those of `differences` (Q, M) when each cluster's sign is a coin's.

    p = (1 + as far) / (1 + PERMUTATIONS), so it is never 0 (Phipson and Smyth 2010).
    """
    of, count = _numbered(clusters)
    sums = _sums(differences, of, count)
    far, rng, done = np.zeros(sums.shape[1], np.int64), np.random.default_rng(seed), 0
    while done < PERMUTATIONS:
        size = min(AT_ONCE, PERMUTATIONS - done)
        signs = 2.0 * rng.integers(0, 2, (size, count), np.int8) - 1
        far += (np.abs(signs @ sums) >= np.abs(sums.sum(axis=0))).sum(axis=0)
        done += size
    p: np.ndarray = (1 + far) / (1 + PERMUTATIONS)
    return p


def mcnemar(a: np.ndarray, b: np.ndarray) -> float:
    """Exact two-sided p of McNemar's test that two models hit (Q,) equally often; 1 where they hit the same queries."""
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    return float(min(1.0, 2 * stats.binom.cdf(min(only_a, only_b), only_a + only_b, 0.5)))


def wilcoxon(differences: np.ndarray) -> float:
    """Two-sided p of Wilcoxon's signed-rank test on paired differences (Q,), zeros left out; 1 where nothing differs."""
    return float(stats.wilcoxon(differences).pvalue) if differences.any() else 1.0


def signed_ranks(differences: np.ndarray) -> np.ndarray:
    """(Q,) Wilcoxon's signed ranks: ranks of the sizes, ties sharing their mean, with the sign; 0 for no difference."""
    ranks = np.zeros(len(differences))
    changed = differences != 0
    ranks[changed] = stats.rankdata(np.abs(differences[changed])) * np.sign(differences[changed])
    return ranks


def holm(p: np.ndarray) -> np.ndarray:
    """(M,) p-values after Holm's step-down correction over all of them (Holm 1979)."""
    order = np.argsort(p, kind="stable")
    stepped = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    corrected = np.empty(len(p))
    corrected[order] = stepped
    return corrected


def _numbered(clusters: np.ndarray) -> tuple[np.ndarray, int]:
    """Clusters as 0, 1, 2, ... in ascending order, and how many there are."""
    ids, of = np.unique(clusters, return_inverse=True)
    return of, len(ids)


def _sums(values: np.ndarray, of: np.ndarray, count: int) -> np.ndarray:
    """(count, M) sums of (Q, M) over each cluster, of values rounded as the module's docstring says."""
    exact = np.round(values * 2.0**24) / 2.0**24
    return np.stack([np.bincount(of, column, count) for column in exact.T], axis=1)


def _draws(count: int, seed: int) -> Iterator[np.ndarray]:
    """(AT_ONCE, count) float64 blocks: how often each cluster was drawn in a resample."""
    rng = np.random.default_rng(seed)
    for start in range(0, RESAMPLES, AT_ONCE):
        size = min(AT_ONCE, RESAMPLES - start)
        drawn = rng.integers(0, count, (size, count)) + count * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count).astype(float)
