"""Users' judgements: what is read, what is learned from, what is measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from training.feedback import FeedbackError, FeedbackTriplets, agreement, divide, image_ids, read_feedback

CLASSES = {f"{name}{number}": name for name in "abc" for number in range(4)}


def write(path: Path, *rows: tuple[str, str, bool]) -> Path:
    path.write_text("".join(json.dumps({"query": q, "item": i, "relevant": r}) + "\n" for q, i, r in rows) + "\n")
    return path


def test_the_later_of_two_judgements_counts(tmp_path):
    path = write(tmp_path / "f.jsonl", ("a0", "a1", False), ("a0", "b1", False), ("a0", "a1", True), ("b0", "a0", False))
    found = read_feedback(path)
    assert found == {"a0": {"a1": True, "b1": False}, "b0": {"a0": False}}
    assert image_ids(found) == ["a0", "a1", "b0", "b1"]


@pytest.mark.parametrize(
    "line",
    [
        "no json",
        '["a", "b", true]',
        '{"query": "a", "item": "b"}',
        '{"query": "a", "item": "b", "relevant": 1}',
        '{"query": "a", "item": "b", "relevant": "true"}',
        '{"query": 1, "item": "b", "relevant": true}',
        '{"query": "a", "item": "a", "relevant": true}',
    ],
)
def test_a_line_that_is_none_is_named(tmp_path, line):
    path = tmp_path / "f.jsonl"
    path.write_text('{"query": "a", "item": "b", "relevant": true}\n' + line)
    with pytest.raises(FeedbackError, match=r"f.jsonl, line 2: .*; expected \{"):
        read_feedback(path)


def test_a_file_that_is_missing_or_empty_is_named(tmp_path):
    with pytest.raises(FeedbackError, match=r"f.jsonl: cannot be read"):
        read_feedback(tmp_path / "f.jsonl")
    (tmp_path / "f.jsonl").write_text("\n")
    with pytest.raises(FeedbackError, match=r"f.jsonl: holds no feedback"):
        read_feedback(tmp_path / "f.jsonl")


def test_a_query_stays_on_its_side_when_more_feedback_comes():
    few = {f"q{number}": {"x": True} for number in range(500)}
    learned, held_out = divide(few)
    assert learned.keys() | held_out.keys() == few.keys() and not learned.keys() & held_out.keys()
    assert 70 < len(held_out) < 130
    more, still = divide(few | {f"q{number}": {"y": False} for number in range(400, 900)})
    assert held_out.keys() <= still.keys() and learned.keys() <= more.keys()


def test_agreement_is_the_share_of_pairs_in_order_by_query():
    judged = {
        "p": {"a": True, "b": False, "c": False},
        "q": {"a": True, "b": True, "c": False},
        "r": {"a": True},
        "s": {"c": False},
    }
    scores = {("p", "a"): 2.0, ("p", "b"): 1.0, ("p", "c"): 3.0, ("q", "a"): 5.0, ("q", "b"): 4.0, ("q", "c"): 4.0}
    scores |= {("r", "a"): 0.0, ("s", "c"): 9.0}
    assert agreement(judged, scores) == 50.0  # a tie is wrong; r and s say nothing
    assert agreement({"r": {"a": True}}, scores) is None


def drawn(triplets: FeedbackTriplets, count: int = 400) -> set[tuple[str, ...]]:
    ids = triplets.draw(count, np.random.default_rng(0))
    return {tuple(ids[start : start + 3]) for start in range(0, 3 * count, 3)}


def test_what_was_judged_is_what_is_learned():
    judged = {"a0": {"x": True, "b1": True, "y": False, "a1": False}, "new": {"a2": True, "c3": False}}
    triplets = FeedbackTriplets(judged, CLASSES)
    expected = {("a0", relevant, other) for relevant in ("x", "b1") for other in ("y", "a1")} | {("new", "a2", "c3")}
    assert drawn(triplets) == expected and (triplets.queries, triplets.left_out) == (2, 0)


def test_what_was_not_given_is_drawn_by_class():
    """Only refusals: another image of the class is relevant, but no refused one. Only a relevant item: any of a third class is not."""
    refusals = FeedbackTriplets({"a0": {"a1": False, "b0": False}}, CLASSES)
    assert drawn(refusals) == {("a0", relevant, other) for relevant in ("a2", "a3") for other in ("a1", "b0")}
    praise = FeedbackTriplets({"a0": {"b0": True}}, CLASSES)
    assert drawn(praise) == {("a0", "b0", f"c{number}") for number in range(4)}
    unknown = FeedbackTriplets({"new": {"newer": True}}, CLASSES)
    assert drawn(unknown) == {("new", "newer", image_id) for image_id in CLASSES}


def test_a_query_that_teaches_nothing_is_counted():
    triplets = FeedbackTriplets({"new": {"a0": False}, "a0": {"a1": True, "b0": False}}, CLASSES)
    assert triplets.left_out == 1 and {query for query, _, _ in drawn(triplets)} == {"a0"}
    with pytest.raises(FeedbackError, match="no query with a relevant item"):
        FeedbackTriplets({"new": {"a0": False}}, CLASSES)
    with pytest.raises(FeedbackError, match="no image was found that is of another class than query 'a0'"):
        drawn(FeedbackTriplets({"a0": {"b0": True, "c0": True}}, CLASSES))


def test_the_same_numbers_draw_the_same_triplets():
    triplets = FeedbackTriplets({"a0": {"b0": True}, "b1": {"a1": True}}, CLASSES)
    assert triplets.draw(9, np.random.default_rng(3)) == triplets.draw(9, np.random.default_rng(3))
