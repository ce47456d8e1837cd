"""Every batch is what its sampler promises: never a negative of the anchor's class, every image reachable."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.class_objective import ClassObjective
from training.class_sampling import Balanced, ClassTable, RandomTriplets, make_sampler, numbered

LABELS = st.lists(st.integers(0, 6), min_size=4, max_size=40).map(lambda drawn: numbered([str(one) for one in drawn]))
"""Classes of all sizes, 1 too, in any order."""


def reached(sampler, epochs: int) -> set[int]:
    return {int(image) for epoch in range(epochs) for image in sampler(len(sampler), 0, epoch)}


@settings(max_examples=60, deadline=None)
@given(labels=LABELS, seed=st.integers(0, 2**31))
def test_triplets(labels, seed):
    sizes = np.bincount(labels)
    if len(sizes) < 2 or sizes.max() < 2:
        with pytest.raises(ValueError, match="needs two classes, one of them with two images"):
            RandomTriplets(ClassTable(labels), 3)
        return
    sampler = RandomTriplets(ClassTable(labels), 3)
    drawn = sampler(len(sampler), seed, 0).reshape(-1, 3)
    assert len(drawn) == 5 * len(sizes)
    assert (drawn[:, 0] != drawn[:, 1]).all()
    assert (labels[drawn[:, 0]] == labels[drawn[:, 1]]).all() and (labels[drawn[:, 0]] != labels[drawn[:, 2]]).all()


def test_every_image_can_be_any_part_of_a_triplet():
    """In the original only 19 % of the images could ever be negatives."""
    labels = np.array([3, 0, 0, 1, 2, 1, 2, 3, 0, 2, 4])  # class 4 has one image
    sampler = RandomTriplets(ClassTable(labels), 3)
    drawn = np.concatenate([sampler(len(sampler), 0, epoch).reshape(-1, 3) for epoch in range(100)])
    everything = set(range(11))
    assert [set(part.tolist()) for part in drawn.T] == [everything - {10}, everything - {10}, everything]
    share = np.bincount(drawn[labels[drawn[:, 0]] == 0, 2], minlength=11) / (labels[drawn[:, 0]] == 0).sum()
    np.testing.assert_allclose(share[labels != 0], 1 / 8, atol=0.03)  # evenly over images, not classes
    np.testing.assert_allclose(np.bincount(labels[drawn[:, 0]]) / len(drawn), [0.25] * 4, atol=0.04)  # anchors over classes


@settings(max_examples=60, deadline=None)
@given(labels=LABELS, per_class=st.integers(2, 5), classes=st.integers(2, 8), seed=st.integers(0, 2**31))
def test_balanced(labels, per_class, classes, seed):
    sizes = np.bincount(labels)
    if classes > len(sizes):
        with pytest.raises(ValueError, match=f"at most {len(sizes)} classes"):
            Balanced(ClassTable(labels), per_class * classes, per_class)
        return
    sampler = Balanced(ClassTable(labels), per_class * classes, per_class)
    drawn = sampler(len(sampler), seed, 0)
    assert len(drawn) == len(sampler) and len(drawn) % (per_class * classes) == 0
    for batch in np.split(drawn, len(drawn) // (per_class * classes)):
        groups = labels[batch].reshape(classes, per_class)
        assert (groups == groups[:, :1]).all() and len(set(groups[:, 0].tolist())) == classes
        for group in np.split(batch, classes):
            times = np.bincount(group, minlength=len(labels))[labels == labels[group[0]]]
            assert times.max() - times.min() <= 1  # every image before any comes again


def test_every_image_is_reached_and_epochs_differ():
    labels = numbered([str(image % 7) for image in range(50)] + ["alone"])
    sampler = Balanced(ClassTable(labels), 12, 4)
    assert reached(sampler, 30) == set(range(51))
    assert not np.array_equal(sampler(len(sampler), 0, 0), sampler(len(sampler), 0, 1))
    assert np.array_equal(sampler(len(sampler), 5, 3), Balanced(ClassTable(labels), 12, 4)(len(sampler), 5, 3))
    assert len(sampler) == 48  # 6 of 8 classes a round, two rounds: about as many as there are images


def test_a_batch_of_super_classes():
    """Three super-classes of 6, 4 and 1 classes: two of one behind each other, and each super-class equally often."""
    names = [
        f"{kind}/{kind}{number}" for kind, count in (("a", 6), ("b", 4), ("c", 1)) for number in range(count) for _ in range(3)
    ]
    sampler = make_sampler(ClassObjective(sampler="super-class", images_per_class=2, classes_per_super_class=2), 10, names)
    kinds = np.array([name.partition("/")[0] for name in names])
    classes = np.array(names)
    for epoch in range(20):
        for batch in np.split(sampler(len(sampler), 1, epoch), len(sampler) // 10):
            assert sorted(kinds[batch][::2]) == ["a", "a", "b", "b", "c"]
            assert len(set(classes[batch][::2])) == 5
            first = "".join(kinds[batch][::2])
            assert "aa" in first and "bb" in first
    assert reached(sampler, 40) == set(range(len(names)))


@pytest.mark.parametrize(
    "options, batch, message",
    [
        ({"sampler": "triplets"}, 10, "--batch-size 10: must be a multiple of 3"),
        ({"images_per_class": 4}, 10, "--batch-size 10: must be 4 images each of at least two and at most 3 classes"),
        ({"images_per_class": 4}, 4, "--batch-size 4: must be 4 images each of at least two"),
        ({"sampler": "super-class", "images_per_class": 2, "classes_per_super_class": 1}, 6, "at most 2 classes"),
    ],
)
def test_refused(options, batch, message):
    with pytest.raises(ValueError, match=message):
        make_sampler(ClassObjective(**options), batch, ["a/1", "a/2", "b/3"] * 4)


def test_images_without_classes_are_refused():
    with pytest.raises(ValueError, match="some images have no class"):
        make_sampler(ClassObjective(), 8, ["a", ""])
    with pytest.raises(ValueError, match="named <super-class>/<class>"):
        make_sampler(ClassObjective(sampler="super-class"), 8, ["a/1", "b"] * 4)
