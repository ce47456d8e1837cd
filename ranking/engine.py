"""Fills the score matrix of a split: every image and every text is encoded once, then block after block is scored.

Texts are sorted by length and cut into blocks of columns. Each process takes every n-th block; the image states are
encoded in shares and exchanged. A finished block is a file of its own in `<ranking file>.part/`, written aside and
renamed, so a job that was killed goes on where it was, with any number of processes, and gives the same ranking file.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import DataLoader

from corpora.corpus import Split
from corpora.progress import progress
from models.protocols import Batch, Inputs, RetrievalModel, States
from ranking.matrix import Axis, Provenance, Ranking, RankingError, Relevance, check_finite, read_ranking, write_ranking

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

    def rank_in_memory(self, provenance: Provenance) -> Ranking:
        """The whole matrix, on every process; for validation between epochs."""
        images, blocks = self._image_states(), self._text_blocks()
        mine = [(columns, self._scores(images, columns)) for columns in blocks[_rank() :: _size()]]
        scores = np.empty((len(self.split.image_ids), len(self.split.texts)), np.float32)
        for columns, block in (part for share in _all_gather(mine) for part in share):
            scores[:, columns] = block
        return self._ranking(scores, provenance)

    def rank_to_file(self, path: Path, provenance: Provenance) -> Ranking:
        """The whole matrix as a ranking file; goes on with the blocks that an earlier, stopped job left."""
        if path.exists():
            return self._finished(path, provenance)
        blocks = self._text_blocks()
        part = path.with_name(path.name + ".part")
        if _rank() == 0:
            _take_over(part, provenance, len(blocks))
        _barrier()
        missing = [number for number in range(len(blocks)) if not (part / f"{number:06d}.npy").exists()]
        _barrier()  # no process may write a block before all have looked
        if missing:
            self._fill(part, blocks, missing)
        _barrier()
        if _rank() == 0:
            self._assemble(path, part, blocks, provenance)
        _barrier()
        return read_ranking(path)

    def _fill(self, part: Path, blocks: list[np.ndarray], missing: list[int]) -> None:
        images, mine = self._image_states(), missing[_rank() :: _size()]
        for number in progress(mine, "scoring blocks of texts", len(mine)):
            scores = self._scores(images, blocks[number])
            check_finite(scores, self.split.image_ids, [self.split.text_ids[i] for i in blocks[number]])
            _write_block(part / f"{number:06d}.npy", scores)

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
        scores = np.lib.format.open_memmap(
            part / "scores.whole", "w+", np.float32, (len(self.split.image_ids), len(self.split.texts))
        )
        for number, columns in enumerate(blocks):
            block = np.load(part / f"{number:06d}.npy", allow_pickle=False)
            scores[:, columns] = block
        write_ranking(path, self._ranking(scores, provenance))
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
        at_once = max(1, self.pair_batch // BLOCK)
        with self._inference():
            texts = self.model.encode_texts(_to(self.inputs.texts([self.split.texts[i] for i in columns]), self._device))
            rows = [
                self.model.score(tuple(state[start : start + at_once] for state in images), texts).float().cpu()
                for start in range(0, len(self.split.image_ids), at_once)
            ]
        return torch.cat(rows).numpy()

    def _image_states(self) -> States:
        """States of all images on this process's device; each image is encoded by one process."""
        ids = self.split.image_ids
        batches = [ids[start : start + BLOCK] for start in range(0, len(ids), BLOCK)]
        mine = batches[_rank() :: _size()]
        loader = DataLoader(
            cast(Any, mine), batch_size=None, collate_fn=self.inputs.images, num_workers=min(self.workers, len(mine))
        )
        with self._inference():
            encoded = [
                tuple(state.cpu() for state in self.model.encode_images(_to(batch, self._device)))
                for batch in progress(loader, "encoding batches of images", len(mine))
            ]
        shares = _all_gather(encoded)
        in_order = [shares[number % _size()][number // _size()] for number in range(len(batches))]
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


def weights_digest(model: nn.Module) -> str:
    """First 16 hex digits of the sha256 over all weights: two rankings with the same digest come from the same model."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _take_over(part: Path, provenance: Provenance, blocks: int) -> None:
    """Keep the blocks of an earlier job if they come from the same model and split; else start anew and say so."""
    wanted = json.dumps({**asdict(provenance), "revision": "", "blocks": blocks, "block": BLOCK})
    identity = part / "identity.json"
    stands = len(list(part.glob("*.npy")))
    if identity.exists() and identity.read_text() == wanted:
        print(f"{part}: {stands} of {blocks} blocks stand already")
        return
    if stands:
        print(f"{part}: {stands} blocks of another model, split or configuration are discarded")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    identity.write_text(wanted)


def _write_block(path: Path, scores: np.ndarray) -> None:
    writing = path.with_suffix(".writing")
    with writing.open("wb") as file:
        np.save(file, scores, allow_pickle=False)
    writing.replace(path)


def _to(batch: Batch, device: torch.device) -> dict[str, Tensor]:
    return {key: value.to(device, non_blocking=True) for key, value in batch.items()}


def is_main() -> bool:
    """Whether this process is the one that writes results and prints."""
    return _rank() == 0


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def _size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def _barrier() -> None:
    if dist.is_initialized():
        dist.barrier()


def _all_gather(value: Any) -> list[Any]:
    """Every process's value, by rank."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * _size()
    dist.all_gather_object(values, value)
    return values
