"""Figures of image-to-image search: by hand, against pytorch-metric-learning and against loops."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

from ranking.image_retrieval import PUBLISHED, as_table, by_class, evaluate, of_ids
from ranking.matrix import RankingError
from ranking.vectors import Origin, Vectors

ORIGIN = Origin("Swin", "checkpoint", "data/products", "test", weights="w")


def vectors(
    rows: np.ndarray, ids: list[str] | None = None, measure: str = "ip", weights: str = "w", dtype: str = "float32"
) -> Vectors:
    ids = ids or [f"i{row}" for row in range(len(rows))]
    return Vectors(
        tuple(ids),
        np.asarray(rows, dtype),
        Origin("Swin", "checkpoint", "data/products", "test", measure=measure, weights=weights),
    )


def named(labels: np.ndarray, prefix: str = "i") -> dict[str, str]:
    return {f"{prefix}{row}": f"{'mug' if label % 2 else 'fan'}/{label}" for row, label in enumerate(labels)}


def sample(images: int = 60, classes: int = 8, width: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Vectors near their class's centre, of unit length; every class has at least two images."""
    random = np.random.default_rng(seed)
    labels = np.append(np.arange(2 * classes) % classes, random.integers(0, classes, images - 2 * classes))
    rows = random.normal(size=(classes, width))[labels] + 1.5 * random.normal(size=(images, width))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), labels


def test_by_hand():
    """Angles on a circle: a0 0, a1 10, b0 15, a2 40, b1 170 degrees."""
    angles = np.deg2rad([0, 10, 15, 40, 170])
    rows = vectors(np.stack([np.cos(angles), np.sin(angles)], 1), ["a0", "a1", "b0", "a2", "b1"])
    classes = {"a0": "k/a", "a1": "k/a", "a2": "k/a", "b0": "m/b", "b1": "m/b"}
    result = evaluate(rows, rows, classes, published_map=True)
    # Ranks of the first of the class: a0 1 (a1), a1 2 (b0, a0), b0 4, a2 2 (b0, a1), b1 2 (a2, b0)
    assert result["figures"]["R@1"] == pytest.approx(100 / 5)
    assert result["figures"]["MRR"] == pytest.approx(100 * (1 + 1 / 2 + 1 / 4 + 1 / 2 + 1 / 2) / 5)
    # R - 1 others: a0 finds a1 of two, a1 a0, a2 a1; b0 and b1 none
    assert result["figures"]["R-precision"] == pytest.approx(100 * (0.5 + 0.5 + 0.5) / 5)
    assert result["figures"]["MAP@R"] == pytest.approx(100 * (0.5 + 0.25 + 0.25) / 5)
    assert result["figures"][PUBLISHED] == pytest.approx(100 * (1 / 2 + 1 / 3 + 1 / 5 + 1 / 3 + 1 / 3) / 5)
    assert "R@10" not in result["figures"]  # of four others
    assert result["super_classes"]["k"] == pytest.approx({"queries": 3, "R@1": 100 / 3, "R-precision": 50, "MAP@R": 100 / 3})
    assert result["super_classes"]["m"] == pytest.approx({"queries": 2, "R@1": 0, "R-precision": 0, "MAP@R": 0})
    assert result["protocol"] == {"name": "leave one out", "queries": 5, "items": 5, "without_relevant": 0}
    table = as_table(result)
    assert "leave one out, 5 queries, 5 images" in table and table.index("\nm ") < table.index("\nk ")
    assert PUBLISHED not in evaluate(rows, rows, classes)["figures"]


@pytest.mark.parametrize("measure", ["ip", "l2"])
def test_perfect_retrieval_gives_one(measure):
    labels = np.arange(1100) // 2
    rows = np.stack([np.cos(labels / 400), np.sin(labels / 400), np.zeros(1100)], 1)
    result = evaluate(
        vectors(rows, measure=measure), vectors(rows, measure=measure), named(labels), "optimistic", published_map=True
    )
    shares = {name: value for name, value in result["figures"].items() if name != PUBLISHED}
    assert shares == dict.fromkeys(["R@1", "R@10", "R@100", "R@1000", "R-precision", "MAP@R", "MRR"], 100.0)
    assert result["figures"][PUBLISHED] == 50.0  # of a perfect ranking


@pytest.mark.parametrize("measure", ["ip", "l2"])
@pytest.mark.parametrize("seed", range(4))
def test_leave_one_out_is_pytorch_metric_learnings(measure, seed):
    rows, labels = sample(seed=seed)
    if measure == "l2":
        rows = (rows * np.random.default_rng(seed).uniform(0.5, 2, (60, 1))).astype(np.float32)
    mine = evaluate(vectors(rows, measure=measure), vectors(rows, measure=measure), named(labels))["figures"]
    theirs = calculated(rows, labels, rows, labels, same=True, measure=measure)
    assert 0 < mine["R@1"] < 100
    assert mine["R@1"] == pytest.approx(100 * theirs["precision_at_1"])
    assert mine["R-precision"] == pytest.approx(100 * theirs["r_precision"])
    assert mine["MAP@R"] == pytest.approx(100 * theirs["mean_average_precision_at_r"])
    assert mine["MRR"] == pytest.approx(100 * theirs["mean_reciprocal_rank"])


@pytest.mark.parametrize("seed", range(3))
def test_queries_and_gallery_are_pytorch_metric_learnings(seed):
    rows, labels = sample(seed=seed)
    classes = named(labels[:20], "q") | named(labels[20:], "g")
    queries, gallery = vectors(rows[:20], [f"q{n}" for n in range(20)]), vectors(rows[20:], [f"g{n}" for n in range(40)])
    result = evaluate(queries, gallery, classes)
    theirs = calculated(rows[:20], labels[:20], rows[20:], labels[20:], same=False)
    assert result["protocol"]["name"] == "query and gallery"
    assert result["figures"]["R-precision"] == pytest.approx(100 * theirs["r_precision"])
    assert result["figures"]["MAP@R"] == pytest.approx(100 * theirs["mean_average_precision_at_r"])
    assert result["figures"]["R@1"] == pytest.approx(100 * theirs["precision_at_1"])


def calculated(queries, query_labels, items, item_labels, same: bool, measure: str = "ip") -> dict[str, float]:
    def nearest(asked, k, held, first_is_itself):
        near = -torch.cdist(asked, held) if measure == "l2" else asked @ held.T
        if first_is_itself:
            near.fill_diagonal_(-torch.inf)
        return near.topk(min(k, len(held) - first_is_itself))

    calculator = AccuracyCalculator(
        include=("precision_at_1", "r_precision", "mean_average_precision_at_r", "mean_reciprocal_rank"),
        k=len(items),
        knn_func=nearest,
    )
    tensors = (torch.tensor(queries), torch.tensor(query_labels), torch.tensor(items), torch.tensor(item_labels))
    return calculator.get_accuracy(*tensors, ref_includes_query=same)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), images=st.integers(20, 50), queries=st.integers(1, 15))
def test_against_loops(seed, images, queries):
    """Queries of which some stand in the gallery too; grid vectors, so that scores tie; all three policies."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 4, images)
    rows = random.integers(-2, 3, (images, 2)).astype(np.float32)
    some = random.permutation(images)[:queries]
    gallery = random.permutation(images)[: images - 5]
    everything = vectors(rows)
    asked, held = of_ids(everything, [f"i{n}" for n in some]), of_ids(everything, [f"i{n}" for n in gallery])
    kept = [q for q in some if any(labels[g] == labels[q] for g in gallery if g != q)]
    if not kept:
        with pytest.raises(RankingError, match="has another image of its class"):
            evaluate(asked, held, named(labels))
        return
    for ties in ("pessimistic", "optimistic"):
        firsts, precision = [], []
        for q in kept:
            others = [g for g in gallery if g != q]
            sign = 1 if ties == "pessimistic" else -1
            order = sorted(others, key=lambda g: (-float(rows[q] @ rows[g]), sign * (labels[g] == labels[q])))
            hits = [labels[g] == labels[q] for g in order]
            firsts.append(hits.index(True))
            precision.append(np.mean(hits[: sum(hits)]))
        result = evaluate(asked, held, named(labels), ties)
        assert result["figures"]["MRR"] == pytest.approx(100 * np.mean([1 / (1 + first) for first in firsts]))
        assert result["figures"]["R-precision"] == pytest.approx(100 * np.mean(precision))
        assert result["figures"]["R@10"] == pytest.approx(100 * np.mean([first < 10 for first in firsts]))
        assert result["protocol"]["without_relevant"] == queries - len(kept)


def test_only_cutoffs_below_the_number_of_others():
    rows, labels = sample(16, 5)
    some = of_ids(vectors(rows), [f"i{n}" for n in range(10)])
    assert list(evaluate(some, some, named(labels))["figures"]) == ["R@1", "R-precision", "MAP@R", "MRR"]
    eleven = of_ids(vectors(rows), [f"i{n}" for n in range(11)])
    assert list(evaluate(eleven, eleven, named(labels))["figures"])[:2] == ["R@1", "R@10"]


@pytest.mark.parametrize("before, expected", [(999, 100 / 1001), (1000, 0.0)])
def test_the_published_figure_looks_at_a_thousand_neighbours(before, expected):
    angles = np.append(np.linspace(0, 1, before + 1), 1.5)
    items = vectors(np.stack([np.cos(angles), np.sin(angles)], 1))
    classes = {f"i{row}": f"k/{row}" for row in range(before + 1)} | {f"i{before + 1}": "k/0"}
    query = of_ids(items, ["i0"])
    assert evaluate(query, items, classes, published_map=True)["figures"][PUBLISHED] == pytest.approx(expected)


def test_a_query_is_left_out_by_id_not_by_place():
    """A copy of the query stands before it in the gallery: dropping the first neighbour would drop the wrong one."""
    rows = np.array([[1.0, 0], [1, 0], [0.8, 0.6], [0, 1]])
    classes = {"copy": "k/1", "query": "k/2", "mate": "k/2", "far": "k/1"}
    items = vectors(rows, ["copy", "query", "mate", "far"])
    one = evaluate(of_ids(items, ["query"]), items, classes)
    assert (one["figures"]["R@1"], one["figures"]["MRR"]) == (0.0, 50.0)


@pytest.mark.parametrize("measure", ["ip", "l2"])
def test_float16_rows_and_several_blocks_of_items(monkeypatch, measure):
    rows, labels = sample(300, 20)
    rows = rows.astype(np.float16)
    whole = evaluate(vectors(rows, measure=measure), vectors(rows, measure=measure), named(labels))
    monkeypatch.setattr("ranking.image_retrieval.AT_ONCE", 64)
    few = vectors(rows, measure=measure, dtype="float16")
    assert evaluate(few, few, named(labels))["figures"] == pytest.approx(whole["figures"], abs=0.05)


def test_memory_is_flat():
    """12,000 x 12,000 scores would be 576 MB."""
    rows, labels = sample(12_000, 3_000, 16)
    every = vectors(rows)
    tracemalloc.start()
    ranking = by_class(every, every, named(labels))
    for _ in range(0, 12_000, 4096):
        ranking.rows(0, 256)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64e6


def test_refused():
    rows, labels = sample()
    one = vectors(rows)
    with pytest.raises(RankingError, match="cannot be compared"):
        evaluate(one, vectors(rows, weights="other"), named(labels))
    with pytest.raises(RankingError, match="cannot be compared"):
        evaluate(one, vectors(rows, measure="l2"), named(labels))
    with pytest.raises(RankingError, match="cannot be compared"):
        evaluate(one, vectors(rows[:, :3]), named(labels))
    with pytest.raises(RankingError, match="image 'i7' has no class"):
        evaluate(one, one, named(labels) | {"i7": ""})
    with pytest.raises(RankingError, match="1 of 2 images are not in the split, the first: 'x'"):
        of_ids(one, ["i3", "x"])
