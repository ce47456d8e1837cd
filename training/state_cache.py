"""States of a frozen encoder, computed once: rows of different length in one flat file that is mapped, not read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


class StateCache:
    """Row i is values[offsets[i]:offsets[i + 1]], (length, width) float32."""

    def __init__(self, folder: Path) -> None:
        self._offsets = np.load(folder / "offsets.npy", allow_pickle=False)
        flat = np.memmap(folder / "values.f32", "<f4", "r")
        self._values = flat.reshape(self._offsets[-1], -1)

    def padded(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """States (B, longest, width), zero-padded, and the mask (B, longest), True for real positions."""
        lengths = torch.from_numpy(np.diff(self._offsets)[rows])
        mask = torch.arange(int(lengths.max()))[None] < lengths[:, None]
        states = torch.zeros(*mask.shape, self._values.shape[1])
        for place, row in enumerate(rows):
            states[place, : lengths[place]] = torch.from_numpy(self._values[self._offsets[row] : self._offsets[row + 1]].copy())
        return states, mask


def write_states(folder: Path, rows: Iterable[np.ndarray]) -> None:
    """Store rows (length, width), written aside and renamed."""
    part = folder.with_name(folder.name + ".part")
    part.mkdir(parents=True, exist_ok=True)
    offsets = [0]
    with (part / "values.f32").open("wb") as file:
        for row in rows:
            file.write(np.ascontiguousarray(row, "<f4").tobytes())
            offsets.append(offsets[-1] + len(row))
    np.save(part / "offsets.npy", np.array(offsets, np.int64))
    part.rename(folder)
