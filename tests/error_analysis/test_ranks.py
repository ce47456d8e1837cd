from __future__ import annotations

import numpy as np
import pytest

from error_analysis.analysis import Options, analyse
from error_analysis.ranks import examples, queries, section


@pytest.fixture
def study(make_corpus, make_ranking):
    """Three images; b has two captions. Model one confuses a and b, model two ranks all right."""
    corpus = make_corpus({"a": ["one"], "b": ["two", "three"], "c": ["four"]})
    split = corpus.split("val")
    one = np.array([[0.5, 0.75, 0.25, 0], [1, 0.5, 0.125, 0], [0, 0.1, 0.2, 2]])
    two = np.array([[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]])

    def make(*names, **options):
        scores = {"one": one, "two": two}
        return analyse({name: make_ranking(split, scores[name]) for name in names}, corpus, Options(**options))

    return make


def test_every_figure(study):
    (table,) = section(study("one", "two")).tables
    assert [column.name for column in table.columns] == ["Direction", "Figure", "one", "two"]
    rows = {row[:2]: row[2:] for row in table.rows}
    assert len(table.rows) == len(rows) == 21
    assert rows["Image to text", "R@1"] == pytest.approx((100 / 3, 100)) and rows["Image to text", "MedR"] == (2, 1)
    assert rows["Both directions", "rsum"][1] == 600


def test_plots(study):
    plots = {plot.name: plot for plot in section(study("one", "two")).plots}
    bars = plots["ranks-i2t"].series[0]
    assert bars.x == ("1", "2\u20134") and bars.y == pytest.approx((100 / 3, 200 / 3))
    curve = plots["recall-t2i"].series[0]  # ranks of the captions: 1, 1, 2, 0
    assert curve.x == (1, 2, 3) and curve.y == (25, 75, 100)
    shift = plots["shift-t2i-1-2"]
    assert shift.series[0].x == (2, 2, 3, 1) and shift.series[0].y == (1, 1, 1, 1) and shift.log_x and shift.log_y
    assert shift.x == "rank, one" and shift.y == "rank, two"


def test_one_model_has_no_shift(study):
    assert [plot.name for plot in section(study("one")).plots] == ["ranks-i2t", "ranks-t2i", "recall-i2t", "recall-t2i"]


def test_three_models_have_a_shift_for_each_pair(make_corpus, make_ranking):
    corpus = make_corpus({"a": ["one"], "b": ["two"]})
    rankings = {name: make_ranking(corpus.split("val"), np.eye(2)) for name in "xyz"}
    names = [plot.name for plot in section(analyse(rankings, corpus, Options())).plots if plot.name.startswith("shift-i2t")]
    assert names == ["shift-i2t-1-2", "shift-i2t-1-3", "shift-i2t-2-3"]


def test_every_query_is_a_row(study):
    images, captions = queries(study("one", "two")).tables
    assert [column.name for column in images.columns] == [
        "Image", "one: rank", "two: rank", "one: first", "two: first", "one: margin", "two: margin", "one: AP", "two: AP",
    ]  # fmt: skip
    assert images.rows[1] == ("b", 1, 0, "c0", "c1", -0.5, 1, pytest.approx((1 / 2 + 2 / 3) / 2), 1)
    assert [row[:4] for row in captions.rows] == [("c0", 1, 0, "b"), ("c1", 1, 0, "a"), ("c2", 2, 0, "a"), ("c3", 0, 0, "c")]
    assert len(captions.columns) == 7  # one truth each: average precision says what the rank says


def test_a_query_all_of_whose_items_are_true_has_no_margin(make_corpus, make_ranking):
    corpus = make_corpus({"a": ["one", "two"]})
    images, _ = queries(analyse({"m": make_ranking(corpus.split("val"), np.ones((1, 2)))}, corpus, Options())).tables
    assert images.rows == (("a", 0, "c0", None, 1.0),)


def test_examples(study):
    found = examples(study("one", "two", hard=2, easy=1, captions=("c1",)))
    assert found.sentences == (
        "Hard: no truth among the first 2. Easy: a truth in the first place. At most 40 of a kind, drawn with seed 0.",
        "one has 0 hard and 1 easy image and 1 hard and 1 easy caption.",
        "two has 0 hard and 3 easy images and 0 hard and 4 easy captions.",
    )
    _, captions = found.tables
    assert captions.rows[:3] == (
        ("one", "chosen", "c1", 1, "a"),
        ("one", "hard", "c2", 2, "a"),
        ("one", "easy", "c3", 0, "c"),
    )
    assert captions.direction == "t2i" and len(captions.rows) == 3 + 1 + 4
    assert "Easy: a truth among the first 2. All of them." in examples(study("one", easy=2, sample=0)).sentences[0]


@pytest.mark.parametrize(
    ("options", "rule", "hard", "easy"),
    [
        ({}, "Hard: no truth among the first 10. Easy: a truth in the first place.", 0, 1),
        ({"by": "margin"}, "Hard: a margin (best truth's score less the best wrong item's) below 0. Easy: of 0 or more.", 3, 1),
        ({"by": "margin", "hard_below": -0.3, "easy_from": -0.25}, "below -0.3. Easy: of -0.25 or more.", 1, 3),
        ({"by": "ap"}, "Hard: an average precision below 0.1. Easy: of 1 or more.", 0, 1),
        ({"by": "ap", "hard_below": 0.5}, "Hard: an average precision below 0.5. Easy: of 1 or more.", 1, 1),
    ],
)
def test_lists_go_by_rank_margin_or_average_precision(study, options, rule, hard, easy):
    """Model one's captions stand at 2, 2, 3 and 1, with margins -0.5, -0.25, -0.125 and 2."""
    analysis = study("one", **options)
    assert rule in examples(analysis).sentences[0]
    mined = analysis.models[0].mined
    assert (mined["hard"]["t2i"].total, mined["easy"]["t2i"].total) == (hard, easy)
