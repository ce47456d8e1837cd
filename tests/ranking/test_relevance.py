"""Graded relevance: its files, and NDCG with it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score
from tiny_model import TinyInputs, TinyModel, split

from ranking.engine import Engine
from ranking.evaluate import as_table, evaluate
from ranking.matrix import RankingError
from ranking.metrics import graded_ndcg
from ranking.options import RankingOptions
from ranking.predict import predict
from ranking.relevance import GradedRelevance, read_relevance, write_relevance


def rows_of(relevance: object):
    matrix = np.array(relevance, np.float32)
    return lambda start, stop: matrix[start:stop]


def test_a_hand_worked_case(ranking_of):
    """Order by score: items 2, 0, 1 with relevance 0.5, 1, 0; gains sqrt(2) - 1, 1, 0; best order 1, sqrt(2) - 1, 0."""
    ranking = ranking_of([[0.3, 0.1, 0.9]], [[0]], ("text", "image"))
    small, discount = 2**0.5 - 1, 1 / np.log2(3)
    expected = (small + discount) / (1 + small * discount)
    assert graded_ndcg(ranking, rows_of([[1, 0, 0.5]])) == pytest.approx(expected)
    assert graded_ndcg(ranking, rows_of([[1, 0, 0.5]]), k=1) == pytest.approx(small)
    assert graded_ndcg(ranking, rows_of([[0, 0, 0]])) == 0  # as published: nothing is relevant
    assert graded_ndcg(ranking, rows_of([[0.5, 0, 1]])) == pytest.approx(1)


def test_ranks_count_from_one(ranking_of):
    """The first place is discounted by log2(2): with log2(rank) it would be infinite, with log2(rank + 2) less than 1."""
    ranking = ranking_of([[2, 1]], [[0]], ("text", "image"))
    assert graded_ndcg(ranking, rows_of([[0, 1]])) == pytest.approx(1 / np.log2(3))


def test_the_order_is_descending(ranking_of):
    ranking = ranking_of([[3, 2, 1]], [[0]], ("text", "image"))
    assert graded_ndcg(ranking, rows_of([[1, 0.5, 0]])) == 1 > graded_ndcg(ranking, rows_of([[0, 0.5, 1]]))


def test_ties(ranking_of):
    ranking = ranking_of([[1, 1, 1, 5]], [[0]], ("text", "image"))
    graded, places = rows_of([[1, 0, 0.5, 0]]), 1 / np.log2(np.arange(2, 6))
    small = 2**0.5 - 1
    ideal = places[0] + small * places[1]
    for ties, gains in (("pessimistic", (0, small, 1)), ("optimistic", (1, small, 0)), ("expected", ((1 + small) / 3,) * 3)):
        assert graded_ndcg(ranking, graded, 25, ties) == pytest.approx(np.dot(gains, places[1:]) / ideal)
    for ties, gain in (("pessimistic", 0), ("optimistic", 1), ("expected", (1 + small) / 3)):
        found = graded_ndcg(ranking, graded, 2, ties)  # the cut goes through the tie
        assert found == pytest.approx(gain * places[1] / (places[0] + small * places[1]))
    with pytest.raises(RankingError, match="tie policy"):
        graded_ndcg(ranking, graded, 25, "none")


@given(st.integers(0, 1000), st.sampled_from([1, 3, 25]))
def test_it_is_sklearns(ranking_of, seed, k):
    """sklearn takes gains as they are."""
    draw = np.random.default_rng(seed)
    scores, relevance = draw.permutation(21 * 30).reshape(21, 30), draw.random((21, 30))
    ranking = ranking_of(scores, [[0]] * 21, ("text", "image"))
    expected = ndcg_score(np.exp2(relevance.astype(np.float32)) - 1, scores, k=k)
    assert graded_ndcg(ranking, rows_of(relevance), k) == pytest.approx(expected, rel=1e-6)


# In results


def graded_of(ranking, method="rouge-l", seed=0) -> GradedRelevance:
    texts, images = (ranking.by(kind).queries.ids for kind in ("text", "image"))
    values = np.random.default_rng(seed).random((len(texts), len(images))).astype(np.float32)
    return GradedRelevance(method, texts, images, values)


def test_both_directions_and_parts_read_their_own_relevance(captioned, tmp_path):
    ranking = captioned(6, 2)
    graded = graded_of(ranking)
    figures = evaluate(ranking, relevance=[graded])["figures"]
    t2i = graded_ndcg(ranking.by("text"), rows_of(graded.values))
    i2t = graded_ndcg(ranking.by("image"), rows_of(graded.values.T))
    assert figures["t2i"]["NDCG@25 rouge-l"] == pytest.approx(100 * t2i)
    assert figures["i2t"]["NDCG@25 rouge-l"] == pytest.approx(100 * i2t) != pytest.approx(100 * t2i)
    assert "NDCG@25 rouge-l" not in evaluate(ranking)["figures"]["t2i"]

    (tmp_path / "ids").write_text("i1\ni4\n")
    fixed = evaluate(ranking, "fixed", image_ids=tmp_path / "ids", relevance=[graded])["figures"]["t2i"]["NDCG@25 rouge-l"]
    part = ranking.by("text").select(["t2", "t3", "t8", "t9"], ["i1", "i4"])
    expected = graded_ndcg(part, rows_of(graded.values[np.ix_([2, 3, 8, 9], [1, 4])]))
    assert fixed == pytest.approx(100 * expected)

    folds = evaluate(ranking, "folds", fold_size=3, relevance=[graded])
    name = "NDCG@25 rouge-l"
    each = [fold["t2i"][name] for fold in folds["folds"]]
    assert folds["figures"]["t2i"][name] == pytest.approx(np.mean(each)) and folds["std"]["t2i"][name] == pytest.approx(
        np.std(each)
    )
    assert name in as_table(folds)


def test_relevance_of_another_split_is_refused(captioned):
    with pytest.raises(RankingError, match=r"relevance rouge-l: text 't8' has none; it is of another split"):
        graded_of(captioned(4, 2)).of(captioned(5, 2))


@pytest.mark.parametrize("bad", [-1, np.nan])
def test_values_that_were_not_computed_are_refused(bad):
    values = np.array([[0.5, 1], [bad, 0]], np.float32)
    with pytest.raises(
        RankingError, match="1 of 4 values are negative or NaN: not computed, the first for text 'b' and image 'x'"
    ):
        GradedRelevance("spice", ["a", "b"], ["x", "y"], values)
    with pytest.raises(RankingError, match="2 texts and 1 images"):
        GradedRelevance("spice", ["a", "b"], ["x"], values)


# Files


@pytest.fixture
def values() -> np.ndarray:
    return np.random.default_rng(0).random((len(split().text_ids), len(split().image_ids))).astype(np.float32)


def test_what_is_written_is_read(tmp_path, values):
    path = tmp_path / "relevance.h5"
    write_relevance(path, "rouge-l", split(), np.array_split(values, 4))
    read = read_relevance(path, split())
    assert read.method == "rouge-l" and np.array_equal(read.values, values)
    with pytest.raises(RankingError, match="of another split"):
        read_relevance(path, split().subset(split().image_ids[:9]))
    path.write_bytes(path.read_bytes()[:-99])
    with pytest.raises(RankingError, match="no whole relevance file"):
        read_relevance(path, split())


def test_too_few_rows_leave_no_file(tmp_path, values):
    with pytest.raises(RankingError, match="relevance of 2 texts for a split of"):
        write_relevance(tmp_path / "relevance.h5", "rouge-l", split(), [values[:2]])
    assert not list(tmp_path.iterdir())


@pytest.fixture
def bare(values) -> np.ndarray:
    """Of a method that finds texts most relevant to their own images."""
    images, texts = split().pairs.T
    values[texts, images] += 0.5
    return values.astype("<f4")


def test_bare_values_of_the_original_are_read_by_their_size(tmp_path, bare):
    path = tmp_path / "coco-test-spice.npy"
    bare.tofile(path)
    read = read_relevance(path, split())
    assert read.method == "coco-test-spice" and np.array_equal(read.values, bare)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(RankingError, match=r"bytes; bare float32 values for the \d+ texts and \d+ images of split"):
        read_relevance(path, split())
    np.full(bare.shape, -1, "<f4").tofile(path)
    with pytest.raises(RankingError, match="not computed"):
        read_relevance(path, split())
    with pytest.raises(RankingError, match="no whole relevance file"):
        read_relevance(tmp_path / "none.h5", split())


def test_bare_values_in_another_order_are_refused(tmp_path, bare):
    path = tmp_path / "coco-test-spice.npy"
    sparse = np.where(bare > 1.2, bare, 0).astype("<f4")  # as of SPICE most values are 0
    for values in (bare, sparse):
        for moved in (np.roll(values, 1, 0), np.roll(values, 1, 1), values[::-1], np.zeros_like(values)):
            moved.tofile(path)
            with pytest.raises(RankingError, match="rows and columns are not those of split test, or in another order"):
                read_relevance(path, split())


def test_the_job_prints_it_and_a_ranking_that_stands_gets_it_later(tmp_path, values, monkeypatch, capsys):
    write_relevance(tmp_path / "relevance.h5", "rouge-l", split(), [values])
    monkeypatch.setattr("ranking.predict.Corpus", lambda folder: type("Made", (), {"split": lambda self, name: split()})())
    engine = Engine(TinyModel(), TinyInputs(), split())
    without = RankingOptions()
    predict(engine, "Tiny", "none", without, tmp_path, "")
    assert "NDCG@25" not in capsys.readouterr().out
    written = (tmp_path / "ranking-test.h5").stat().st_mtime_ns
    result = predict(engine, "Tiny", "none", RankingOptions(relevance=(tmp_path / "relevance.h5",)), tmp_path, "")
    assert "NDCG@25 rouge-l" in capsys.readouterr().out
    assert (tmp_path / "ranking-test.h5").stat().st_mtime_ns == written
    stored = json.loads((tmp_path / "metrics.json").read_text())
    assert stored["figures"]["t2i"]["NDCG@25 rouge-l"] == result["figures"]["t2i"]["NDCG@25 rouge-l"]
