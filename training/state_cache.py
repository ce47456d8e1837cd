"""States of a frozen encoder, computed once: rows of different length in one flat file that is mapped, not read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


class StateCache:
    """Row i is values[offsets[i]:offsets[i + 1]], (length, width) float32. A damaged folder raises ValueError."""

    def __init__(self, folder: Path) -> None:
        try:
            self._offsets = np.load(folder / "offsets.npy", allow_pickle=False)
            width = int(np.load(folder / "width.npy", allow_pickle=False))
            self._values = np.memmap(folder / "values.f32", "<f4", "r").reshape(self._offsets[-1], width)
            self.width = width
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(f"{folder}: not a whole state cache ({error}); remove it and run again") from None

    def row(self, row: int) -> Tensor:
        """(length, width) float32."""
        return torch.from_numpy(self._values[self._offsets[row] : self._offsets[row + 1]].copy())

    def padded(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """States (B, longest, width), zero-padded, and the mask (B, longest), True for real positions."""
        lengths = torch.from_numpy(np.diff(self._offsets)[rows])
        mask = torch.arange(int(lengths.max()))[None] < lengths[:, None]
        states = torch.zeros(*mask.shape, self._values.shape[1])
        for place, row in enumerate(rows):
            states[place, : lengths[place]] = self.row(row)
        return states, mask


def write_states(folder: Path, rows: Iterable[np.ndarray], notes: Mapping[str, str] | None = None) -> None:
    """Store rows (length, width), written aside, flushed and renamed. Rows of different width, or none, raise ValueError.

    `notes`: text files to stand beside them.
    """
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)  # left by a job that was killed
    part.mkdir(parents=True)
    offsets, widths = [0], set()
    with (part / "values.f32").open("wb") as file:
        for row in rows:
            file.write(np.ascontiguousarray(row, "<f4").tobytes())
            offsets.append(offsets[-1] + len(row))
            widths.add(row.shape[1])
        file.flush()
        os.fsync(file.fileno())
    if len(widths) != 1:
        raise ValueError(f"{folder}: states {sorted(widths)} wide; all rows must have one width")
    np.save(part / "offsets.npy", np.array(offsets, np.int64))
    np.save(part / "width.npy", np.array(widths.pop()))
    for name, text in (notes or {}).items():
        (part / name).write_text(text, encoding="utf-8")
    part.rename(folder)
