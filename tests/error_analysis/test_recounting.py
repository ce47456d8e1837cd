from __future__ import annotations

import numpy as np
import pytest

from error_analysis.recounting import Change, log_sums, recount, wrong_images_above
from ranking.matrix import Axis, Provenance, Ranking, Relevance
from ranking.metrics import positions

RNG = np.random.default_rng(2)


def ranking_of(scores, pairs):
    scores = np.asarray(scores, np.float32)
    axes = (
        Axis("image", tuple(f"i{n}" for n in range(len(scores)))),
        Axis("text", tuple(f"t{n}" for n in range(scores.shape[1]))),
    )
    return Ranking(*axes, Relevance.from_pairs(np.array(pairs), len(scores)), scores, Provenance("m", "", "", "val", "", ""))


@pytest.mark.parametrize("ties", ["pessimistic", "optimistic", "expected"])
@pytest.mark.parametrize("direction", ["image", "text"])
def test_as_the_ranks_of_scores_written_out(ties, direction):
    pairs = np.stack([np.arange(700) % 300, np.arange(700)], 1)
    scores = [RNG.integers(0, 40, (300, 700)).astype(np.float32) for _ in range(2)]
    rankings = [ranking_of(part, pairs).by(direction) for part in scores]
    queries, items = len(rankings[0].queries.ids), len(rankings[0].items.ids)
    weights, bias = RNG.integers(0, 3, (2, queries)).astype(float), RNG.integers(0, 9, items).astype(float)
    changes = [Change(weights, bias), Change(np.ones((2, queries)), np.zeros(items))]
    turned = [part if direction == "image" else part.T for part in scores]
    for found, change in zip(recount(rankings, changes, ties), changes, strict=True):
        put = sum(w[:, None] * part for w, part in zip(change.weights, turned, strict=True)) - change.bias
        put = put if direction == "image" else put.T
        assert (found == positions(ranking_of(put, pairs).by(direction), ties).first).all()


def test_scores_are_not_written_to():
    ranking = ranking_of(RNG.random((4, 6)), [[n % 4, n] for n in range(6)])
    before = ranking.scores.copy()
    recount([ranking], [Change(np.ones((1, 4)), np.zeros(6))])
    wrong_images_above(ranking, np.zeros(4, np.float32))
    log_sums(ranking, 1.0, before.max(axis=0))
    assert (ranking.scores == before).all()


def test_wrong_images_by_hand():
    # image 0 has texts 0 and 1, image 1 text 2, image 2 texts 3 and 1: text 1 is of two images
    pairs = [[0, 0], [0, 1], [1, 2], [2, 1], [2, 3]]
    ranking = ranking_of([[5, 1, 6, 7], [9, 8, 2, 3], [4, 0, 4, 4]], pairs)
    truth = np.array([5, 2, 4], np.float32)
    assert wrong_images_above(ranking, truth).tolist() == [2, 2, 2]
    assert wrong_images_above(ranking, truth, "optimistic").tolist() == [2, 2, 0]
    low = np.array([6, 8, 3], np.float32)
    assert wrong_images_above(ranking, low, "optimistic").tolist() == [1, 1, 2]


def test_log_sums():
    scores = RNG.normal(0, 300, (520, 30)).astype(np.float32)
    ranking = ranking_of(scores, [[n % 520, n % 30] for n in range(520)])
    of_image, of_text = log_sums(ranking, 7.0, scores.max(axis=0))
    assert of_image == pytest.approx(np.logaddexp.reduce(scores.astype(float) / 7, axis=1), rel=1e-5)
    assert of_text == pytest.approx(np.logaddexp.reduce(scores.astype(float) / 7, axis=0), rel=1e-5)
