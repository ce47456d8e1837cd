"""Token states of a frozen text tower, computed once for every text: what training over frozen towers reads."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from corpora.progress import progress
from models.protocols import Batch
from models.text_tower import TextTower
from training.state_cache import StateCache, write_states
from training.supervision import Nobody, Supervisor
from training.weights import weights_digest

FILE = "texts.json"
BATCH = 128


class TextFeatures:
    """A folder of text features that `write_text_features` wrote, read by the texts themselves."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            told = json.loads((folder / FILE).read_text(encoding="utf-8"))
            self.made_by, texts = str(told["made_by"]), list(told["texts"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{folder}: no text features ({error}); make some with jobs/extract_texts.py") from None
        self._states = StateCache(folder)
        self._row = {text: row for row, text in enumerate(texts)}
        self.width = self._states.width

    def __call__(self, texts: Sequence[str]) -> Batch:
        """`states` (T, L, width) and `attention_mask` (T, L) of texts; one that is not there is a ValueError."""
        try:
            rows = [self._row[text] for text in texts]
        except KeyError as error:
            raise ValueError(f"{self.folder}: holds no features of the text {error}; extract those of its split too") from None
        states, mask = self._states.padded(np.array(rows))
        return {"states": states, "attention_mask": mask}


def tower_name(tower: TextTower, name: str) -> str:
    """Which states a tower gives, for `TextFeatures.made_by`."""
    return f"{Path(name).name}, weights {weights_digest(tower)}, layers {tower.layers}, up to {tower.tokens.max_length} tokens"


def write_text_features(
    folder: Path, tower: TextTower, made_by: str, texts: Sequence[str], supervisor: Supervisor | None = None
) -> None:
    """Compute and store the states of texts, each different one once; whole or not at all."""
    different = sorted(set(texts), key=lambda text: (len(text), text))  # texts of like length: little padding in a batch
    told = json.dumps({"made_by": made_by, "texts": different}, ensure_ascii=False)
    write_states(folder, _states(tower, different, supervisor or Nobody()), {FILE: told})


def _states(tower: TextTower, texts: Sequence[str], supervisor: Supervisor) -> Iterator[np.ndarray]:
    tower.eval()
    device = next(tower.parameters()).device
    for start in progress(range(0, len(texts), BATCH), "encoding batches of texts"):
        supervisor.beat()
        batch = {key: value.to(device) for key, value in tower.tokens(texts[start : start + BATCH]).items()}
        with torch.inference_mode():
            seen = tower(batch)
        for row, length in zip(seen.states.float().cpu().numpy(), seen.mask.sum(1).tolist(), strict=True):
            yield row[:length]
