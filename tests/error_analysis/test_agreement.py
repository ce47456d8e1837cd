from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from error_analysis.agreement import both_ways, found_by_image, independent, intraclass, section
from error_analysis.analysis import Options, analyse

RNG = np.random.default_rng(3)


def test_found_by_image():
    pairs = np.array([[0, 0], [0, 1], [1, 1], [1, 2], [1, 3]])  # text 1 is of both
    counts, found = found_by_image(np.array([True, True, False, False]), pairs, 2)
    assert (counts.tolist(), found.tolist()) == ([2, 3], [2, 1])


def test_independent_by_hand():
    assert independent(np.array([1, 2]), 0.5).tolist() == pytest.approx([0.75, 1, 0.25])
    assert independent(np.full(10, 3), 0.2).tolist() == pytest.approx([5.12, 3.84, 0.96, 0.08])


def test_intraclass_correlation():
    counts = np.full(50, 4)
    assert intraclass(np.repeat([0, 4], 25), counts) == pytest.approx(1)
    groups = RNG.random((50, 4)) < RNG.random((50, 1))
    between, within = 4 * groups.mean(1).var(ddof=1), groups.var(axis=1, ddof=1).mean()
    assert intraclass(groups.sum(1), counts) == pytest.approx((between - within) / (between + 3 * within))
    assert stats.f_oneway(*groups.astype(float)).statistic == pytest.approx(between / within)
    assert abs(intraclass((RNG.random((4000, 5)) < 0.3).sum(1), np.full(4000, 5))) < 0.03
    for found, size in ((0, 4), (4, 4), (1, 1)):
        assert intraclass(np.full(50, found), np.full(50, size)) is None


def test_both_ways():
    assert both_ways(np.array([True, True, False, False, False]), np.array([2, 0, 1, 3, 0])) == (1, 1, 2, 1)


@pytest.fixture
def study(make_corpus, make_ranking):
    """Four images with two captions, c0 ... c7."""
    corpus = make_corpus({f"i{n}": [f"{n} a", f"{n} b"] for n in range(4)})

    def make(scores, hard=2):
        return analyse({"m": make_ranking(corpus.split("val"), np.array(scores))}, corpus, Options(hard=hard))

    return make


def test_the_section(study):
    scores = [
        [9, 9, 0, 0, 0, 0, 0, 0],
        [8, 0, 7, 1, 0, 0, 0, 0],
        [0, 0, 0, 2, 5, 5, 4, 0],
        [0, 0, 0, 3, 6, 0, 6, 0.5],
    ]
    # captions to images: c0 and c1 rank 0; c2 0; c3 (1 against 2, 3) 2; c4 (5 against 6) 1; c5 0; c6 0; c7 0
    # images to captions: i0 0; i1 (7 against 8) 1; i2 0; i3 (6 against a tie of a wrong 6) 1
    found = section(study(scores))
    tables = {table.name: table.rows for table in found.tables}
    assert [row[:3] for row in tables["captions-together"]] == [("m", 0, 0), ("m", 1, 2), ("m", 2, 2)]
    assert [row[3] for row in tables["captions-together"]] == pytest.approx([4 / 16, 4 * 6 / 16, 4 * 9 / 16])
    assert tables["both-ways"][0][:5] == ("m", 2, 0, 2, 0)
    assert tables["both-ways"][0][5] == pytest.approx(stats.spearmanr([0, 1, 0, 1], [0, 1, 0.5, 0]).statistic)
    assert tables["uneven-captions"] == (("m", "i1", 0, 1, 2), ("m", "i2", 0, 0.5, 1))
    assert tables["one-way"] == ()
    assert found.sentences == (
        "m: for 0.0% of images none of the captions finds the image first, where 6.2% were to be expected if captions failed one by one; "
        "for 50.0% all do.",
        "m: 0 images find a caption of theirs first though none of their captions finds them, and 2 do not though one does.",
    )


def test_found_one_way(study):
    scores = np.zeros((4, 8))
    scores[0, :2] = 5  # found by both, and finds them
    scores[1, 2:4], scores[2:, 2:4] = 5, 6  # the first two captions of image 1 prefer two others
    scores[2, 4:6], scores[3, 6:8] = 7, 7
    tables = {table.name: table.rows for table in section(study(scores)).tables}
    assert tables["one-way"] == (("m", "i1", 0, 2, 2),)


def test_one_caption_an_image_and_no_failure(make_corpus, make_ranking):
    corpus = make_corpus({"a": ["x"], "b": ["y"], "c": ["z"]})
    for scores in (np.eye(3), np.ones((3, 3))):
        found = section(analyse({"m": make_ranking(corpus.split("val"), scores)}, corpus, Options()))
        assert len(found.sentences) == 1
        assert found.tables[1].rows[0][5] is None
