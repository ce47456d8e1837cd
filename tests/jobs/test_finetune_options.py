"""Options that do not fit a contrastive loss are refused before a job is submitted."""

from __future__ import annotations

from typing import Any

import pytest

from jobs import clip_finetune, lxmert_finetune


@pytest.mark.parametrize(
    "options, message",
    [
        ({"negatives": 256}, "--negatives 256: must be at least 0 and below --batch-size 256"),
        ({"negatives": -1}, "--negatives -1: must be at least 0"),
        ({"batch_size": 1}, "--batch-size 1: must be 2 or more"),
        ({"accumulate": 4}, "--accumulate 4: must be 1: negatives come from the whole batch; --chunk saves memory"),
        ({"chunk": -1}, "--chunk -1: must be 0 or more"),
    ],
)
def test_refused(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        lxmert_finetune.Config(formulation="contrastive", **options)
    if "negatives" not in options:
        with pytest.raises(ValueError, match=message):
            clip_finetune.Config(**options)


def test_the_binary_formulation_saves_memory_by_accumulation():
    lxmert_finetune.Config(accumulate=4, batch_size=1)
    with pytest.raises(ValueError, match="--chunk 8: must be 0 for --formulation binary; --accumulate saves memory"):
        lxmert_finetune.Config(chunk=8)


def test_as_many_negatives_as_the_batch_has_others():
    lxmert_finetune.Config(formulation="contrastive", batch_size=4, negatives=3)
