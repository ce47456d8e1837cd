"""How diverse what was retrieved is: worked by hand, and against the standard library and all draws there are."""

from __future__ import annotations

import statistics
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranking.diversity import as_text, chance, diversity, recalls


def test_worked_by_hand():
    assert diversity(np.array([3, 0, 1, 0, 2]), 10) == {
        "distinct": 3,
        "coverage": 30.0,
        "mean": 2.0,
        "std": pytest.approx((2 / 3) ** 0.5),
        "max": 3,
    }
    assert diversity(np.zeros(4, int), 4) == {"distinct": 0, "coverage": 0, "mean": 0, "std": 0, "max": 0}


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30).filter(any))
def test_as_the_standard_library_says(counts):
    hit = [count for count in counts if count]
    found = diversity(np.array(counts, np.int32), len(counts))
    assert found == {
        "distinct": len(hit),
        "coverage": pytest.approx(100 * len(hit) / len(counts)),
        "mean": pytest.approx(statistics.mean(hit)),
        "std": pytest.approx(statistics.pstdev(hit), abs=1e-9),
        "max": max(hit),
    }


@pytest.mark.parametrize("size", [1, 2, 5, 7])
def test_chance_is_the_share_of_all_draws(size):
    relevant = np.array([1, 2, size, 1])
    relevant = np.minimum(relevant, size)
    for k in range(1, size + 3):
        draws = list(combinations(range(size), min(k, size)))
        hits = [sum(min(draw) < own for draw in draws) / len(draws) for own in relevant]  # the first `own` items are relevant
        assert chance(relevant, size, k) == pytest.approx(100 * statistics.mean(hits))


def test_chance_of_one_relevant_item_is_k_of_n():
    assert chance(np.ones(7, int), 1_000_000, 5) == pytest.approx(100 * 5 / 1_000_000)


def test_recalls():
    found = recalls(np.array([1, 0, 5, 6]), np.ones(4, int), 50, [1, 5])
    assert found == {"R@1": {"found": 25, "random": pytest.approx(2)}, "R@5": {"found": 50, "random": pytest.approx(10)}}


def test_the_table():
    row = {"distinct": 250, "coverage": 83.333, "mean": 6.0, "std": 4.977, "max": 28.0}
    told = {
        "texts": 1500,
        "images": 300,
        "top": 5,
        "first": row,
        "all": row,
        "most_often": [{"id": "a", "count": 1234}],
        "leakage": "",
    }
    assert as_text({**told, "recall": {"R@1": {"found": 25.0, "random": 1 / 3}}, "own_images": 1500}).splitlines() == [
        "1,500 texts over 300 images, the best 5 of each",
        "              distinct  covered %     mean      std      max",
        "first image        250      83.33     6.00     4.98       28",
        "all images         250      83.33     6.00     4.98       28",
        "most often: a (1,234)",
        "R@1 25.00 (random 0.333)",
    ]
    seen = {"recall": {"R@1": {"found": 25.0, "random": 1 / 3}}, "leakage": "7 of the 300 images were trained on"}
    assert (
        as_text({**told, **seen, "own_images": 1500}).splitlines()[-1]
        == "these are no results: 7 of the 300 images were trained on"
    )
    assert as_text({**told, "recall": {}, "own_images": 3}).splitlines()[-1].startswith("no R@k: only 3 of the texts")
    assert len(as_text({**told, "recall": {}, "own_images": 0}).splitlines()) == 5
