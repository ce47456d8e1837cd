"""Figures under other judges' truth, by hand and beside eccv_caption, and the section made of them."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from corpora.corpus import Caption, Corpus, CorpusWriter, ImageRecord
from corpora.images import write_images
from error_analysis.analysis import Options, analyse
from error_analysis.judgements import FIGURES, Errors, errors, figures, fold_figures, judged, section
from error_analysis.truths import Judgement, JudgementError, Truth, judgements_of
from ranking.metrics import Positions

NOTHING = np.array([], np.int64)


def test_figures_by_hand():
    """Two queries: right items at places 1 and 4 of three (R = 3, one found nowhere), and at 2 (R = 1)."""
    at = Positions(np.array([0, 3, 4]), np.array([0, 3, 9, 1]))
    assert figures(at) == {
        "queries": 2,
        "R@1": 0.5,
        "R@5": 1.0,
        "R@10": 1.0,
        "MAP@R": pytest.approx((1 / 3 + 0) / 2),
        "R-precision": pytest.approx((1 / 3 + 0) / 2),
    }


def test_first_places_as_corpus_and_judge_see_them():
    own = Truth("own", np.array([(0, 0), (1, 1), (2, 2), (3, 3)]), NOTHING)
    judge = Truth("judge", np.array([(0, 0), (1, 0), (1, 1), (2, 4)]), NOTHING)
    # 0 right for both; 1 wrong, accepted; 2 right, refused; 3 wrong, never judged
    assert errors(own, judge, np.array([0, 0, 2, 1])) == Errors(judged=3, wrong=1, accepted=1, refused=1)
    assert errors(own, judge, np.array([0, 1, 2, 3])) == Errors(3, 0, 0, 1)
    assert errors(own, judge, np.array([3, 4, 4, 3])) == Errors(3, 3, 1, 0)


@pytest.fixture
def corpus(make_corpus):
    return make_corpus({"a": ["one"], "b": ["two"], "c": ["three"]})


@pytest.fixture
def analysis(corpus, make_ranking):
    """Captions c0, c1, c2 of a, b, c. Model good is right everywhere, model off puts a's caption first for b, which a judge accepts."""
    split = corpus.split("val")
    off = np.array([[0.9, 0.1, 0.2], [0.8, 0.5, 0.3], [0.2, 0.6, 0.4]])
    return analyse({"good": make_ranking(split, np.eye(3)), "off": make_ranking(split, off)}, corpus, Options())


@pytest.fixture
def pairs(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("image,text\nb,c0\nc,c0\n")
    return path


def rows_of(made, name):
    (table,) = (table for table in made.tables if table.name == name)
    assert all(len(row) == len(table.columns) for row in table.rows)
    return [dict(zip([column.name for column in table.columns], row, strict=True)) for row in table.rows]


def test_the_section_by_hand(analysis, pairs):
    made = section(analysis, judgements_of(analysis.split, [pairs]))
    assert made.sentences == (
        "Of first items that the corpus counts as wrong, judges accept, by model and direction: mine 0.0 to 50.0 %.",
        "good, image to text: of the first captions that the corpus counts as wrong, mine judged none.",
        "off, image to text: of the first captions that the corpus counts as wrong, mine accepts 1 of the 2 that it judged (50.0 %).",
        "good, text to image: of the first images that the corpus counts as wrong, mine judged none.",
        "off, text to image: of the first images that the corpus counts as wrong, mine accepts 0 of the 1 that it judged (0.0 %).",
        # good has a tie, where the corpus's own truth has none
        "Image to text, the models stand in the order good, off by the corpus's R@1 and off, good by MAP@R under mine.",
    )
    by = {(row["Model"], row["Direction"], row["Truth"]): row for row in rows_of(made, "judgements")}
    assert len(by) == 8
    assert by["off", "Image to text", "original"]["R@1"] == pytest.approx(1 / 3)
    off = by["off", "Image to text", "mine"]
    # a: c0 first. b: c0, c1 right, both first. c: c1 first, then c2 (right), c0 (right) last: R = 2, places 2 and 3
    assert (off["Queries"], off["R@1"], off["R@5"]) == (3, pytest.approx(2 / 3), 1.0)
    assert off["R-precision"] == pytest.approx((1 + 1 + 1 / 2) / 3)
    assert off["MAP@R"] == pytest.approx((1 + 1 + (1 / 2) / 2) / 3)
    assert rows_of(made, "judgements-accepted-i2t") == [
        {"Image": "b", "Model": "off", "First item": "c0", "Accepted by": "mine", "Rank": 1}
    ]
    assert rows_of(made, "judgements-accepted-t2i") == []
    errors_of_off = rows_of(made, "judgements-errors")[1]
    assert errors_of_off == {
        "Model": "off",
        "Direction": "Image to text",
        "Judge": "mine",
        "Queries judged": 3,
        "Wrong by the corpus": 2,
        "Of these accepted": 1,
        "Right by the corpus, refused": 0,
        "Accepted share": 0.5,
    }
    assert rows_of(made, "judgements-errors")[0]["Accepted share"] is None
    plot = made.plots[0]
    assert [series.name for series in plot.series] == ["good", "off"]
    assert plot.series[1].x == ("R@1, original", "R@1, mine", "MAP@R, original", "MAP@R, mine")
    assert plot.series[1].y == pytest.approx((100 / 3, 200 / 3, 100 / 3, 75))


def test_a_model_without_an_error(corpus, make_ranking, pairs):
    found = analyse({"good": make_ranking(corpus.split("val"), np.eye(3))}, corpus, Options())
    assert section(found, judgements_of(found.split, [pairs])).sentences[0] == "Judges saw no query whose first item is wrong."


def test_several_judges_name_themselves_and_the_worst_rank_comes_first(corpus, make_ranking, pairs, tmp_path):
    scores = np.array([[9, 1, 2], [8, 5, 3], [3, 6, 2]])  # b: c0, then its c1; c: c1, c0, then its c2
    found = analyse({"m": make_ranking(corpus.split("val"), scores)}, corpus, Options())
    other = tmp_path / "yours.json"
    other.write_text('[{"image": "b", "text": "c0"}, {"image": "c", "text": "c1"}]')
    made = section(found, judgements_of(found.split, [pairs, other]))
    assert [(row["Image"], row["Accepted by"], row["Rank"]) for row in rows_of(made, "judgements-accepted-i2t")] == [
        ("c", "yours", 2),
        ("b", "mine, yours", 1),
    ]
    with pytest.raises(JudgementError, match="two judgements are named 'mine'"):
        section(found, judgements_of(found.split, [pairs, pairs]))


def test_a_changed_order_of_the_models_is_said(corpus, make_ranking, tmp_path):
    """By its own pairs a is right twice and b once; with the further pairs b finds more."""
    split = corpus.split("val")
    a = np.array([[3, 2, 1], [1, 3, 2], [1, 3, 2]])
    b = np.array([[3, 1, 2], [3, 2, 1], [3, 1, 2]])
    found = analyse({"a": make_ranking(split, a), "b": make_ranking(split, b)}, corpus, Options())
    path = tmp_path / "more.csv"
    path.write_text("image,text\na,c2\nb,c0\nc,c0\n")
    said = section(found, judgements_of(found.split, [path])).sentences
    assert "Image to text, the models stand in the order a, b by the corpus's R@1 and b, a by MAP@R under more." in said
    assert sum("order" in sentence for sentence in said) == 1


def test_where_nothing_more_is_known_it_says_so(analysis):
    made = section(analysis, judgements_of(analysis.split))
    assert len(made.sentences) == 1 and "Nothing is known of this split" in made.sentences[0]
    assert made.tables == made.plots == ()


def test_the_corpus_own_truth_on_the_judged_queries_alone(analysis):
    judge = Judgement("judge", {"i2t": {"b": ["c0"]}, "t2i": {}})
    model = analysis.models[1]
    found = judged("off", model.retrievals["i2t"], model.neighbours["i2t"].items[:, 0], [judge])
    assert list(found.figures) == ["original", "judge", "original, where judge judged"]
    assert [values["queries"] for values in found.figures.values()] == [3, 1, 1]
    assert [values["R@1"] for values in found.figures.values()] == [pytest.approx(1 / 3), 1.0, 0.0]
    assert list(judged("off", model.retrievals["t2i"], model.neighbours["t2i"].items[:, 0], [judge]).figures) == ["original"]


def test_folds(analysis):
    retrieval = analysis.models[1].retrievals["i2t"]
    by_hand = fold_figures(retrieval, 1)  # every image alone with its caption
    assert by_hand == {way: {"queries": 1.0, **dict.fromkeys(FIGURES, 1.0)} for way in ("i2t", "t2i")}
    assert fold_figures(retrieval, 3) == fold_figures(retrieval, 2) == fold_figures(retrieval) == {}


@pytest.fixture(scope="module")
def coco():
    """eccv_caption's Metrics."""
    package = pytest.importorskip("eccv_caption", reason="the package carries COCO's ids and what judges hold right")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a module that would read JSON faster
        return package.Metrics()


def test_real_judgements_of_real_ids(coco, tmp_path, make_jpeg, make_ranking):
    """60 test images that judges looked at, one of them (421999) with a right caption that no gallery holds."""
    images = [421999, *(image for image in coco.eccv_gts["i2t"] if image != 421999)][:60]
    with CorpusWriter(tmp_path / "coco") as writer:
        write_images(writer.part / "images.h5", [(str(image), make_jpeg()) for image in images])
        for image in images:
            writer.images.append(ImageRecord(str(image), "test", 40, 30))
            writer.captions += [Caption(str(text), "words", (str(image),)) for text in coco.coco_gts["i2t"][image]]
    corpus = Corpus(tmp_path / "coco")
    split = corpus.split("test")
    scores = np.random.default_rng(0).standard_normal((60, 300)).astype(np.float32)
    place = {text: index for index, text in enumerate(split.text_ids)}
    for row, image in enumerate(images[:30]):  # the model finds what judges accept, for some images
        scores[row, [place[str(text)] for text in coco.eccv_gts["i2t"][image] if str(text) in place][-1]] += 9
    found = analyse({"noise": make_ranking(split, scores)}, corpus, Options())
    made = section(found, judgements_of(found.split))
    by = {row["Truth"]: row for row in rows_of(made, "judgements") if row["Direction"] == "Image to text"}
    order = {
        int(image): [int(split.text_ids[text]) for text in np.argsort(-row)] for image, row in zip(images, scores, strict=True)
    }
    unranked = {text for texts in coco.coco_gts["i2t"].values() for text in texts}.difference(map(int, split.text_ids))
    right = {image: [text for text in coco.eccv_gts["i2t"][image] if text not in unranked] for image in images}
    theirs = coco.eccv_metrics  # takes its truth from the object
    coco_truth, coco.eccv_gts = coco.eccv_gts, {"i2t": right}
    try:
        told = theirs({"i2t": order}, "i2t")
    finally:
        coco.eccv_gts = coco_truth
    assert by["ECCV"]["MAP@R"] == pytest.approx(told["eccv_map_at_r"]["i2t"], abs=1e-12)
    assert by["ECCV"]["R-precision"] == pytest.approx(told["eccv_rprecision"]["i2t"], abs=1e-12)
    assert by["ECCV"]["R@1"] == pytest.approx(told["eccv_r1"]["i2t"], abs=1e-12)
    seen = rows_of(made, "judgements-errors")[1]
    assert seen["Judge"] == "ECCV"
    own = {image: set(coco.coco_gts["i2t"][image]) for image in images}
    accepted = sum(order[image][0] in set(right[image]) - own[image] for image in images)
    assert (seen["Of these accepted"], seen["Wrong by the corpus"]) == (accepted, sum(order[i][0] not in own[i] for i in images))
    assert accepted > 0
