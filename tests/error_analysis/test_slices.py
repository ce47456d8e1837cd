from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from corpora.corpus import Corpus, Split
from error_analysis.analysis import Options, analyse
from error_analysis.contents import Contents
from error_analysis.slices import MARKS, Slice, lift, recalls, section, slices_of
from ranking.matrix import Ranking


def test_lift_is_the_difference_of_the_shares():
    hits = np.array([1, 1, 0, 0, 1, 0], bool)
    members = np.array([[1, 0], [1, 1], [1, 1], [0, 1], [0, 1], [0, 0]], bool)
    found, _ = lift(hits, members, np.arange(6))
    assert found == pytest.approx([2 / 3 - 1 / 3, 2 / 4 - 1 / 2])


def test_p_is_that_of_a_score_test_where_every_query_is_a_cluster():
    """By the loop: each query adds (hit - mean) times 1/inside or -1/outside."""
    rng = np.random.default_rng(0)
    hits, members = rng.random(80) < 0.4, rng.random((80, 1)) < 0.3
    _, p = lift(hits, members, np.arange(80))
    inside = members[:, 0]
    added = [
        (hit - hits.mean()) * (1 / inside.sum() if own else -1 / (~inside).sum()) for hit, own in zip(hits, inside, strict=True)
    ]
    z = sum(added) / np.sqrt(sum(one**2 for one in added))
    assert p[0] == pytest.approx(2 * stats.norm.sf(abs(z)))
    table = [[(hits & inside).sum(), (~hits & inside).sum()], [(hits & ~inside).sum(), (~hits & ~inside).sum()]]
    assert p[0] == pytest.approx(stats.chi2_contingency(table, correction=False).pvalue, rel=0.15)


def test_p_is_uniform_where_nothing_differs_though_captions_of_an_image_fail_together():
    """200 made-up splits whose images decide both what captions say and whether they are found: 5 % of p lie below 0.05, give or take."""
    rng = np.random.default_rng(1)
    clusters = np.repeat(np.arange(100), 5)
    small = naive = 0
    for _ in range(200):
        hits = rng.random(500) < np.repeat(rng.choice([0.1, 0.9], 100), 5)
        members = (rng.random(500) < np.repeat(rng.choice([0.1, 0.8], 100), 5))[:, None]
        small += lift(hits, members, clusters)[1][0] < 0.05
        naive += lift(hits, members, np.arange(500))[1][0] < 0.05
    assert 2 <= small <= 20
    assert naive > 25


def test_recalls_of_known_slices():
    """60 queries: the first 30 found at once, the next 15 among the first ten, the others not."""
    ranks = np.array([0] * 30 + [9] * 15 + [10] * 15)
    half, even = np.arange(60) < 30, np.arange(60) % 2 == 0
    one, other = recalls(ranks, [Slice("place", "first", half), Slice("place", "even", even)], np.arange(60))
    assert (one.at_1, one.at_10, one.lift) == (1, 1, pytest.approx(1))
    assert one.low == pytest.approx(stats.binomtest(30, 30).proportion_ci(0.95, "exact").low)
    assert one.high == 1
    assert one.p < 1e-6
    assert (other.at_1, other.lift) == (0.5, pytest.approx(0))
    assert other.at_10 == pytest.approx(23 / 30)
    assert other.low < 0.5 < other.high
    assert other.p == pytest.approx(1)


def test_p_is_corrected_over_all_slices():
    rng = np.random.default_rng(2)
    ranks = (rng.random(400) < 0.5).astype(int)
    slices = [Slice("chance", str(i), rng.random(400) < 0.5) for i in range(20)]
    alone = [lift(ranks <= 0, one.members[:, None], np.arange(400))[1][0] for one in slices]
    together = [one.p for one in recalls(ranks, slices, np.arange(400))]
    assert together == pytest.approx(stats.false_discovery_control(alone).tolist())


def test_no_slices():
    assert recalls(np.zeros(3), [], np.arange(3)) == ()


def slice_named(slices: tuple[Slice, ...], about: str, name: str) -> np.ndarray:
    (found,) = [one.members for one in slices if (one.about, one.name) == (about, name)]
    return found


@pytest.fixture
def contents() -> Contents:
    """40 images; of the first 30 both captions say a colour and a dog, of 3 more one of them. A third caption describes two images."""
    texts, pairs = [], []
    for image in range(40):
        said = 2 if image < 30 else 1 if image < 33 else 0
        for number in range(2):
            pairs.append((image, len(texts)))
            texts.append("a red dog" if number < said else "no cat sleeps below 2 tables")
    pairs += [(38, 80), (39, 80)]
    texts.append("she quickly runs and jumps left of a large old tree")
    ids = tuple(f"i{i}" for i in range(40))
    classes = ("pet",) * 31 + ("",) * 9
    return Contents.of(Split("val", ids, classes, tuple(f"t{i}" for i in range(81)), tuple(texts), np.array(sorted(pairs))))


def test_slices_of_captions(contents: Contents, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("error_analysis.slices.LEAST", 18)
    found = slices_of("t2i", contents, np.empty((0, 2)))
    colours = slice_named(found, "says", "a colour")
    assert colours.sum() == 63
    assert (slice_named(found, "names", "dog") == colours).all()
    assert slice_named(found, "class", "pet").sum() == 62
    assert all(18 <= one.members.sum() <= 81 - 18 for one in found)
    assert not [one for one in found if one.name == "a negation"]  # only 17 captions
    monkeypatch.setattr("error_analysis.slices.LEAST", 19)
    assert not [one for one in slices_of("t2i", contents, np.empty((0, 2))) if one.name == "a colour"]  # only 18 have none


def test_an_image_has_what_half_of_its_captions_have(contents: Contents, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("error_analysis.slices.LEAST", 1)
    found = slices_of("i2t", contents, np.empty((0, 2)))
    assert slice_named(found, "says", "a colour").nonzero()[0].tolist() == list(range(33))
    assert slice_named(found, "says", "a negation").nonzero()[0].tolist() == list(range(30, 40))
    assert slice_named(found, "class", "pet").nonzero()[0].tolist() == list(range(31))


@pytest.mark.parametrize(
    ("name", "yes", "no"),
    [
        ("a colour", "a red dog", "a dog reads"),
        ("a number", "2 dogs", "a dog"),
        ("a spatial word", "a dog behind a cat", "a dog and a cat"),
        ("how two things stand", "a dog behind a cat", "a dog looks behind"),
        ("a negation", "the dog isn't here", "the dog is here"),
        ("no verb", "a dog on grass", "a dog is running"),
        ("two verbs or more", "a dog is running", "a dog on grass"),
        ("no adjective", "a dog", "a big dog"),
        ("two adjectives or more", "a big old dog", "a big dog"),
        ("an adverb", "a dog runs quickly", "a dog"),
        ("a pronoun", "she runs", "a dog"),
    ],
)
def test_marks(name: str, yes: str, no: str):
    split = Split("val", ("i",), ("",), ("a", "b"), (yes, no), np.array([(0, 0), (0, 1)]))
    assert [MARKS[name][1](reading) for reading in Contents.of(split).readings] == [True, False]


def test_sizes_and_quarters(contents: Contents, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("error_analysis.slices.LEAST", 1)
    sizes = np.array([(1000, 500)] * 10 + [(1000, 1000)] * 10 + [(1000, 2000)] * 20)
    found = slices_of("i2t", contents, sizes)
    assert [one.name for one in found if one.about == "megapixels of the image"] == ["up to 0.5", "above 0.5, up to 1", "above 1"]
    assert slice_named(found, "megapixels of the image", "above 0.5, up to 1").nonzero()[0].tolist() == list(range(10, 20))
    assert slice_named(found, "shape of the image", "upright").sum() == 20
    assert slice_named(found, "shape of the image", "wide").sum() == 10
    for about in ("words of the caption", "objects the caption names", "objects the image's captions name"):
        assert sum(one.members.astype(int) for one in found if one.about == about).tolist() == [1] * 40
    captions = slices_of("t2i", contents, sizes)
    assert slice_named(captions, "shape of the image", "wide").nonzero()[0].tolist() == list(range(20))


def test_one_size_makes_no_slice(contents: Contents):
    found = slices_of("i2t", contents, np.full((40, 2), 100))
    assert not [one for one in found if "image" in one.about and "captions" not in one.about]


def test_a_weak_kind_of_query_is_named(make_corpus: Callable[..., Corpus], make_ranking: Callable[..., Ranking]):
    captions = {f"i{i}": ["a red dog" if i < 40 else "a cat", f"number {i}"] for i in range(120)}
    corpus = make_corpus(captions)
    split = corpus.split("val")
    scores = np.random.default_rng(0).random((120, 240)) * 0.5
    for image, text in split.pairs.tolist():
        scores[image, text] = 0 if split.texts[text] == "a red dog" else 1
    analysis = analyse({"m": make_ranking(split, scores)}, corpus, Options())
    found = section(analysis, Contents.of(split, corpus), np.empty((0, 2)))
    (said,) = [one for one in found.sentences if one.startswith("m, text to image")]
    assert "says: a colour (0.0%, -100.0 points, 40 captions)" in said
    assert found.lead == said
    table = next(table for table in found.tables if table.name == "slices-t2i")
    (row,) = [row for row in table.rows if row[2] == "a colour"]
    assert row[3:5] == (40, 0.0)
    assert row[8] == pytest.approx(-100)
    (series,) = found.plots[-1].series
    assert dict(zip(series.x, series.y, strict=True))["says: a colour"] == pytest.approx(-100)


def test_too_few_queries(make_corpus: Callable[..., Corpus], make_ranking: Callable[..., Ranking]):
    corpus = make_corpus({"a": ["a dog"], "b": ["a cat"], "c": ["a cow"]})
    split = corpus.split("val")
    analysis = analyse({"m": make_ranking(split, np.eye(3))}, corpus, Options())
    found = section(analysis, Contents.of(split, corpus), np.full((3, 2), 9))
    assert found.tables == found.plots == ()
    assert all("none is compared" in said for said in found.sentences)


def test_the_overview_says_once_that_nothing_was_found(make_corpus: Callable[..., Corpus], make_ranking: Callable[..., Ranking]):
    corpus = make_corpus({f"i{i}": ["a red dog" if i < 40 else "a cat"] for i in range(120)})
    split = corpus.split("val")
    analysis = analyse({name: make_ranking(split, np.eye(120)) for name in "ab"}, corpus, Options())
    found = section(analysis, Contents.of(split, corpus), np.empty((0, 2)))
    assert found.lead == "No kind of image or caption is found worse than the rest beyond chance."
