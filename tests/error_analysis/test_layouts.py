from __future__ import annotations

import json

import numpy as np
import pytest

from corpora.corpus import Caption, Corpus, CorpusWriter, ImageRecord
from corpora.images import write_images
from error_analysis.analysis import Options, analyse
from error_analysis.layouts import document, original_comparison, original_files, original_lists
from ranking.matrix import RankingError


@pytest.fixture
def corpus(make_corpus):
    """15 images with the five captions each that the original assumes."""
    return make_corpus({f"4{i:02d}": [f"caption {i}.{j}" for j in range(5)] for i in range(15)})


@pytest.fixture
def two_models(corpus, make_ranking):
    """Model b misses image 2 and its captions; model a is right everywhere."""
    split = corpus.split("val")

    def make(**options):
        right = np.full((15, 75), 0.1) + np.random.default_rng(0).uniform(0, 0.05, (15, 75))
        right[split.pairs[:, 0], split.pairs[:, 1]] = 1
        wrong = right.copy()
        wrong[2, 10:15] = wrong[:, 10:15][2] = -1
        rankings = {"clip": make_ranking(split, right), "lxmert": make_ranking(split, wrong)}
        return analyse(rankings, corpus, Options(**options))

    return make


def shape(value):
    """Keys and types, without the number of entries: what a script written for a layout relies on."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        kinds = [shape(inner) for inner in value]
        assert all(kind == kinds[0] for kind in kinds)
        return [kinds[0]] if kinds else []
    return type(value).__name__


def test_our_layout_has_one_schema_for_every_list(two_models):
    content = json.loads(json.dumps(document(two_models(images=("402",), captions=("c10",)))))
    assert content["ranks"].startswith("1-based")
    by_direction: dict[str, list] = {"i2t": [], "t2i": []}
    for model in content["models"]:
        for level in ("hard", "easy", "chosen"):
            for direction, mined in model[level].items():
                by_direction[direction] += mined["examples"]
    for comparison in content["comparisons"]:
        for direction in by_direction:
            by_direction[direction] += [example for pair in comparison[direction]["examples"] for example in pair.values()]
    assert shape(by_direction) == {
        "i2t": [
            {
                "direction": "str",
                "query": {"id": "str", "thumbnail": "str"},
                "rank": "int",
                "ranks": {"clip": "int", "lxmert": "int"},
                "relevant": [{"id": "str", "text": "str"}],
                "retrieved": [{"id": "str", "text": "str", "score": "float", "relevant": "bool"}],
            }
        ],
        "t2i": [
            {
                "direction": "str",
                "query": {"id": "str", "text": "str"},
                "rank": "int",
                "ranks": {"clip": "int", "lxmert": "int"},
                "relevant": [{"id": "str", "thumbnail": "str"}],
                "retrieved": [{"id": "str", "thumbnail": "str", "score": "float", "relevant": "bool"}],
            }
        ],
    }


def test_our_ranks_count_from_one(two_models):
    content = document(two_models())
    clip, lxmert = content["models"]
    assert {example["rank"] for example in clip["easy"]["t2i"]["examples"]} == {1}
    (example,) = lxmert["hard"]["i2t"]["examples"]
    assert (example["query"]["id"], example["rank"], example["ranks"]) == ("402", 71, {"clip": 1, "lxmert": 71})
    assert [entry["text"] for entry in example["relevant"]] == [f"caption 2.{j}" for j in range(5)]
    assert not any(entry["relevant"] for entry in example["retrieved"])
    comparison = content["comparisons"][0]
    assert comparison["i2t"]["shifts"] == [{"query": "402", "clip": 1, "lxmert": 71}]
    assert comparison["t2i"]["total"] == 5


def test_half_ranks_stay_halves(corpus, make_ranking):
    analysis = analyse({"m": make_ranking(corpus.split("val"), np.zeros((15, 75)))}, corpus, Options(ties="expected", easy=15))
    assert {example["rank"] for example in document(analysis)["models"][0]["easy"]["t2i"]["examples"]} == {8}
    assert {example["rank"] for example in document(analysis)["models"][0]["hard"]["i2t"]["examples"]} == {36}


@pytest.mark.parametrize("published", ["clip_1k_test.json", "lxmert_1k_test.json"])
def test_the_originals_lists(two_models, test_data, published):
    theirs = json.loads((test_data / "published/lxmert_clip_1k" / published).read_text())
    analysis = two_models()
    ours = json.loads(json.dumps(original_lists(analysis.models[1], analysis.split)))
    assert shape(ours) == shape(theirs)
    hard, easy = ours["i2t"]["hard"][0], ours["i2t"]["easy"][0]
    assert hard["query"] == 2 and len(hard["ground_truth"]) == 5 and len(hard["retrieved"]) == 10
    assert easy["retrieved"] in easy["ground_truth"]
    assert {entry["ground_truth"] for entry in ours["t2i"]["hard"]} == {2}
    assert all(2 not in entry["retrieved"] and len(entry["retrieved"]) == 10 for entry in ours["t2i"]["hard"])


@pytest.mark.parametrize("published", ["clip_retrievals_for_lxmert.json", "lxmert_retrievals_for_clip.json"])
def test_the_originals_chosen_queries(two_models, test_data, published):
    theirs = json.loads((test_data / "published/lxmert_clip_1k" / published).read_text())
    analysis = two_models(images=("402",), captions=("c10", "c0"))
    ours = original_lists(analysis.models[0], analysis.split)
    assert shape(ours) == shape(theirs)
    assert ours["i2t"][0]["query"] == "402"
    assert ours["t2i"][1] == {"query": "caption 0.0", "retrieved": [*ours["t2i"][1]["retrieved"]]}
    assert ours["t2i"][1]["retrieved"][0] == "400"


def test_one_list_of_ids_leaves_the_other_direction_alone(two_models):
    analysis = two_models(images=("402",))
    ours = original_lists(analysis.models[0], analysis.split)
    assert [list(entry) for entry in ours["i2t"]] == [["query", "retrieved"]]
    assert list(ours["t2i"]) == ["hard", "easy"]


def test_the_originals_comparison(two_models, test_data):
    theirs = json.loads((test_data / "published/lxmert_clip_1k/comparison.json").read_text())
    analysis = two_models()
    ours = original_comparison(analysis.contrasts[0], analysis.split)
    assert shape(ours) == shape(theirs)
    assert ours["i2t"] == [{"query": "402", "clip": 0, "lxmert": 70}]
    assert ours["t2i"][0] == {"query": "caption 2.0", "clip": 0, "lxmert": 14}


def test_the_originals_files(two_models):
    assert list(original_files(two_models())) == [
        "clip_val.json",
        "lxmert_val.json",
        "comparison.json",
        "comparison_lxmert_over_clip.json",
    ]


def test_file_names_are_safe_and_distinct(corpus, make_ranking):
    right = make_ranking(corpus.split("val"), np.random.default_rng(0).uniform(0, 1, (15, 75)))
    assert list(original_files(analyse({"../a b": right}, corpus, Options()))) == ["..-a-b_val.json"]
    with pytest.raises(ValueError, match="same file name"):
        original_files(analyse({"a b": right, "a/b": right}, corpus, Options()))


def test_a_caption_of_two_images_has_no_place_in_the_originals_layout(tmp_path, make_jpeg, make_ranking):
    with CorpusWriter(tmp_path / "shared") as writer:
        write_images(writer.part / "images.h5", [("a", make_jpeg()), ("b", make_jpeg())])
        writer.images += [ImageRecord("a", "val", 40, 30), ImageRecord("b", "val", 40, 30)]
        writer.captions.append(Caption("c", "two of them", ("a", "b")))
    corpus = Corpus(tmp_path / "shared")
    analysis = analyse({"m": make_ranking(corpus.split("val"), np.ones((2, 1)))}, corpus, Options())
    assert len(document(analysis)["models"][0]["easy"]["t2i"]["examples"][0]["relevant"]) == 2
    with pytest.raises(RankingError, match=r"'c' describes 2 images.*--original-layouts"):
        original_lists(analysis.models[0], analysis.split)
