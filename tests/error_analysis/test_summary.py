from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from error_analysis.analysis import Options, analyse
from error_analysis.summary import histogram, sentences


def ranges(rows):
    return [(row["first"], row["last"]) for row in rows]


def test_ranges_follow_the_cut_offs_then_1_2_5():
    rows = histogram(np.array([0, 1, 4, 5, 9, 10, 19, 20, 199]), 200)
    assert ranges(rows) == [(1, 1), (2, 5), (6, 10), (11, 20), (21, 50), (51, 100), (101, 200)]
    assert [row["queries"] for row in rows] == [1, 2, 2, 2, 1, 0, 1]
    assert ranges(histogram(np.array([0]), 1001))[-4:] == [(101, 200), (201, 500), (501, 1000), (1001, 1001)]


@pytest.mark.parametrize(
    ("items", "expected"), [(1, [(1, 1)]), (3, [(1, 1), (2, 3)]), (5, [(1, 1), (2, 5)]), (6, [(1, 1), (2, 5), (6, 6)])]
)
def test_small_galleries(items, expected):
    assert ranges(histogram(np.array([0]), items)) == expected


def test_half_a_place_counts_as_the_later():
    assert [row["queries"] for row in histogram(np.array([0.5, 9.5]), 20)] == [0, 1, 0, 1]


@given(st.integers(1, 30_000).flatmap(lambda items: st.tuples(st.just(items), st.lists(st.integers(0, items - 1), min_size=1))))
def test_every_query_is_in_one_range(drawn):
    items, ranks = drawn
    rows = histogram(np.array(ranks), items)
    assert sum(row["queries"] for row in rows) == len(ranks)
    assert sum(row["share"] for row in rows) == pytest.approx(1)
    for row in rows:
        assert row["queries"] == sum(row["first"] <= rank + 1 <= row["last"] for rank in ranks)
    assert [row["first"] for row in rows] == [1, *(row["last"] + 1 for row in rows[:-1])]
    assert rows[-1]["last"] == items


@pytest.fixture
def say(numbered_corpus, make_ranking):
    split = numbered_corpus.split("val")

    def make(**scores):
        return sentences(analyse({name: make_ranking(split, s) for name, s in scores.items()}, numbered_corpus, Options()))

    return make


def test_a_perfect_model(say):
    assert say(clip=np.eye(24)) == [
        "clip puts a truth first for 100.0 % of images (24 of 24) and 100.0 % of captions (24 of 24). "
        "It has none among the first 10 for 0 images and 0 captions."
    ]


def test_two_models(say):
    weak = np.eye(24)
    weak[12:, 0] = 2  # caption 0 matches 12 wrong images better than its own
    both, _, second, better = say(clip=np.eye(24) * 3, lxmert=weak)
    assert second == (
        "lxmert puts a truth first for 50.0 % of images (12 of 24) and 95.8 % of captions (23 of 24). "
        "It has none among the first 10 for 0 images and 1 caption (4.2 %, their median rank 13, the worst 13 of 24)."
    )
    assert both == "For every query some model has a truth among the first 10."
    assert better == "clip has the truth of 0 images and 1 caption among its first 10, lxmert at least 10 places later."


def test_ties_are_told(say):
    told = say(constant=np.zeros((24, 24)))
    assert told[1] == (
        "constant gives a truth and a wrong item the same score for 24 images and 24 captions: these ranks depend on the tie policy."
    )


def test_what_all_models_miss_comes_first(say):
    bad = np.eye(24)
    bad[:, 0] = 2  # every image prefers caption 0: image 1 to 23 still have theirs second
    bad[20, 1:12] = 3  # and image 20 eleven others
    assert say(a=bad, b=bad)[0] == "For 1 image (4.2 %) and 1 caption (4.2 %) no model has a truth among the first 10."
