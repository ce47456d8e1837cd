"""Real ranks of published models and the original system's real lists: what we compute of them is what was published."""

from __future__ import annotations

import json
from itertools import permutations

import numpy as np
import pytest
from scipy import stats

from corpora.corpus import Split
from error_analysis.analysis import Analysis, Contrast, Model, Options
from error_analysis.bootstrap import interval, mcnemar, resampled, wilcoxon
from error_analysis.comparison import Shift, compare
from error_analysis.confidence import verdicts
from error_analysis.layouts import original_comparison, original_lists
from error_analysis.mining import DIRECTIONS, Example, Mined, Retrieval, easy, hard
from ranking.matrix import Axis, Provenance, Ranking, Relevance
from ranking.metrics import Positions, recall_any

FILES = {"i2t": ("rt_ranks", "rt_top1"), "t2i": ("rti_ranks", "rti_top1")}
RECALLS = {
    "flickr30k1k_vsrn": ((71.5, 90.8, 95.5), (54.7, 80.9, 87.7)),
    "flickr30k1k_gsmn": ((74.3, 91.6, 95.3), (54.1, 79.9, 86.6)),
    "flickr30k1k_ngii": ((86.6, 98.0, 99.3), (79.8, 95.2, 97.3)),
    "coco1k_jwae": ((61.1, 91.4, 96.9), (45.1, 80.2, 89.6)),
}
FLICKR = [name for name in RECALLS if name.startswith("flickr")]
PAIRS = np.array([(text // 5, text) for text in range(5_000)])
SPLIT = Split(
    "test",
    tuple(f"i{image}" for image in range(1_000)),
    ("",) * 1_000,
    tuple(f"t{text}" for text in range(5_000)),
    ("",) * 5_000,
    PAIRS,
)


@pytest.fixture(scope="module")
def published(test_data):
    """Model -> direction -> ranks and first items, (queries,)."""
    files = {name: np.load(test_data / f"published/ranks/{name}.npz") for name in RECALLS}
    return {name: {way: tuple(file[key] for key in keys) for way, keys in FILES.items()} for name, file in files.items()}


@pytest.fixture(scope="module")
def no_scores():
    """The axes of a thousand images and their captions; every score is 0 and none is read."""
    zero = np.broadcast_to(np.float32(0), (1_000, 5_000))
    relevant = Relevance.from_pairs(PAIRS, 1_000)
    return Ranking(
        Axis("image", SPLIT.image_ids), Axis("text", SPLIT.text_ids), relevant, zero, Provenance("", "", "", "test", "", "")
    )


@pytest.fixture(scope="module")
def retrievals(published, no_scores):
    """Model -> direction -> a retrieval with the published ranks of the best truth."""

    def retrieval(direction, ranks):
        at = Positions(np.arange(len(ranks) + 1), ranks.astype(np.int64))
        return Retrieval(direction, no_scores.by("image" if direction == "i2t" else "text"), at, "pessimistic")

    return {name: {way: retrieval(way, ranks) for way, (ranks, _) in by.items()} for name, by in published.items()}


@pytest.mark.parametrize("name", RECALLS)
def test_recall_is_as_published(retrievals, name):
    for way, expected in zip(DIRECTIONS, RECALLS[name], strict=True):
        found = [100 * recall_any(retrievals[name][way].positions, k) for k in (1, 5, 10)]
        assert found == pytest.approx(expected, abs=0.051)
        assert 100 * len(easy(retrievals[name][way])) == pytest.approx(found[0] * len(retrievals[name][way].ranks))
        assert 100 * len(hard(retrievals[name][way])) == pytest.approx((100 - found[2]) * len(retrievals[name][way].ranks))


@pytest.mark.parametrize("name", RECALLS)
def test_the_first_item_is_right_where_the_rank_is_zero(published, name):
    ranks, first = published[name]["i2t"]
    assert (first // 5 == np.arange(1_000)).tolist() == (ranks == 0).tolist()
    ranks, first = published[name]["t2i"]
    assert (first == np.arange(5_000) // 5).tolist() == (ranks == 0).tolist()


@pytest.mark.parametrize("pair", list(permutations(FLICKR, 2)))
def test_who_is_better_by_far_agrees_with_a_loop(published, retrievals, pair):
    for way in DIRECTIONS:
        better, worse = (published[name][way][0].tolist() for name in pair)
        expected = {
            f"{'i' if way == 'i2t' else 't'}{query}": (a, b)
            for query, (a, b) in enumerate(zip(better, worse, strict=True))
            if a < 10 and a < b and b - a > 9
        }
        found = compare(*(retrievals[name][way] for name in pair))
        assert {shift.query: (shift.better, shift.worse) for shift in found} == expected
        gaps = [shift.gap for shift in found]
        assert gaps == sorted(gaps, reverse=True) and gaps


@pytest.mark.parametrize("pair", list(permutations(FLICKR, 2)))
def test_tests_of_real_ranks_agree_with_scipy(published, pair):
    for way in DIRECTIONS:
        a, b = (published[name][way][0].astype(float) for name in pair)
        for k in (1, 5, 10):
            only_a, only_b = ((a < k) & (b >= k)).sum(), ((b < k) & (a >= k)).sum()
            expected = stats.binomtest(int(only_a), int(only_a + only_b), 0.5).pvalue
            assert mcnemar(a < k, b < k) == pytest.approx(expected, rel=1e-9)
        changed = (b - a)[b != a]
        assert wilcoxon(b - a) == pytest.approx(stats.wilcoxon(changed, method="approx", correction=False).pvalue, rel=1e-6)


def test_the_interval_of_a_real_recall_is_the_binomial_one(published):
    """R@1 over images, each its own cluster: 71.5 % of 1,000 has a normal interval of 2.8 to each side."""
    hits = published["flickr30k1k_vsrn"]["i2t"][0] < 1
    low, high = interval(resampled(hits[:, None].astype(float), np.ones((1_000, 1)), np.arange(1_000)))
    error = 1.96 * np.sqrt(0.715 * 0.285 / 1_000)
    assert (low[0], high[0]) == pytest.approx((0.715 - error, 0.715 + error), abs=0.004)


def test_what_is_more_than_chance(retrievals):
    """NGII beats both in everything; VSRN and GSMN differ so little from caption to image that R@1 is called noise."""
    models = tuple(Model(name, Provenance("", "", "", "test", "", ""), {}, retrievals[name], {}) for name in FLICKR)
    found = {(v.first, v.second, v.direction, v.figure): v for v in verdicts(Analysis("flickr", SPLIT, Options(), models, ()))}
    vsrn, gsmn, ngii = FLICKR
    for first in (vsrn, gsmn):
        for way in DIRECTIONS:
            assert {found[first, ngii, way, figure].better for figure in ("R@1", "R@5", "R@10", "rank")} == {ngii}
    noise = found[vsrn, gsmn, "t2i", "R@1"]
    assert noise.better == "" and noise.low < 0 < noise.high
    assert noise.difference == pytest.approx(54.7 - 54.1, abs=0.1)


@pytest.fixture(scope="module")
def original(test_data):
    """The original's files by stem."""
    return {path.stem: json.loads(path.read_text()) for path in (test_data / "published/lxmert_clip_1k").glob("*.json")}


def test_the_original_comparison_keeps_its_own_rule(original):
    lists = original["comparison"]
    assert [len(lists[way]) for way in DIRECTIONS] == [13, 51]
    for way, (least, most) in zip(DIRECTIONS, ((11, 85), (10, 169)), strict=True):
        gaps = [entry["lxmert"] - entry["clip"] for entry in lists[way]]
        assert (min(gaps), max(gaps)) == (least, most)
        assert all(entry["clip"] < 10 for entry in lists[way])


def test_our_rule_keeps_every_query_of_the_originals_comparison_and_none_the_other_way(original, no_scores):
    for way in DIRECTIONS:
        entries = original["comparison"][way]
        ranking = no_scores.by("image" if way == "i2t" else "text")
        ranks = {
            name: np.append([entry[name] for entry in entries], np.zeros(len(ranking.queries.ids) - len(entries), int))
            for name in ("clip", "lxmert")
        }
        clip, lxmert = (
            Retrieval(way, ranking, Positions(np.arange(len(ranks[name]) + 1), ranks[name]), "pessimistic")
            for name in ("clip", "lxmert")
        )
        found = compare(clip, lxmert)
        assert sorted((shift.better, shift.worse) for shift in found) == sorted((e["clip"], e["lxmert"]) for e in entries)
        assert compare(lxmert, clip) == ()


def test_the_originals_lists_do_not_contradict_its_comparison(original):
    """What CLIP has among its first ten is in no list of CLIP's hard queries; what LXMERT misses in none of its easy ones."""
    captions = {entry["query"] for entry in original["comparison"]["t2i"]}
    assert not captions & {entry["query"] for entry in original["clip_1k_test"]["t2i"]["hard"]}
    assert not captions & {entry["query"] for entry in original["lxmert_1k_test"]["t2i"]["easy"]}
    for model in ("clip_1k_test", "lxmert_1k_test"):
        lists = original[model]
        assert {len(lists[way][level]) for way in DIRECTIONS for level in ("hard", "easy")} == {40}
        assert not any(set(entry["ground_truth"]) & set(entry["retrieved"]) for entry in lists["i2t"]["hard"])
        assert all(entry["retrieved"] in entry["ground_truth"] for entry in lists["i2t"]["easy"])
        assert not any(entry["ground_truth"] in entry["retrieved"] for entry in lists["t2i"]["hard"])


def test_the_first_thousand_images_of_cocos_test_were_ranked(original, test_data):
    """The map from the original's indices to COCO's order: each image has the captions that COCO gives it."""
    lines = (test_data / "published/captions/coco_test_25000.txt").read_text(encoding="utf-8").splitlines()
    place = {int(index): image for index, image in original["index_to_coco_precomp"].items()}

    def letters(text):
        return "".join(filter(str.isalnum, text.lower()))

    for model in ("clip_1k_test", "lxmert_1k_test"):
        for entry in (*original[model]["i2t"]["hard"], *original[model]["i2t"]["easy"]):
            own = lines[5 * place[entry["query"]] :][:5]
            assert sorted(map(letters, entry["ground_truth"])) == sorted(map(letters, own))


@pytest.fixture(scope="module")
def named(original):
    """A split of 1,000 images under the indices of the original's lists, with every caption that stands in them as text and id."""
    texts: dict[str, int] = {}
    for model in ("clip_1k_test", "lxmert_1k_test"):
        for entry in (*original[model]["i2t"]["hard"], *original[model]["i2t"]["easy"]):
            for text in entry["ground_truth"]:
                texts.setdefault(text, entry["query"])
            for text in np.atleast_1d(entry["retrieved"]).tolist():
                texts.setdefault(text, 0)
        for entry in (*original[model]["t2i"]["hard"], *original[model]["t2i"]["easy"]):
            texts.setdefault(entry["query"], entry["ground_truth"])
    ids = tuple(str(index) for index in range(1_000))
    pairs = {(image, text) for text, image in enumerate(texts.values())} | {(image, 0) for image in range(1_000)}
    return Split("test", ids, ("",) * 1_000, tuple(texts), tuple(texts), np.array(sorted(pairs)))


@pytest.mark.parametrize("name", ["clip_1k_test", "lxmert_1k_test"])
def test_the_originals_lists_are_written_as_they_were(original, named, name):
    """Its own entries as examples of ours give its file again, character by character."""
    lists = original[name]

    def read(way, level, entry):
        retrieved = np.atleast_1d(entry.get("retrieved", [])).tolist()
        relevant = entry["ground_truth"] if way == "i2t" else [entry["ground_truth"]]
        query, *shown = (str(entry["query"]), relevant, retrieved)
        relevant, retrieved = ([str(key) for key in keys] for keys in shown)
        return Example(way, query, 10.0 if level == "hard" else 0.0, tuple(relevant), tuple(retrieved), (0.0,) * len(retrieved))

    levels = ("hard", "easy")
    mined = {
        level: {way: Mined(40, tuple(read(way, level, entry) for entry in lists[way][level])) for way in DIRECTIONS}
        for level in levels
    }
    mined["chosen"] = {way: Mined(0, ()) for way in DIRECTIONS}
    zero = np.broadcast_to(np.float32(0), (1_000, len(named.texts)))
    relevant = Relevance.from_pairs(named.pairs, 1_000)
    ranking = Ranking(
        Axis("image", named.image_ids), Axis("text", named.text_ids), relevant, zero, Provenance("", "", "", "test", "", "")
    )
    images = Retrieval("i2t", ranking, Positions(np.arange(1_001), np.zeros(1_000, int)), "pessimistic")
    model = Model("m", ranking.provenance, {}, {"i2t": images}, mined)
    assert json.dumps(original_lists(model, named)) == json.dumps(lists)


def test_the_originals_comparison_is_written_as_it_was(original, test_data):
    """Shifts in our order, the widest gap first, give its file again: in the order of the queries."""
    lists = original["comparison"]
    ids = [str(key) for key in json.loads((test_data / "published/captions/coco_test_image_ids.json").read_text())]
    place = {int(index): image for index, image in original["index_to_coco_precomp"].items()}
    images = tuple(ids[place[index]] if index in place else f"unknown {index}" for index in range(1_000))
    texts = [entry["query"] for entry in lists["t2i"]]
    pairs = np.array(sorted({*((image, 0) for image in range(1_000)), *((0, text) for text in range(len(texts)))}))
    split = Split("test", images, ("",) * 1_000, tuple(f"t{text}" for text in range(len(texts))), tuple(texts), pairs)
    keys = {"i2t": [entry["query"] for entry in lists["i2t"]], "t2i": split.text_ids}
    shifts = {
        way: tuple(
            sorted(
                (Shift(key, entry["clip"], entry["lxmert"]) for key, entry in zip(keys[way], lists[way], strict=True)),
                key=lambda shift: -shift.gap,
            )
        )
        for way in DIRECTIONS
    }
    contrast = Contrast("clip", "lxmert", shifts, {"i2t": (), "t2i": ()})
    assert json.dumps(original_comparison(contrast, split)) == json.dumps(lists)
