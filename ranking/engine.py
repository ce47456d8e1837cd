"""Fills the score matrix of a split: every image and every text is encoded once, then block after block is scored.

Texts are sorted by length and cut into blocks of columns. Each process takes every n-th block; the image states are
encoded in shares and exchanged. A finished block is a file of its own in `<ranking file>.part/`, written aside and
renamed, its checksum in its name, so a job that was killed goes on where it was, with any number of processes, and gives
the same ranking file.
"""

from __future__ import annotations

import io
import json
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from corpora.corpus import Split
from corpora.progress import progress
from models.protocols import Batch, Inputs, RetrievalModel, States
from ranking.matrix import (
    Axis,
    Provenance,
    Ranking,
    RankingError,
    Relevance,
    check_finite,
    read_ranking,
    write_ranking,
    written_aside,
)
from training import processes
from training.supervision import Nobody, Supervisor

BLOCK = 64
"""Images of an encoding batch, and texts of a block of columns: fixed, so that a job resumes under any number of processes."""


@dataclass(frozen=True)
class Engine:
    """A model ready to score one split on this process's device."""

    model: RetrievalModel
    inputs: Inputs
    split: Split
    precision: Literal["no", "bf16", "fp16"] = "no"
    pair_batch: int = 512
    """Pairs scored at once; what a cross-encoder's memory allows."""
    workers: int = 0
    """Loader processes that read and prepare images."""
    supervisor: Supervisor = field(default_factory=Nobody)

    def rank_in_memory(self, provenance: Provenance) -> Ranking:
        """The whole matrix, on every process; for validation between epochs."""
        images, blocks = self._image_states(shown=False), self._text_blocks()
        mine = [(columns, self._scores(images, columns)) for columns in blocks[processes.rank() :: processes.size()]]
        scores = np.empty((len(self.split.image_ids), len(self.split.texts)), np.float32)
        for columns, block in (part for share in processes.all_gather(mine) for part in share):
            scores[:, columns] = block
        return self._ranking(scores, provenance)

    def rank_to_file(self, path: Path, provenance: Provenance) -> Ranking:
        """The whole matrix as a ranking file; goes on with the blocks that an earlier, stopped job left."""
        part, blocks = path.with_name(path.name + ".part"), self._text_blocks()
        if processes.on_main(path.exists):
            ranking = self._finished(path, provenance)
            processes.on_main(lambda: shutil.rmtree(part, ignore_errors=True))  # left by a job killed at its very end
            return ranking
        missing = processes.on_main(lambda: _take_over(part, provenance, len(blocks)))
        if missing:
            self._fill(part, blocks, missing)
        processes.barrier()
        processes.on_main(lambda: self._assemble(path, part, blocks, provenance))
        return read_ranking(path)

    def _fill(self, part: Path, blocks: list[np.ndarray], missing: list[int]) -> None:
        images, mine = self._image_states(shown=True), missing[processes.rank() :: processes.size()]
        for number in progress(mine, "scoring blocks of texts", len(mine)):
            scores = self._scores(images, blocks[number])
            check_finite(scores, self.split.image_ids, [self.split.text_ids[i] for i in blocks[number]])
            self.supervisor.check()
            _write_block(part, number, scores)
            if processes.is_main():
                self.supervisor.saved(len(list(part.glob("*.npy"))))

    def _finished(self, path: Path, provenance: Provenance) -> Ranking:
        ranking = read_ranking(path)
        differ = [
            key for key, value in asdict(provenance).items() if getattr(ranking.provenance, key) != value and key != "revision"
        ]
        if differ:
            raise RankingError(f"{path}: holds the ranking of another {', '.join(differ)}; remove it or choose another --name")
        return ranking

    def _assemble(self, path: Path, part: Path, blocks: list[np.ndarray], provenance: Provenance) -> None:
        """Put the block files together; each column exactly once is what makes it a matrix."""
        files = _standing(part)
        if len(files) < len(blocks):
            raise RankingError(f"{part}: {len(blocks) - len(files)} blocks were damaged after they were written; run again")
        self.supervisor.check()
        mapped = [(columns, np.load(files[number], "r", allow_pickle=False)) for number, columns in enumerate(blocks)]
        scores = _Columns(mapped, (len(self.split.image_ids), len(self.split.texts)))
        write_ranking(path, self._ranking(cast(Any, scores), provenance))
        shutil.rmtree(part)

    def _ranking(self, scores: np.ndarray, provenance: Provenance) -> Ranking:
        split = self.split
        relevant = Relevance.from_pairs(split.pairs, len(split.image_ids))
        return Ranking(Axis("image", split.image_ids), Axis("text", split.text_ids), relevant, scores, provenance)

    def _text_blocks(self) -> list[np.ndarray]:
        """Text indices by block, shortest texts first: little padding in each."""
        order = np.argsort([len(text.split()) for text in self.split.texts], kind="stable")
        return [order[start : start + BLOCK] for start in range(0, len(order), BLOCK)]

    def _scores(self, images: States, columns: np.ndarray) -> np.ndarray:
        """Scores of all images against some texts, (images, texts) float32."""
        self.supervisor.beat()
        with self._inference():
            texts = self.model.encode_texts(_to(self.inputs.texts([self.split.texts[i] for i in columns]), self._device))
            scores: np.ndarray = self._compare(images, texts, columns).cpu().numpy()
        return scores

    def _compare(self, images: States, texts: States, columns: np.ndarray) -> Tensor:
        """(images, texts) float32 scores of all images and the texts of these columns."""
        width = min(len(columns), self.pair_batch)
        height = self.pair_batch // width
        rows = [
            torch.cat([self.model.score(some, part).float() for part in _cut(texts, width)], dim=1)
            for some in _cut(images, height)
        ]
        return torch.cat(rows)

    def _image_states(self, shown: bool) -> States:
        """States of all images on this process's device; each image is encoded by one process."""
        ids = self.split.image_ids
        batches = [ids[start : start + BLOCK] for start in range(0, len(ids), BLOCK)]
        mine = batches[processes.rank() :: processes.size()]
        loader = DataLoader(
            cast(Any, mine),
            batch_size=None,
            collate_fn=self.inputs.images,
            num_workers=min(self.workers, len(mine)),
            worker_init_fn=processes.outlive_sigterm,
        )
        with self._inference():
            encoded = []
            for batch in progress(loader, "encoding batches of images", len(mine)) if shown else loader:
                self.supervisor.beat()
                encoded.append(tuple(state.cpu() for state in self.model.encode_images(_to(batch, self._device))))
        shares = processes.all_gather(encoded)
        in_order = [shares[number % len(shares)][number // len(shares)] for number in range(len(batches))]
        return tuple(torch.cat(state).to(self._device) for state in zip(*in_order, strict=True))

    @property
    def _device(self) -> torch.device:
        return next(cast(nn.Module, self.model).parameters()).device

    @contextmanager
    def _inference(self) -> Iterator[None]:
        """Evaluation mode, no gradients, and autocast where a lower precision is asked for."""
        cast(nn.Module, self.model).eval()
        dtype = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[self.precision]
        with torch.inference_mode(), torch.autocast(self._device.type, dtype, enabled=self.precision != "no"):
            yield


def _take_over(part: Path, provenance: Provenance, blocks: int) -> list[int]:
    """The blocks yet to be scored. Those of an earlier job stand if they come from the same model and split."""
    wanted = json.dumps({**asdict(provenance), "revision": "", "blocks": blocks, "block": BLOCK})
    identity = part / "identity.json"
    if identity.exists() and identity.read_text() == wanted:
        standing = _standing(part)
        print(f"{part}: {len(standing)} of {blocks} blocks stand already", flush=True)
        return [number for number in range(blocks) if number not in standing]
    if part.exists():
        print(f"{part}: blocks of another model, split or configuration are discarded", flush=True)
        shutil.rmtree(part)
    part.mkdir(parents=True)
    identity.write_text(wanted)
    return list(range(blocks))


def _write_block(part: Path, number: int, scores: np.ndarray) -> None:
    content = io.BytesIO()
    np.save(content, scores, allow_pickle=False)
    with written_aside(part / f"{number:06d}-{zlib.crc32(content.getbuffer()):08x}.npy") as aside:
        aside.write_bytes(content.getbuffer())


def _standing(part: Path) -> dict[int, Path]:
    """Block files by number; a damaged one is removed and will be scored again."""
    standing = {}
    for path in sorted(part.glob("*.npy")):
        number, checksum = path.stem.split("-")
        if zlib.crc32(path.read_bytes()) == int(checksum, 16):
            standing[int(number)] = path
        else:
            print(f"{path}: damaged, it will be scored again", flush=True)
            path.unlink()
    return standing


class _Columns:
    """Mapped block files as one matrix, read some rows at a time: the whole need not fit in memory."""

    def __init__(self, blocks: list[tuple[np.ndarray, np.ndarray]], shape: tuple[int, int]) -> None:
        self._blocks, self.shape = blocks, shape

    def __getitem__(self, rows: slice) -> np.ndarray:
        first, stop, _ = rows.indices(self.shape[0])
        scores = np.empty((stop - first, self.shape[1]), np.float32)
        for columns, block in self._blocks:
            scores[:, columns] = block[first:stop]
        return scores


def _cut(states: States, size: int) -> Iterator[States]:
    return zip(*(state.split(size) for state in states), strict=True)


def _to(batch: Batch, device: torch.device) -> dict[str, Tensor]:
    return {key: value.to(device, non_blocking=True) for key, value in batch.items()}
