"""Words that stand more often in the captions of failed queries than in those of the others, and the reverse.

The log-odds ratio with an informative prior of Monroe, Colaresi and Quinn (2008), "Fightin' Words", over captions that have a word: the
prior keeps rare words from standing out by chance. Captions of one image fail together and share words, so the variance is multiplied
by the design effect of the clusters (Kish 1965); p-values are corrected after Benjamini and Hochberg over all words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse, stats

from error_analysis.analysis import Analysis, Model
from error_analysis.contents import Contents
from error_analysis.mining import DIRECTIONS, Direction
from error_analysis.section import Column, Section, Table
from error_analysis.summary import NOUN, WAY

PRIOR = 50.0
"""Captions by which the prior counts on either side; each word is as frequent in them as in all captions."""
LEAST = 10
"""Words that fewer captions have are not tested."""
ALPHA = 0.05
NAMED = 6


@dataclass(frozen=True)
class WordOdds:
    """W words and how they differ between failed and other documents; the most typical of failures first."""

    words: tuple[str, ...]
    failed: np.ndarray
    """(W,) share of the failed documents that have the word, and `others` of the other ones."""
    others: np.ndarray
    log_odds: np.ndarray
    """(W,) difference of the natural log-odds, above 0 where the word is typical of failures."""
    z: np.ndarray
    p: np.ndarray
    """(W,) two-sided, corrected over all words."""


def word_odds(documents: Sequence[frozenset[str]], failed: np.ndarray, clusters: np.ndarray) -> WordOdds | None:
    """Compare `failed` documents (D,) bool with the others; `clusters` (D,) ints. None where either side is empty or no word is frequent enough."""
    words, having = _incidence(documents)
    counts = np.asarray(having.sum(axis=0)).ravel()
    words, having = [word for word, count in zip(words, counts, strict=True) if count >= LEAST], having[:, counts >= LEAST]
    if failed.all() or not failed.any() or not words:
        return None
    of = having.sum(axis=0) / len(documents)
    sides = [(np.asarray(having[side].sum(axis=0)).ravel(), int(side.sum())) for side in (failed, ~failed)]
    with_word = [count + PRIOR * of for count, _ in sides]
    without = [size - count + PRIOR * (1 - of) for count, size in sides]
    certain = of == 1  # a word of every document has no odds
    odds = [np.log(a / np.where(certain, a, b)) for a, b in zip(with_word, without, strict=True)]
    variance = sum(1 / a + 1 / np.where(certain, a, b) for a, b in zip(with_word, without, strict=True))
    difference = odds[0] - odds[1]
    z = difference / np.sqrt(variance * design_effect(having, failed, clusters))
    p = stats.false_discovery_control(2 * stats.norm.sf(np.abs(z)))
    order = np.lexsort((words, -z))
    shares = [count / size for count, size in sides]
    return WordOdds(tuple(words[i] for i in order), *(values[order] for values in (*shares, difference, z, p)))


def _incidence(documents: Sequence[frozenset[str]]) -> tuple[list[str], sparse.csr_array]:
    """The words in the order of the alphabet, and (D, W) which document has which."""
    words = sorted(frozenset().union(*documents))
    column = {word: place for place, word in enumerate(words)}
    indices = np.array([column[word] for document in documents for word in document], np.int64)
    indptr = np.cumsum([0, *(len(document) for document in documents)])
    return words, sparse.csr_array((np.ones(len(indices)), indices, indptr), shape=(len(documents), len(words)))


def design_effect(having: sparse.csr_array, failed: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """(W,) how much larger the variance of the difference of two shares is than if documents were independent; at least 1.

    `having` (D, W). The variance under the null hypothesis of the difference is the sum of squares of what each cluster adds to it.
    """
    weight = np.where(failed, 1 / failed.sum(), -1 / (~failed).sum())
    of = np.asarray(having.sum(axis=0)).ravel() / having.shape[0]
    ids, place = np.unique(clusters, return_inverse=True)
    gather = sparse.csr_array((weight, (place, np.arange(len(place)))), shape=(len(ids), len(place)))
    added, whole = gather @ having, np.bincount(place, weight)
    together = np.asarray(added.power(2).sum(axis=0)).ravel() - 2 * of * (added.T @ whole) + of**2 * (whole**2).sum()
    alone = (1 - 2 * of) * (having.T @ weight**2) + of**2 * (weight**2).sum()
    return np.maximum(1, together / np.where(alone > 0, alone, 1))


def section(analysis: Analysis, contents: Contents) -> Section:
    """The words of each model's failures."""
    name, title = "words", "Words of failed queries"
    if not analysis.split.texts:
        return Section(name, title, ("The split has no captions.",))
    found = [
        (model, direction, _of_model(model, direction, analysis, contents))
        for model in analysis.models
        for direction in DIRECTIONS
    ]
    return Section(
        name,
        title,
        tuple(_sentence(model, direction, odds) for model, direction, odds in found),
        tuple(
            _table(direction, [(model.name, odds) for model, way, odds in found if way == direction and odds])
            for direction in DIRECTIONS
        ),
        lead=_lead(found),
    )


def _of_model(model: Model, direction: Direction, analysis: Analysis, contents: Contents) -> WordOdds | None:
    """An image's document is all its captions together."""
    captions = [frozenset(reading.words) for reading in contents.readings]
    images = [frozenset().union(*(captions[text] for text in texts)) for texts in contents.captions]
    documents = captions if direction == "t2i" else images
    return word_odds(documents, model.retrievals[direction].ranks > 0, analysis.clusters[direction])


def _lead(found: Sequence[tuple[Model, Direction, WordOdds | None]]) -> str:
    """The model and direction with the surest word."""
    surest = [(float(odds.p.min()), place) for place, (*_, odds) in enumerate(found) if odds is not None and len(odds.p)]
    if surest and min(surest)[0] <= ALPHA:
        return _sentence(*found[min(surest)[1]])
    return "No word tells failed queries from the others beyond chance." if surest else ""


def _sentence(model: Model, direction: Direction, odds: WordOdds | None) -> str:
    who = f"{model.name}, {WAY[direction].lower()}"
    if odds is None:
        return f"{who}: too few {NOUN[direction]}s fail, or too few do not, to compare their words."
    typical = list(_typical(odds.words, odds.p, odds.z > 0))
    others = list(_typical(odds.words[::-1], odds.p[::-1], odds.z[::-1] < 0))
    if not typical and not others:
        return f"{who}: none of {len(odds.words):,} words tells failed {NOUN[direction]}s from the others beyond chance."
    parts = [
        f"{what} {', '.join(words[:NAMED])}" + (f" and {len(words) - NAMED:,} more" if len(words) > NAMED else "")
        for what, words in (("too often", typical), ("too seldom", others))
        if words
    ]
    return f"{who}: in failed {NOUN[direction]}s stand {'; '.join(parts)}."


def _typical(words: Sequence[str], p: np.ndarray, side: np.ndarray) -> Iterator[str]:
    return (word for word, chance, own in zip(words, p, side, strict=True) if own and chance <= ALPHA)


def _table(direction: Direction, found: Sequence[tuple[str, WordOdds]]) -> Table:
    columns = (
        Column("Model"),
        Column("Word"),
        Column("In failed", "share"),
        Column("In others", "share"),
        Column("Log-odds", "figure"),
        Column("z", "figure"),
        Column("p, corrected", "p"),
    )
    rows = tuple(
        (name, word, *values)
        for name, odds in found
        for word, *values in zip(
            odds.words, *(column.tolist() for column in (odds.failed, odds.others, odds.log_odds, odds.z, odds.p)), strict=True
        )
    )
    of = "captions" if direction == "t2i" else "images whose captions"
    note = f"Share of the {of} that have the word. Words of fewer than {LEAST} are left out. Above 0: typical of failures."
    return Table(f"words-{direction}", f"{WAY[direction]}: words of failed queries and of the others", columns, rows, note)
