from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranking.rouge import RougeL, words


def plain_common(one: list[str], other: list[str]) -> int:
    """Length of the longest common subsequence, by the textbook's table."""
    table = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for i, j in itertools.product(range(len(one)), range(len(other))):
        table[i + 1][j + 1] = table[i][j] + 1 if one[i] == other[j] else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


def plain_rouge(candidate: str, references: list[str]) -> float:
    """As COCO's caption evaluation defines it."""
    query = candidate.lower().split(" ")
    rows = [reference.lower().split(" ") for reference in references]
    common = [plain_common(query, row) for row in rows]
    precision = max(length / len(query) for length in common)
    recall = max(length / len(row) for length, row in zip(common, rows, strict=True))
    return (1 + 1.2**2) * precision * recall / (recall + 1.2**2 * precision) if precision and recall else 0.0


def one_image_each(captions: list[str]) -> RougeL:
    return RougeL(captions, np.stack([np.arange(len(captions))] * 2, axis=1), len(captions))


def test_a_hand_worked_case():
    """ "a dog runs" and "The dog  runs fast": 2 words in common; precision 2/3, recall 2/5 (with an empty word)."""
    rouge = one_image_each(["The dog  runs fast", "a cat", "A DOG RUNS"])
    assert words("The dog  runs fast") == ["the", "dog", "", "runs", "fast"]
    assert rouge.common(words("a dog runs")).tolist() == [2, 1, 3]
    expected = 2.44 * (2 / 3) * (2 / 5) / (2 / 5 + 1.44 * 2 / 3)
    assert rouge.against_images("a dog runs").tolist() == pytest.approx([expected, 2.44 / 6 / (0.5 + 0.48), 1.0])


def test_nothing_in_common_is_zero():
    rouge = one_image_each(["two birds", "a cat"])
    assert rouge.against_images("the red bus").tolist() == [0, 0]
    assert rouge.against_images("a bird").tolist()[0] == 0


def test_precision_and_recall_may_come_from_different_captions():
    rouge = RougeL(["a dog", "a man rides a brown horse"], np.array([[0, 0], [0, 1]]), 1)
    assert rouge.against_images("a man rides a dog")[0] == np.float32(
        plain_rouge("a man rides a dog", ["a dog", "a man rides a brown horse"])
    )


CAPTION = st.lists(st.sampled_from(["a", "b", "c", "A", ""]), min_size=1, max_size=9).map(" ".join)


@given(captions=st.lists(CAPTION, min_size=1, max_size=6), query=CAPTION)
def test_it_is_the_definition(captions: list[str], query: str):
    rouge = one_image_each(captions)
    assert rouge.common(words(query)).tolist() == [plain_common(words(query), words(caption)) for caption in captions]
    assert rouge.against_images(query).tolist() == [np.float32(plain_rouge(query, [caption])) for caption in captions]


@pytest.mark.parametrize("length", [63, 64, 65, 66, 130])
def test_captions_of_any_length(length):
    """A machine word holds 64; sums run over its end."""
    draw = random.Random(0)
    captions = [" ".join(draw.choices("abcdef", k=draw.choice([1, 12, 64, 65, 90]))) for _ in range(20)]
    for query in (" ".join(draw.choices("abcdef", k=length)), " ".join("a" * length)):
        expected = [plain_common(words(query), words(caption)) for caption in captions]
        assert one_image_each(captions).common(words(query)).tolist() == expected


def test_captions_in_any_order_and_captions_that_describe_two_images():
    captions = ["a dog", "two cats", "a man on a horse", "the dog"]
    pairs = np.array([[1, 0], [0, 3], [2, 2], [0, 0], [1, 1]])
    rouge = RougeL(captions, pairs, 3)
    of = {image: [captions[c] for i, c in pairs.tolist() if i == image] for image in range(3)}
    for query in [*captions, "a cat"]:
        assert rouge.against_images(query).tolist() == [np.float32(plain_rouge(query, of[image])) for image in range(3)]


def test_an_image_without_a_caption_is_refused():
    with pytest.raises(ValueError, match="every image needs a caption"):
        RougeL(["a dog"], np.array([[0, 0]]), 2)


def test_real_captions(test_data):
    lines = (test_data / "published/captions/coco_test_25000.txt").read_text(encoding="utf-8").splitlines()
    draw = random.Random(1)
    captions = draw.sample(lines, 100)
    rouge = RougeL(captions, np.stack([np.arange(100) // 5, np.arange(100)], 1), 20)
    for query in draw.sample(captions, 10):
        expected = [np.float32(plain_rouge(query, captions[5 * image : 5 * image + 5])) for image in range(20)]
        assert rouge.against_images(query).tolist() == expected
        assert rouge.against_images(query)[captions.index(query) // 5] == 1
