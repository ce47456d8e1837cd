"""Judgements are read and matched rightly, and the places of right items agree with a plain sort."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from corpora.corpus import Corpus, Split
from error_analysis.truths import Judgement, JudgementError, Truth, coco_judgements, positions_under, read_judgement, truths_of
from preprocess.karpathy import prepare
from ranking.matrix import Axis, Provenance, Ranking, Relevance
from ranking.metrics import positions

NOTHING = np.array([], np.int64)


def ranking_of(scores, pairs, queries=None, items=None):
    scores = np.asarray(scores, np.float32)
    return Ranking(
        Axis("image", tuple(queries or (f"q{n}" for n in range(len(scores))))),
        Axis("text", tuple(items or (f"t{n}" for n in range(scores.shape[1])))),
        Relevance.from_pairs(np.array(pairs), len(scores)),
        scores,
        Provenance("made up", "none", "", "val", "", "made up"),
    )


def split_of(pairs, image_ids, text_ids):
    return Split(
        "test", tuple(image_ids), ("",) * len(image_ids), tuple(text_ids), ("",) * len(text_ids), np.array(sorted(pairs))
    )


def test_places_under_another_truth_by_hand():
    ranking = ranking_of([[9, 8, 7, 6, 5], [1, 2, 3, 3, 0]], [(0, 2), (1, 3)])
    judge = Truth("judge", np.array([(0, 1), (0, 4)]), np.array([0]))
    own, other = positions_under(ranking, [Truth("own", ranking.relevant.pairs(), NOTHING), judge])
    assert own.values.tolist() == [2, 1]  # t3 ties with t2, which is wrong: it stands behind
    assert other.indptr.tolist() == [0, 3]
    assert other.values.tolist() == [1, 4, 5]  # the item that no gallery holds stands behind all
    assert positions_under(ranking, [Truth("own", ranking.relevant.pairs(), NOTHING)], "optimistic")[0].values.tolist() == [2, 0]
    assert positions_under(ranking, [Truth("own", ranking.relevant.pairs(), NOTHING)], "expected")[0].values.tolist() == [2, 0.5]


@st.composite
def rankings_and_truths(draw):
    queries, items = draw(st.integers(1, 6)), draw(st.integers(1, 8))
    scores = np.array(draw(st.lists(st.integers(0, 3), min_size=queries * items, max_size=queries * items))).reshape(
        queries, items
    )
    masks = [
        np.array(draw(st.lists(st.booleans(), min_size=queries * items, max_size=queries * items))).reshape(queries, items)
        for _ in range(3)
    ]
    for mask in masks:
        mask[draw(st.integers(0, queries - 1)), draw(st.integers(0, items - 1))] = True
    return scores, masks, draw(st.sampled_from(["pessimistic", "optimistic", "expected"]))


@settings(deadline=None)
@given(rankings_and_truths())
def test_places_agree_with_those_of_ranking_metrics(made):
    scores, masks, ties = made
    everything = [(query, 0) for query in range(len(scores))]
    truths = [Truth(str(number), np.argwhere(mask), NOTHING) for number, mask in enumerate(masks)]
    for truth, mask, found in zip(truths, masks, positions_under(ranking_of(scores, everything), truths, ties), strict=True):
        judged = np.flatnonzero(mask.any(axis=1))
        assert truth.queries.tolist() == judged.tolist()
        local = np.argwhere(mask[judged])
        expected = positions(ranking_of(scores[judged], local), ties)
        assert found.indptr.tolist() == expected.indptr.tolist()
        assert found.values.tolist() == expected.values.tolist()


def test_places_of_a_long_ranking_are_read_in_blocks():
    generator = np.random.default_rng(0)
    scores = generator.standard_normal((600, 40)).astype(np.float32)
    pairs = [(query, query % 40) for query in range(600)]
    ranking = ranking_of(scores, pairs)
    truth = Truth("own", np.array(pairs), NOTHING)
    for directed, told in ((ranking, truth), (ranking.T, Truth("own", ranking.T.relevant.pairs(), NOTHING))):
        assert positions_under(directed, [told])[0].values.tolist() == positions(directed).values.tolist()


def test_a_truth_knows_its_pairs():
    truth = Truth("judge", np.array([(0, 1), (2, 0), (2, 3)]), np.array([0, 2]))
    assert truth.queries.tolist() == [0, 2]
    assert truth.accepts(np.array([0, 0, 1, 2]), np.array([1, 0, 1, 3])).tolist() == [True, False, False, True]
    assert truth.of(np.array([2])).pairs.tolist() == [[2, 0], [2, 3]]
    assert truth.of(np.array([2])).absent.tolist() == [2]


def test_part_of_a_split_keeps_only_what_was_ranked():
    ranking = ranking_of(np.eye(2, 3), [(0, 0), (1, 1)], ["a", "b"], ["1", "2", "3"])
    right = {"a": ["1", "3", "7", "elsewhere"], "b": ["7", "elsewhere"], "c": ["1"]}
    judge = Judgement("judge", {"i2t": right, "t2i": {"7": ["a"]}}, {"i2t": {"1", "2", "3", "7"}, "t2i": {"a", "b"}})
    own, truth = truths_of(ranking, "i2t", [judge])
    assert (own.name, own.pairs.tolist(), own.absent.tolist()) == ("original", [[0, 0], [1, 1]], [])
    assert truth.pairs.tolist() == [[0, 0], [0, 2]]  # text 7 was not ranked
    assert truth.absent.tolist() == [0]  # the other one is in no gallery; image b has nothing left
    assert [truth.name for truth in truths_of(ranking.T, "t2i", [judge])] == ["original"]


@pytest.fixture
def split():
    return split_of([(0, 0), (1, 1), (1, 2)], ["a", "b"], ["1", "2", "3"])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("more.csv", "image,text\na,3\nb,2\n"),
        ("more.csv", "\ufeffimage,text,who\r\na,3,me\r\n"),
        ("more.json", '[{"image": "a", "text": "3"}, {"image": "a", "text": "3"}]'),
    ],
)
def test_further_pairs_stand_beside_the_corpus_own(tmp_path, split, name, content):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    judgement = read_judgement(path, split)
    assert judgement.name == "more"
    assert judgement.right == {"i2t": {"a": ["1", "3"], "b": ["2", "3"]}, "t2i": {"1": ["a"], "2": ["b"], "3": ["b", "a"]}}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.csv", "image,text\na,9\n", r"x.csv: pair 1: no text '9' in split 'test'; ids look like '1'"),
        ("x.csv", "image,text\na,1\nz,1\n", r"x.csv: pair 2: no image 'z'"),
        ("x.csv", "picture,text\na,1\n", r"x.csv: not a list of judgements \(KeyError: 'image'\); expected .csv"),
        ("x.csv", "image,text\na\n", r"ids must be strings, not \('a', None\)"),
        ("x.csv", "image,text\n", r"x.csv: no pairs"),
        ("x.json", '[{"image": "a", "text": 3}]', r"ids must be strings, not \('a', 3\)"),
        ("x.json", '{"a": ["1"]}', r"not a list of judgements"),
        ("x.json", "{", r"not a list of judgements \(JSONDecodeError"),
        ("x.json", "7", r"not a list of judgements"),
    ],
)
def test_a_broken_file_of_pairs_is_one_clear_error(tmp_path, split, name, content, said):
    (tmp_path / name).write_text(content)
    with pytest.raises(JudgementError, match=said):
        read_judgement(tmp_path / name, split)


def test_a_missing_file_of_pairs_and_one_that_is_no_text(tmp_path, split):
    with pytest.raises(JudgementError, match=r"gone\.csv: no such file"):
        read_judgement(tmp_path / "gone.csv", split)
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(JudgementError, match="not a list of judgements"):
        read_judgement(tmp_path / "x.csv", split)


@pytest.fixture(scope="session")
def coco_data() -> Path:
    """The files of the package eccv_caption."""
    spec = find_spec("eccv_caption")
    if spec is None:
        pytest.skip("the package eccv_caption is not installed: it carries COCO's ids and what judges hold right")
    return Path(spec.submodule_search_locations[0]) / "data"


@pytest.fixture(scope="session")
def coco_test(coco_data) -> Split:
    """COCO's 5,000 test images and 25,000 captions by their real ids, without words."""
    image_of = json.loads((coco_data / "original_caption_to_image.json").read_text())
    texts = [str(key) for key in np.load(coco_data / "coco_test_ids.npy", allow_pickle=False)]
    images = list(dict.fromkeys(str(image_of[text][0]) for text in texts))
    row = {image: index for index, image in enumerate(images)}
    return split_of([(row[str(image_of[text][0])], place) for place, text in enumerate(texts)], images, texts)


def test_the_judgements_of_coco(coco_test):
    """Counts as published: CxC and ECCV Caption, table of its README."""
    cxc, eccv = coco_judgements(coco_test)
    assert (cxc.name, eccv.name) == ("CxC", "ECCV")
    count = {(one.name, way): sum(map(len, right.values())) for one in (cxc, eccv) for way, right in one.right.items()}
    assert count == {("CxC", "i2t"): 35_585, ("CxC", "t2i"): 35_585, ("ECCV", "i2t"): 22_550, ("ECCV", "t2i"): 11_279}
    assert (len(eccv.right["i2t"]), len(eccv.right["t2i"]), len(cxc.right["t2i"])) == (1_261, 1_332, 24_972)


def test_the_order_of_cocos_images_is_karpathys(coco_test, test_data):
    published = json.loads((test_data / "published/captions/coco_test_image_ids.json").read_text())
    assert [int(key) for key in coco_test.image_ids] == published


def test_two_right_captions_are_not_in_cocos_test(coco_test):
    ranking = Ranking(
        Axis("image", coco_test.image_ids),
        Axis("text", coco_test.text_ids),
        Relevance.from_pairs(coco_test.pairs, 5_000),
        np.zeros((5_000, 25_000), np.bool_),
        Provenance("made up", "none", "", "test", "", "made up"),
    )
    _, cxc, eccv = truths_of(ranking, "i2t", coco_judgements(coco_test))
    assert len(cxc.absent) == 0
    assert sorted(coco_test.image_ids[query] for query in eccv.absent) == ["421999", "575916"]
    assert len(eccv.pairs) == 22_548


def test_karpathys_sentids_are_the_ids_that_judges_use(tmp_path, coco_test):
    """The first test image of dataset_coco.json as it stands there, prepared as users do."""
    sentences = [770337, 771687, 772707, 776154, 781998]
    image = {
        "filepath": "val2014",
        "filename": "COCO_val2014_000000391895.jpg",
        "cocoid": 391895,
        "imgid": 0,
        "split": "test",
        "sentences": [{"raw": f"caption {key}", "sentid": key, "imgid": 0} for key in sentences],
    }
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / image["filename"])
    (tmp_path / "dataset_coco.json").write_text(json.dumps({"images": [image], "dataset": "coco"}))
    prepare(tmp_path / "dataset_coco.json", tmp_path / "images", tmp_path / "coco")
    split = Corpus(tmp_path / "coco").split("test")
    assert (split.image_ids[0], split.text_ids) == (coco_test.image_ids[0], coco_test.text_ids[:5])
    cxc, _ = coco_judgements(split)
    assert set(split.text_ids) <= set(cxc.right["i2t"]["391895"])
    assert cxc.right["t2i"]["770337"] == ["391895"]


def test_other_numbered_captions_are_not_taken_for_cocos(coco_test):
    images, texts = coco_test.image_ids[:2], coco_test.text_ids[:10]
    pairs = [(text // 5, text) for text in range(10)]
    assert len(coco_judgements(split_of(pairs, images, texts))) == 2
    assert coco_judgements(split_of(pairs, images, [f"{text}#" for text in texts])) == ()
    assert coco_judgements(split_of(pairs, [images[1], images[0]], texts)) == ()  # a caption under another image
    assert coco_judgements(split_of([*pairs, (1, 0)], images, texts)) == ()
    assert coco_judgements(Split("test", images, ("", ""), (), (), np.zeros((0, 2), np.int64))) == ()


def test_without_the_package_nothing_is_known(monkeypatch, coco_test):
    monkeypatch.setattr("error_analysis.truths.find_spec", lambda name: None)
    assert coco_judgements(coco_test) == ()
