from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from error_analysis import hubness
from error_analysis.analysis import Analysis, Model, Options, analyse
from error_analysis.hubness import corrected, hubs, k_occurrence, section, skewness, wrongly_first
from error_analysis.mining import Retrieval


def test_counts_by_hand():
    items = np.array([[0, 2], [0, 1], [3, 0], [0, 2]])
    assert k_occurrence(items, 5).tolist() == [4, 1, 2, 1, 0]
    assert wrongly_first(items, np.array([1, 0, 0.5, 7]), 5).tolist() == [2, 0, 0, 1, 0]
    assert skewness(np.array([4, 1, 2, 1, 0])) == pytest.approx(stats.skew([4, 1, 2, 1, 0]))
    assert skewness(np.array([4, 1, 2, 1, 0])) == pytest.approx(1.872 / 1.84**1.5)
    assert skewness(np.full(4, 3)) == 0


def test_hubs_lie_two_deviations_above_the_mean():
    counts = np.array([1] * 8 + [20, 9])  # mean 3.7, deviation 5.97: above 15.6
    assert hubs(counts).tolist() == [8]
    assert hubs(np.array([1] * 40 + [9, 20])).tolist() == [41, 40]
    assert hubs(np.full(9, 4)).tolist() == []


@pytest.fixture
def crowded(make_corpus, make_ranking):
    """60 images with 2 captions, whose scores are what is true, noise, and a liking of the model for some items."""

    def make(liking, noise=0.3):
        rng = np.random.default_rng(1)
        corpus = make_corpus({f"i{n}": [f"{n} a", f"{n} b"] for n in range(60)}, f"c{liking}-{noise}")
        split = corpus.split("val")
        scores = np.repeat(np.eye(60), 2, axis=1) + rng.normal(0, noise, (60, 120))
        scores += liking * (rng.random(60) < 0.1)[:, None] + liking * (rng.random(120) < 0.1)
        return analyse({"m": make_ranking(split, scores)}, corpus, Options())

    return make


def test_corrections_as_written_out(crowded):
    analysis = crowded(0.7)
    (model,) = analysis.models
    found = corrected(model)
    near = {"i2t": 10, "t2i": 10}
    scores = model.retrievals["i2t"].ranking.rows(0, 60).astype(float)
    temperature = 0.5 * scores.std(axis=1).mean()
    for direction, own in (("i2t", scores), ("t2i", scores.T)):
        of_query = np.sort(own, axis=1)[:, -near[direction] :].mean(axis=1)
        of_item = np.sort(own, axis=0)[-near[direction] :].mean(axis=0)
        csls = 2 * own - of_query[:, None] - of_item
        softmax = np.exp(own / temperature) / np.exp(own / temperature).sum(axis=0)
        true = np.repeat(np.eye(60, dtype=bool), 2, axis=1)
        true = true if direction == "i2t" else true.T
        for method, put in (("CSLS", csls), ("inverted softmax", softmax)):
            best = np.where(true, put, -np.inf).max(axis=1, keepdims=True)
            assert (found[direction][method] == ((put >= best) & ~true).sum(axis=1)).all()


def test_liked_items_are_found_and_corrected(crowded):
    analysis = crowded(0.7)
    found = section(analysis)
    rows = {table.name: table.rows for table in found.tables}
    counts = {row[1]: row for row in rows["hubness"]}
    assert counts["Text to image"][5] > 1.5  # skewness
    assert all(row[6] > 0 for row in rows["hubness-gain"] if row[1] == "Text to image" and row[3] == "R@1")
    assert "(beyond chance)" in found.sentences[-1]
    assert "are hubs and take the first place of" in found.sentences[1]
    assert found.lead == found.sentences[1]  # the likes are of images
    (model,) = analysis.models
    before = model.retrievals["t2i"].ranks
    after = corrected(model)["t2i"]["CSLS"]
    row = next(row for row in rows["hubness-gain"] if row[1:4] == ("Text to image", "CSLS", "R@5"))
    shares = 100 * (before < 5).mean(), 100 * (after < 5).mean()
    assert row[4:7] == pytest.approx((*shares, shares[1] - shares[0]))
    assert row[7] <= row[6] <= row[8]


def test_hub_tables_hold_ids_of_items(crowded):
    found = section(crowded(0.7))
    for table in found.tables[2:]:
        ids = {"hubs-i2t": "c", "hubs-t2i": "i"}[table.name]
        assert table.rows and all(row[1].startswith(ids) for row in table.rows)
        assert [row[2] for row in table.rows] == sorted((row[2] for row in table.rows), reverse=True)
    assert {row[4] for row in found.tables[2].rows} == {1}
    assert {row[4] for row in found.tables[3].rows} == {2}


def test_without_hubs_no_gain_is_claimed(crowded):
    said = section(crowded(0.0, 0.02)).sentences
    assert "beyond chance" not in said[-1]
    assert [sentence.split()[-1] for sentence in said[:2]] == ["failure.", "failure."]


def test_one_score_for_all_and_three_queries(make_corpus, make_ranking):
    corpus = make_corpus({"a": ["x"], "b": ["y"], "c": ["z"]})
    split = corpus.split("val")
    for scores in (np.ones((3, 3)), np.eye(3), -np.eye(3)):
        found = section(analyse({"m": make_ranking(split, scores)}, corpus, Options()))
        assert len(found.sentences) == (2 if scores.min() == 1 else 3)
        assert all(row[5] == 0 for row in found.tables[0].rows)


def test_a_reranked_file_is_not_corrected(crowded, monkeypatch):
    analysis = crowded(0.7)
    monkeypatch.setattr(hubness, "_measured", lambda model: False)
    assert [table.name for table in section(analysis).tables] == ["hubness", "hubs-i2t", "hubs-t2i"]


@pytest.mark.parametrize("scale", [1e-30, 3e37])
def test_any_scale_of_scores(crowded, scale):
    analysis = crowded(0.7)
    before = analysis.models[0].retrievals["i2t"].ranking
    ranking = replace(before, scores=(before.rows(0, 60).astype(float) * scale).astype(np.float32))
    scaled = Analysis(analysis.corpus, analysis.split, analysis.options, (model_of(ranking),), ())
    assert [row[5] for row in gains(section(scaled))] == pytest.approx([row[5] for row in gains(section(analysis))], abs=1)


def gains(section):
    return next(table.rows for table in section.tables if table.name == "hubness-gain")


def model_of(ranking):
    return Model("m", ranking.provenance, {}, {way: Retrieval.of(ranking, way) for way in ("i2t", "t2i")}, {})
