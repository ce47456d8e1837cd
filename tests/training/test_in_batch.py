from __future__ import annotations

import torch

from training.in_batch import in_batch

IMAGES, TEXTS = torch.randn(4, 3, generator=torch.manual_seed(0)), torch.randn(4, 3, generator=torch.manual_seed(1))
KNOWN = {"own_text": torch.tensor([7, 8, 2, 7]), "texts_of_image": torch.tensor([[7, 8], [7, 8], [2, -1], [7, -1]])}
"""Pairs 0 and 1 are of one image; pair 3 has the text of pair 0 and another image."""


def test_both_directions_by_hand():
    i2t, t2i = in_batch(lambda images, texts: images @ texts.T, IMAGES, TEXTS, KNOWN)
    torch.testing.assert_close(i2t.scores, IMAGES @ TEXTS.T)
    torch.testing.assert_close(t2i.scores, TEXTS @ IMAGES.T)
    assert i2t.target.tolist() == t2i.target.tolist() == [0, 1, 2, 3]
    fits = [[False, True, False, True], [True, False, False, True], [False] * 4, [True, False, False, False]]
    assert i2t.ignored.tolist() == fits
    assert t2i.ignored.tolist() == [list(column) for column in zip(*fits, strict=True)]


def test_the_own_candidate_is_never_ignored():
    for one in in_batch(lambda images, texts: images @ texts.T, IMAGES, TEXTS, KNOWN):
        assert not one.ignored.gather(1, one.target[:, None]).any()
