from __future__ import annotations

import numpy as np
import pytest

from training.pairs import PairSet

PAIRS = PairSet(np.array([[0, 0], [0, 1], [1, 2], [2, 3], [2, 0]]), images=3, texts=4)
KNOWN = {(0, 0), (0, 1), (1, 2), (2, 3), (2, 0)}


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_related():
    images, texts = np.meshgrid(range(3), range(4), indexing="ij")
    assert PAIRS.related(images, texts).tolist() == [[(i, t) in KNOWN for t in range(4)] for i in range(3)]


def test_known():
    """The pairs are not sorted: text 0 of image 2 comes last."""
    known = PAIRS.known(np.array([3, 0, 4, 2]))
    assert known["own_text"].tolist() == [3, 0, 0, 2]
    assert known["texts_of_image"].tolist() == [[3, 0], [0, 1], [3, 0], [2, -1]]


def test_unaligned_is_never_a_known_pair_and_changes_one_side():
    drawn = [PAIRS.unaligned(0, 0, draw) for draw in map(generator, range(300))]
    assert not KNOWN & set(drawn)
    assert set(drawn) == {(0, 2), (0, 3), (1, 0)}
    assert 100 < sum(image == 0 for image, _ in drawn) < 200  # another text half the time


def test_unaligned_of_a_complete_set():
    everything = PairSet(np.argwhere(np.ones((2, 2))), 2, 2)
    with pytest.raises(ValueError, match="no unrelated pair found for image 1 and text 0"):
        everything.unaligned(1, 0, generator())


def test_paired_samples():
    pairs, labels = PAIRS.paired_samples(np.array([4, 1, 2]), generator())
    assert pairs[:3].tolist() == [[2, 0], [0, 1], [1, 2]]
    assert labels.tolist() == [1, 1, 1, 0, 0, 0]
    for own, other in zip(pairs[:3].tolist(), pairs[3:].tolist(), strict=True):
        assert tuple(other) not in KNOWN
        assert (own[0] == other[0]) != (own[1] == other[1])


def test_mixed_samples():
    samples = np.tile(np.arange(5), 200)
    pairs, labels = zip(*(PAIRS.mixed_samples(samples, generator(seed), 0.3) for seed in range(2)), strict=True)
    for drawn, label in zip(np.concatenate(pairs).tolist(), np.concatenate(labels).tolist(), strict=True):
        assert (tuple(drawn) in KNOWN) == bool(label)


def test_share_of_unaligned():
    labels = [PAIRS.mixed_samples(np.arange(5), generator(seed), 0.3)[1] for seed in range(400)]
    assert np.mean(labels) == pytest.approx(0.7, abs=0.04)


def test_draws_belong_to_the_sample_not_to_the_part():
    """However a batch is divided among processes and accumulation steps, each sample meets the same negative."""
    samples = np.array([3, 0, 4, 1])
    for draw in (
        lambda part: PAIRS.paired_samples(part, generator(7))[0].reshape(2, -1, 2),
        lambda part: PAIRS.mixed_samples(part, generator(7), 0.5)[0][None],
    ):
        whole = draw(samples)
        for size in (1, 2):
            parts = np.concatenate([draw(part) for part in np.split(samples, 4 // size)], axis=1)
            np.testing.assert_array_equal(parts, whole)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_share_must_leave_both_labels(share):
    with pytest.raises(ValueError, match=r"--prob-unaligned .* between 0 and 1"):
        PairSet.check_share(share)
