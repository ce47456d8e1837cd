from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from ranking.evaluate import as_table, evaluate, of_images, read_ids, write_result
from ranking.matrix import RankingError, Relevance, read_ranking, write_ranking
from ranking.metrics import Positions, mean_average_precision, ndcg, positions, recall_any


def numbers(tree: object, name: str = "") -> dict[str, float]:
    """Every number of nested dicts, under its path."""
    if isinstance(tree, dict):
        return {path: value for key, child in tree.items() for path, value in numbers(child, f"{name}/{key}").items()}
    return {name: tree}


@pytest.fixture
def three(ranking_of):
    """Three images of two captions each. Best captions stand at 0, 1, 4; images at 0, 2, 0, 0, 1, 1 for the six captions."""
    scores = [
        [9, 4, 3, 2, 1, 0],
        [8, 5, 6, 7, 4, 3],  # best own caption 3, behind caption 0
        [7, 6, 5, 4, 3, 2],  # own captions 4 and 5 are last
    ]
    return ranking_of(scores, [[0, 1], [2, 3], [4, 5]])


def test_by_hand(three):
    result = evaluate(three)
    i2t, t2i = result["figures"]["i2t"], result["figures"]["t2i"]
    assert (i2t["queries"], i2t["items"], t2i["queries"], t2i["items"]) == (3, 6, 6, 3)
    assert [i2t[f"R@{k}"] for k in (1, 5, 10)] == pytest.approx([100 / 3, 100, 100])
    assert [i2t[f"recall_fraction@{k}"] for k in (1, 5, 10)] == pytest.approx([100 / 6, 500 / 6, 100])
    assert (i2t["MedR"], i2t["MeanR"]) == (2, pytest.approx((1 + 2 + 5) / 3))
    assert t2i["MRR"] == t2i["mAP"] == pytest.approx(100 * (1 + 1 / 3 + 1 + 1 + 1 / 2 + 1 / 2) / 6)
    assert result["figures"]["rsum"] == pytest.approx(100 / 3 + 100 + 100 + 50 + 100 + 100)
    assert result["figures"]["rsum_published"] == pytest.approx(1 / 3 + 1 + 1 + 1 / 2 + 1 + 1)
    assert i2t["tied"]["queries"] == t2i["tied"]["queries"] == 0
    assert (result["model"], result["split"], result["digest"]) == ("made-up", "test", "digest")
    assert result["protocol"] == {"name": "all", "images": 3}
    assert result["unit"]["shares"] == "percent"


def test_directions_do_not_mix(captioned):
    ranking = captioned(30, 5)
    figures = evaluate(ranking)["figures"]
    for way, kind in (("i2t", "image"), ("t2i", "text")):
        at = positions(ranking.by(kind))
        assert figures[way]["R@1"] == 100 * recall_any(at, 1)
        assert figures[way]["mAP"] == 100 * mean_average_precision(at)
        assert figures[way]["NDCG@10"] == 100 * ndcg(at, 10)
    assert figures == evaluate(ranking)["figures"], "nothing is remembered"
    assert figures["i2t"]["R@1"] != figures["t2i"]["R@1"]


def test_rows_may_be_texts(captioned, tmp_path):
    ranking = captioned(20, 3)
    write_ranking(tmp_path / "texts.h5", ranking.T)
    texts = read_ranking(tmp_path / "texts.h5")
    assert texts.queries.kind == "text"
    for options in ({}, {"protocol": "folds", "fold_size": 5}):
        assert evaluate(texts, **options) == evaluate(ranking, **options)


def test_perfect(ranking_of):
    ranking = ranking_of(np.repeat(np.eye(10), 5, axis=1), np.arange(50).reshape(10, 5))
    figures = evaluate(ranking)["figures"]
    assert (figures["rsum"], figures["rsum_published"]) == (600, 6)
    assert figures["i2t"]["mAP"] == figures["t2i"]["mAP"] == figures["i2t"]["MAP@R"] == 100
    assert figures["i2t"]["recall_fraction@1"] == pytest.approx(20), "one of five captions is no whole"
    assert (figures["i2t"]["MedR"], figures["t2i"]["MeanR"]) == (1, 1)


def test_ties_are_told(ranking_of):
    ranking = ranking_of([[1, 1, 0, 0], [0, 1, 1, 0]], [[0, 1], [2, 3]])  # image 1: caption 2 ties with 1; caption 1 with image 1
    result = evaluate(ranking)
    i2t, t2i = result["figures"]["i2t"], result["figures"]["t2i"]
    assert i2t["tied"] == {
        "queries": 1,
        "pessimistic": {"R@1": 50, "R@5": 100, "R@10": 100},
        "optimistic": {"R@1": 100, "R@5": 100, "R@10": 100},
    }
    assert (i2t["R@1"], evaluate(ranking, ties="optimistic")["figures"]["i2t"]["R@1"]) == (50, 100)
    assert t2i["tied"]["queries"] == 2  # captions 1 and 3
    assert evaluate(ranking, ties="expected")["figures"]["i2t"]["MeanR"] == (1 + 1.5) / 2
    assert "i2t: in 1 of 2 queries the best relevant item is tied with an irrelevant one: R@1 50.00 to 100.00" in as_table(result)


def test_ties_among_relevant_items_do_not_count(ranking_of):
    figures = evaluate(ranking_of([[1, 1, 0], [0, 0, 1]], [[0, 1], [2]]))["figures"]
    assert figures["i2t"]["tied"]["queries"] == figures["t2i"]["tied"]["queries"] == 0


def test_folds(captioned):
    ranking = captioned(12, 5)
    result = evaluate(ranking, "folds", fold_size=4)
    assert result["protocol"] == {"name": "folds", "images": 4, "folds": 3}
    alone = [
        evaluate(ranking.select([f"i{i}" for i in range(start, start + 4)], [f"t{i}" for i in range(5 * start, 5 * start + 20)]))
        for start in (0, 4, 8)
    ]
    assert result["folds"] == [part["figures"] for part in alone]
    folds = [numbers(fold) for fold in result["folds"]]
    for path, value in numbers(result["figures"]).items():
        assert value == pytest.approx(np.mean([fold[path] for fold in folds]))
        assert numbers(result["std"])[path] == pytest.approx(np.std([fold[path] for fold in folds]))
    assert result["std"]["rsum"] > 0
    assert (result["figures"]["i2t"]["queries"], result["figures"]["t2i"]["queries"]) == (4, 20)
    assert result["figures"]["rsum"] > evaluate(ranking)["figures"]["rsum"], "a smaller gallery is easier"


def test_one_fold_is_all(captioned):
    ranking = captioned(6, 2)
    result = evaluate(ranking, "folds", fold_size=6)
    assert result["figures"] == evaluate(ranking)["figures"]
    assert set(numbers(result["std"]).values()) == {0}


@pytest.mark.parametrize("size", [5, 7, 13, 0, -4])
def test_folds_must_divide(captioned, size):
    with pytest.raises(RankingError, match=f"12 images do not divide into folds of {size}; choose another fold size"):
        evaluate(captioned(12, 2), "folds", fold_size=size)


def test_fixed(captioned, tmp_path):
    ranking = captioned(10, 3)
    path = tmp_path / "test_img_keys_1k.tsv"
    path.write_text("i7\ni2\r\n\ni3\n")
    result = evaluate(ranking, "fixed", image_ids=path)
    part = of_images(ranking, ["i2", "i3", "i7"])
    assert part.items.ids == ("t6", "t7", "t8", "t9", "t10", "t11", "t21", "t22", "t23")
    assert result["figures"] == evaluate(part)["figures"]
    assert result["protocol"] == {"name": "fixed", "images": 3}


def test_captions_of_images_outside_lose_those(captioned):
    """A caption that describes two images stays with the one that is inside."""
    ranking = captioned(3, 1)
    shared = replace(ranking, relevant=Relevance.from_pairs(np.array([[0, 0], [1, 1], [2, 2], [2, 0]]), 3))
    part = of_images(shared, ["i0", "i1"])
    assert part.items.ids == ("t0", "t1")
    np.testing.assert_array_equal(part.relevant.pairs(), [[0, 0], [1, 1]])
    assert of_images(shared, ["i2"]).items.ids == ("t0", "t2")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"i1\ni99\n", "1 of its 2 images are not in the ranking, the first: 'i99'; the ranking's ids look like 'i0'"),
        (b"i1\ni2\ni1\n", "id 'i1' comes twice; it must list each id once, one a line"),
        (b"\n\n", "empty; it must list each id once"),
        (b"\xff\xfe", "no list of ids, one a line"),
        (None, "no list of ids, one a line .*No such file"),
    ],
)
def test_lists_that_do_not_fit(captioned, tmp_path, content, message):
    path = tmp_path / "ids.tsv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RankingError, match=f"ids.tsv: {message}"):
        evaluate(captioned(3, 2), "fixed", image_ids=path)


def test_ids_keep_their_spaces(tmp_path):
    (tmp_path / "ids").write_text("a b\n c\td \n", encoding="utf-8")
    assert read_ids(tmp_path / "ids") == ["a b", "c\td"]


def test_protocols_that_do_not_exist(captioned, tmp_path):
    ranking = captioned(3, 2)
    with pytest.raises(RankingError, match="protocol '5k': must be one of all, fixed, folds"):
        evaluate(ranking, "5k")
    with pytest.raises(RankingError, match="protocol fixed needs a list of image ids"):
        evaluate(ranking, "fixed")
    with pytest.raises(RankingError, match="protocol folds takes no list of image ids"):
        evaluate(ranking, "folds", image_ids=tmp_path / "ids")
    with pytest.raises(RankingError, match="tie policy 'best': must be one of"):
        evaluate(ranking, ties="best")


def test_rankings_that_cannot_be_evaluated(ranking_of, captioned):
    with pytest.raises(RankingError, match="no text axis"):
        evaluate(ranking_of([[1, 0], [0, 1]], [[0], [1]], ("image", "image")))
    with pytest.raises(RankingError, match="1 of 3 text queries have no relevant item, the first: 't2'"):
        evaluate(ranking_of(np.zeros((2, 3)), [[0], [1]]))
    broken = captioned(4, 2)
    broken.scores[3, 1] = np.nan
    with pytest.raises(RankingError, match="nan for query 'i3' and item 't1'"):
        evaluate(broken)


def test_result_is_json(captioned, tmp_path):
    result = evaluate(captioned(6, 2), "folds", fold_size=3)
    path = tmp_path / "metrics.json"
    path.write_text("before")
    write_result(path, result)
    assert json.loads(path.read_text()) == result
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_result(path, {"rsum": float("nan")})
    assert json.loads(path.read_text()) == result, "a failed write leaves the old file"


def test_table(three, captioned):
    lines = as_table(evaluate(three)).splitlines()
    assert lines[0] == "made-up on made-up, split test: 3 images, ties pessimistic, shares in percent"
    rows = {line.split()[0]: line.split()[1:] for line in lines[2:]}
    assert rows["queries"] == ["3", "6"]
    assert rows["R@1"] == ["33.33", "50.00"]
    assert rows["rsum"] == ["483.33"]
    assert len({len(line) for line in lines[1:-2]}) == 1, "columns line up"
    table = as_table(evaluate(captioned(12, 5), "folds", fold_size=4))
    assert "mean of 3 folds of 4 images" in table
    assert "+-" in table


# Published ranks and the recall that their authors printed: image to text R@1/5/10, text to image R@1/5/10


@pytest.mark.parametrize(
    ("name", "i2t", "t2i"),
    [
        ("flickr30k1k_vsrn", (71.5, 90.8, 95.5), (54.7, 80.9, 87.7)),
        ("flickr30k1k_gsmn", (74.3, 91.6, 95.3), (54.1, 79.9, 86.6)),
        ("flickr30k1k_ngii", (86.6, 98.0, 99.3), (79.8, 95.2, 97.3)),
        ("coco1k_jwae", (61.1, 91.4, 96.9), (45.1, 80.2, 89.6)),
    ],
)
def test_published_recall(test_data, name, i2t, t2i):
    with np.load(test_data / "published" / "ranks" / f"{name}.npz", allow_pickle=False) as file:
        for key, queries, printed in (("rt_ranks", 1000, i2t), ("rti_ranks", 5000, t2i)):
            at = Positions(np.arange(queries + 1), file[key])
            assert [100 * recall_any(at, k) for k in (1, 5, 10)] == pytest.approx(printed, abs=0.05 + 1e-9)


def test_published_comparison(test_data):
    """The original kept a query where CLIP has the truth in its first ten and LXMERT stands at least ten places worse."""
    listed = json.loads((test_data / "published" / "lxmert_clip_1k" / "comparison.json").read_text())
    assert {way: len(entries) for way, entries in listed.items()} == {"i2t": 13, "t2i": 51}
    for entry in listed["i2t"] + listed["t2i"]:
        assert entry["clip"] < 10 <= entry["lxmert"] - entry["clip"]
