from __future__ import annotations

from dataclasses import replace

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ranking.evaluate import of_images
from ranking.matrix import RankingError, read_ranking, write_ranking
from ranking.metrics import positions
from ranking.npz import write_npz
from ranking.rescored import OF_ITEM, OF_QUERY, Rescored, reordered, swapped


def test_listed_items_come_first_by_their_second_score():
    first = np.array([[0.9, 0.8, 0.7, 0.6, 0.8]], np.float32)
    second = np.array([[-3.0, 0, 5.0, 0, 0]], np.float32)
    listed = np.array([[True, False, True, False, False]])
    np.testing.assert_array_equal(reordered(first, second, listed), [[-3, -4, 5, -5, -4]])


def test_a_query_with_no_list_or_a_whole_one_keeps_a_models_scores():
    first, second = np.random.default_rng(0).normal(size=(2, 2, 6)).astype(np.float32)
    listed = np.array([[False] * 6, [True] * 6])
    np.testing.assert_array_equal(reordered(first, second, listed), [first[0], second[1]])


small = hnp.arrays(np.float32, (3, 7), elements=st.sampled_from([-1e4, -1.0, 0.0, 1e-6, 2e-6, 0.5, 1e4]))


@given(small, small, hnp.arrays(bool, (3, 7)))
def test_the_order_is_that_of_a_plain_sort(first, second, listed):
    """Keys of sorting: on the list or not, then the score of the stage. Equal keys must stay ties, others must not become ties."""
    result = reordered(first, second, listed)
    for query in range(3):
        some = listed[query].any()
        keys = [
            (bool(listed[query, i] or not some), float(second[query, i] if listed[query, i] else first[query, i]))
            for i in range(7)
        ]
        for i in range(7):
            for j in range(7):
                assert (keys[i] > keys[j], keys[i] == keys[j]) == (
                    result[query, i] > result[query, j],
                    result[query, i] == result[query, j],
                )


def test_marks_of_the_other_direction():
    assert swapped(np.array([0, OF_QUERY, OF_ITEM, 3], np.uint8)).tolist() == [0, OF_ITEM, OF_QUERY, 3]


@pytest.fixture
def reranked(captioned):
    """6 images and 12 texts; images have lists of 3 texts, texts of 2 images."""
    ranking = captioned(6, 2)
    marks = np.zeros((6, 12), np.uint8)
    for image in range(6):
        marks[image, np.argsort(-ranking.scores[image])[:3]] |= OF_QUERY
    for text in range(12):
        marks[np.argsort(-ranking.scores[:, text])[:2], text] |= OF_ITEM
    second = np.where(marks > 0, np.random.default_rng(1).normal(size=(6, 12)), 0).astype(np.float32)
    return replace(ranking, rescored=Rescored(second, marks))


def same(a, b):
    for left, right in ((a, b), (a.T, b.T), (a.first, b.first)):
        count = len(left.queries.ids)
        np.testing.assert_array_equal(left.rows(0, count), right.rows(0, count))


def test_each_direction_has_its_own_lists(reranked):
    for view in (reranked, reranked.T):
        second, marks = view.second(0, len(view.queries.ids))
        length = 3 if view.queries.kind == "image" else 2
        assert ((marks & OF_QUERY > 0).sum(1) == length).all()
        best = np.argsort(-view.rows(0, len(second)), axis=1)[:, :length]
        assert np.take_along_axis(marks & OF_QUERY > 0, best, 1).all()


def test_the_first_ranking_is_kept(reranked, captioned):
    same(reranked.first, captioned(6, 2))


@pytest.mark.parametrize("turned", [False, True])
def test_round_trip(reranked, tmp_path, turned):
    write_ranking(tmp_path / "a.h5", reranked.T if turned else reranked)
    back = read_ranking(tmp_path / "a.h5").by("image")
    same(back, reranked)
    np.testing.assert_array_equal(back.second(0, 6)[1], reranked.second(0, 6)[1])
    with h5py.File(tmp_path / "a.h5") as file:
        assert file.attrs["schema"] == 2  # an older version must refuse it, not read the first scores alone


def test_a_selection_keeps_both_scores(reranked):
    part = of_images(reranked, ["i1", "i4"])
    assert part.T.rows(0, 4).shape == (4, 2)
    np.testing.assert_array_equal(part.second(0, 2)[1], reranked.second(0, 6)[1][np.ix_([1, 4], [2, 3, 8, 9])])
    np.testing.assert_array_equal(reranked.T.select(["t2", "t3"], ["i1", "i4"]).T.second(0, 2)[1], part.second(0, 2)[1][:, :2])


def test_metrics_read_the_new_order(reranked):
    at = positions(reranked)
    rows = reranked.rows(0, 6)
    assert at.first.tolist() == [min((rows[i] > rows[i, t]).sum() for t in (2 * i, 2 * i + 1)) for i in range(6)]


def test_refused(reranked, captioned, tmp_path):
    with pytest.raises(RankingError, match="was not re-ranked"):
        captioned(2, 2).second(0, 1)
    with pytest.raises(RankingError, match=r"second scores \(2, 2\) do not fit scores \(6, 12\)"):
        replace(reranked, rescored=Rescored(np.zeros((2, 2)), np.zeros((2, 2))))
    with pytest.raises(RankingError, match="holds one score a pair"):
        write_npz(tmp_path / "a.npz", reranked)
    reranked.rescored.scores[1, 2] = np.nan
    with pytest.raises(RankingError, match="first nan for query 'i1' and item 't2'"):
        write_ranking(tmp_path / "a.h5", reranked)
