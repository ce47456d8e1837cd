from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
from scipy import stats

from error_analysis.analysis import Options, analyse
from error_analysis.confidence import Draws, difference_rows, figure_rows, per_query, section, verdicts
from error_analysis.mining import Retrieval
from ranking import metrics
from ranking.metrics import positions

RNG = np.random.default_rng(0)


@pytest.fixture
def corpus(make_corpus):
    """40 images with 2 captions each."""
    return make_corpus({f"img{i}": [f"caption {i}", f"another {i}"] for i in range(40)})


@pytest.fixture
def study(corpus, make_ranking):
    """study(noise by model name): models that see the truth through so much noise."""

    def make(**noise):
        split = corpus.split("val")
        true = np.repeat(np.eye(40), 2, axis=1)
        rankings = {
            name: make_ranking(split, true + np.random.default_rng(len(name)).normal(0, spread, true.shape))
            for name, spread in noise.items()
        }
        return analyse(rankings, corpus, Options())

    return make


@pytest.mark.parametrize("ties", ["pessimistic", "expected"])
def test_the_mean_of_the_queries_is_the_figure(make_ranking, make_corpus, ties):
    corpus = make_corpus({f"i{n}": [f"{n} {m}" for m in range(1 + n % 4)] for n in range(30)})
    split = corpus.split("val")
    scores = RNG.integers(0, 12, (30, len(split.text_ids)))
    for direction in ("i2t", "t2i"):
        at = positions(Retrieval.of(make_ranking(split, scores), direction).ranking, ties)
        means = {name: values.mean() for name, values in per_query(at).items()}
        assert means == {
            "R@1": pytest.approx(100 * metrics.recall_any(at, 1)),
            "R@5": pytest.approx(100 * metrics.recall_any(at, 5)),
            "R@10": pytest.approx(100 * metrics.recall_any(at, 10)),
            "MeanR": pytest.approx(metrics.mean_rank(at)),
            "MRR": pytest.approx(100 * metrics.mrr(at)),
            "mAP": pytest.approx(100 * metrics.mean_average_precision(at)),
            "R-precision": pytest.approx(100 * metrics.r_precision(at)),
            "MAP@R": pytest.approx(100 * metrics.map_at_r(at)),
            "NDCG@10": pytest.approx(100 * metrics.ndcg(at, 10)),
            "recall_fraction@1": pytest.approx(100 * metrics.recall_fraction(at, 1)),
            "recall_fraction@5": pytest.approx(100 * metrics.recall_fraction(at, 5)),
            "recall_fraction@10": pytest.approx(100 * metrics.recall_fraction(at, 10)),
        }


def test_every_figure_has_an_interval_around_it(study):
    analysis = study(a=0.5, bb=0.6)
    rows = figure_rows(Draws(analysis))
    figures = {(model, way): set() for model in ("a", "bb") for way in ("Image to text", "Text to image")}
    for model, way, figure, value, low, high in rows:
        assert low <= value <= high, figure
        if way != "both":
            figures[model, way].add(figure)
            direction = {"Image to text": "i2t", "Text to image": "t2i"}[way]
            own = next(m for m in analysis.models if m.name == model).metrics["figures"][direction]
            assert own[figure] == value
            assert {"queries", "items", "tied"} | figures[model, way] <= set(own)
    known = set(analysis.models[0].metrics["figures"]["i2t"]) - {"queries", "items", "tied"}
    assert all(found == known for found in figures.values())
    assert [row[3] for row in rows if row[2] == "rsum"] == [model.metrics["figures"]["rsum"] for model in analysis.models]


def test_a_perfect_model_is_not_certain(study):
    rows = {row[:3]: row[4:] for row in figure_rows(Draws(study(a=0.01)))}
    assert rows["a", "Image to text", "R@1"] == pytest.approx((100 * 0.025 ** (1 / 40), 100))
    assert rows["a", "Text to image", "MedR"] == (1, 1)


def test_differences_are_paired(study):
    analysis = study(a=0.5, bb=0.5)
    draws = Draws(analysis)
    rows = {(row[2], row[3]): row[4:] for row in difference_rows(draws)}
    a, b = (model.retrievals["t2i"].ranks <= 0 for model in analysis.models)
    value, low, high = rows["Text to image", "R@1"]
    assert value == pytest.approx(100 * (a.mean() - b.mean()))
    assert low < value < high
    drawn = draws.figures["a", "t2i"]["R@1"] - draws.figures["bb", "t2i"]["R@1"]
    assert (low, high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])))


def test_noise_is_called_noise(study):
    analysis = study(a=0.5, bb=0.5)
    found = verdicts(analysis)
    assert len(found) == 10
    assert {verdict.better for verdict in found} == {""}
    found = section(analysis)
    assert found.sentences[-1] == "a and bb differ by no more than chance: none of 10 tests finds a difference. It is noise."
    assert found.lead == found.sentences[-1]


def test_the_overview_counts_the_pairs_that_are_noise(study):
    lead = section(study(a=0.2, bb=0.2, ccc=0.2)).lead
    assert lead == "3 pairs of models differ by no more than chance: that is noise."
    assert section(study(a=0.2, bb=0.2, ccc=1.5)).lead == (
        "a is better than ccc beyond chance in all 10 tests. bb is better than ccc beyond chance in all 10 tests. "
        "a and bb differ by no more than chance: none of 10 tests finds a difference. It is noise."
    )


def test_a_better_model_is_called_better(study):
    for names in (("a", "bb"), ("bb", "a")):
        analysis = study(**{name: {"a": 0.2, "bb": 1.5}[name] for name in names})
        found = verdicts(analysis)
        assert {verdict.better for verdict in found} == {"a"}
        assert section(analysis).sentences[-1] == "a is better than bb beyond chance in all 10 tests."


def test_the_tests_themselves(study):
    analysis = study(a=0.5, bb=0.7)
    found = {(v.direction, v.figure): v for v in verdicts(analysis)}
    one, two = (model.retrievals["t2i"].ranks for model in analysis.models)
    alone = int(((one < 1) & (two >= 1)).sum()), int(((one >= 1) & (two < 1)).sum())
    assert found["t2i", "R@1"].p == pytest.approx(stats.binomtest(min(alone), sum(alone)).pvalue)
    assert found["t2i", "R@1"].difference == pytest.approx(100 * (alone[0] - alone[1]) / 80)
    test = stats.wilcoxon(two - one)
    assert found["t2i", "rank"].p == pytest.approx(test.pvalue)
    total = stats.rankdata(np.abs(two - one)[two != one]).sum()
    less = min(test.statistic, total - test.statistic)
    assert abs(found["t2i", "rank"].difference) == pytest.approx((total - 2 * less) / total)
    assert (found["t2i", "rank"].difference > 0) == (one.mean() < two.mean())
    assert found["t2i", "MeanR"].difference == pytest.approx(one.mean() - two.mean())


def test_what_counts_as_better_needs_both(study):
    found = verdicts(study(a=0.5, bb=0.53, ccc=0.56, dddd=0.6, eeeee=1.2))
    apart = [v.low > 0 or v.high < 0 for v in found]
    assert [bool(v.better) for v in found] == [v.corrected < 0.05 and sure for v, sure in zip(found, apart, strict=True)]
    assert any(sure and not v.better for v, sure in zip(found, apart, strict=True))
    assert any(v.better for v in found)


def test_holm_over_the_whole_table(study):
    found = verdicts(study(a=0.5, bb=0.7, ccc=0.9))
    assert len(found) == 30
    least = min(found, key=lambda verdict: verdict.p)
    assert least.corrected == pytest.approx(30 * least.p)
    assert [v.corrected for v in sorted(found, key=lambda v: v.p)] == sorted(v.corrected for v in found)


def test_the_same_seed_gives_the_same_section(study):
    assert asdict(section(study(a=0.5, bb=0.6))) == asdict(section(study(a=0.5, bb=0.6)))


def test_a_model_against_itself(study):
    analysis = study(aa=0.5, bb=0.5)  # names of one length: the same noise
    found = verdicts(analysis)
    assert {(v.difference, v.p, v.corrected, v.better) for v in found} == {(0, 1, 1, "")}


def test_images_that_all_share_a_caption(make_corpus, make_ranking):
    corpus = make_corpus({"a": ["x"], "b": ["y"], "c": ["z"]})
    split = corpus.split("val")
    analysis = analyse(
        {"m": make_ranking(split, np.diag([1, 1, -1])), "n": make_ranking(split, np.diag([1, -1, -1]))}, corpus, Options()
    )
    analysis.__dict__["clusters"] = {"i2t": np.zeros(3, int), "t2i": np.zeros(3, int)}
    found = section(analysis)
    assert found.sentences[0] == "All images and captions hang together, so no interval can be given."
    assert found.plots == ()
    assert "noise" in found.sentences[-1]
