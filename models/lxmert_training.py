"""Training LXMERT for retrieval: which pairs a batch scores, and the loss over them.

A batch names its images and texts once each, and the pairs to score by index, so every item is encoded once a step
however many pairs it is in.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from corpora.corpus import Split
from corpora.progress import progress
from models.lxmert import Lxmert, LxmertInputs, freeze_language, freeze_unread
from training.losses import binary_loss, circulant_pairs, hinge_loss, other_direction, softmax_loss
from training.pairs import PairSet
from training.processes import on_main
from training.state_cache import StateCache, write_states
from training.weights import weights_digest

Formulation = Literal["binary", "contrastive"]
Loss = Literal["softmax", "hinge"]


class LxmertPairs:
    """Makes batches from a split's pairs; runs in loader workers."""

    def __init__(
        self,
        split: Split,
        inputs: LxmertInputs,
        states: StateCache | None,
        formulation: Formulation,
        prob_unaligned: float | None = None,
        negatives: int = 0,
    ) -> None:
        self._split, self._inputs, self._states = split, inputs, states
        self._formulation, self._prob_unaligned, self._negatives = formulation, prob_unaligned, negatives
        self._pairs = PairSet(split.pairs, len(split.image_ids), len(split.texts))
        if prob_unaligned is not None:
            self._pairs.check_share(prob_unaligned)

    def batch(self, samples: np.ndarray, generator: np.random.Generator) -> dict[str, Tensor]:
        """Items of the batch (`features`, `boxes`; `input_ids` or `states`, with `attention_mask`), pairs by `image` and `text` index,
        and `labels` (binary: 1 or 0) or `ignored` (contrastive: a candidate that is relevant too)."""
        return self._binary(samples, generator) if self._formulation == "binary" else self._contrastive(samples, generator)

    def describe(self, samples: np.ndarray) -> list[str]:
        """Caption ids of samples."""
        return [self._split.text_ids[text] for text in self._split.pairs[samples, 1]]

    def _binary(self, samples: np.ndarray, generator: np.random.Generator) -> dict[str, Tensor]:
        if self._prob_unaligned is None:
            pairs, labels = self._pairs.paired_samples(samples, generator)
        else:
            pairs, labels = self._pairs.mixed_samples(samples, generator, self._prob_unaligned)
        images, image = np.unique(pairs[:, 0], return_inverse=True)
        texts, text = np.unique(pairs[:, 1], return_inverse=True)
        indices = {"image": torch.from_numpy(image), "text": torch.from_numpy(text), "labels": torch.from_numpy(labels)}
        return self._items(images, texts) | indices

    def _contrastive(self, samples: np.ndarray, generator: np.random.Generator) -> dict[str, Tensor]:
        images, texts = self._split.pairs[samples].T
        others = len(samples) - 1
        if not 0 < (self._negatives or others) <= others:
            raise ValueError(
                f"--negatives {self._negatives}: a process has {len(samples)} pairs at a time, so each has {others} others to be "
                "scored against; raise --batch-size (it is divided by processes and --accumulate) or lower --negatives"
            )
        random = torch.Generator().manual_seed(int(generator.integers(2**31)))
        image, text = circulant_pairs(len(samples), self._negatives or others, random)
        ignored = torch.from_numpy(self._pairs.related(images[image], texts[text]))
        ignored[:, 0] = False
        return self._items(images, texts) | {"image": image, "text": text, "ignored": ignored}

    def _items(self, images: np.ndarray, texts: np.ndarray) -> dict[str, Tensor]:
        items = dict(self._inputs.images([self._split.image_ids[i] for i in images]))
        if self._states is None:
            return items | dict(self._inputs.texts([self._split.texts[i] for i in texts]))
        states, mask = self._states.padded(texts)
        return items | {"states": states, "attention_mask": mask}


class LxmertTrainee(nn.Module):
    """LXMERT with a loss: what the training loop runs."""

    def __init__(self, model: Lxmert, formulation: Formulation, loss: Loss, margin: float, top_k: int) -> None:
        super().__init__()
        freeze_unread(model)
        self.model, self._formulation = model, formulation
        self._loss, self._margin, self._top_k = loss, margin, top_k

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """The mean loss of the batch."""
        images = self.model.encode_images(batch)
        texts = (batch["states"], batch["attention_mask"]) if "states" in batch else self.model.encode_texts(batch)
        scores = self.model.score_pairs(images, texts, batch["image"].flatten(), batch["text"].flatten())
        if self._formulation == "binary":
            return binary_loss(scores, batch["labels"])
        by_text = scores.view_as(batch["image"])
        by_image, ignored = other_direction(by_text, batch["image"]), other_direction(batch["ignored"], batch["image"])
        return (self._contrast(by_text, batch["ignored"]) + self._contrast(by_image, ignored)) / 2

    def _contrast(self, scores: Tensor, ignored: Tensor) -> Tensor:
        """Each query's own candidate stands in column 0."""
        own = torch.zeros(len(scores), dtype=torch.long, device=scores.device)
        if self._loss == "softmax":
            return softmax_loss(scores, own, ignored)
        return hinge_loss(scores, own, ignored, self._margin, self._top_k)


def freeze(model: Lxmert, inputs: LxmertInputs, split: Split, cache: Path) -> StateCache:
    """Freeze the language layers and compute the states of the split's texts, once for the life of the run folder."""
    freeze_language(model)
    language = nn.ModuleList([model.lxmert.embeddings, model.lxmert.encoder.layer])
    folder = cache / f"text-states-{split.digest[:16]}-{weights_digest(language)}"
    if not on_main(folder.exists):
        on_main(lambda: write_states(folder, _text_states(model, inputs, split.texts)))
    return StateCache(folder)


def _text_states(model: Lxmert, inputs: LxmertInputs, texts: tuple[str, ...]) -> Iterator[np.ndarray]:
    model.eval()
    with torch.no_grad():
        for start in progress(range(0, len(texts), 128), "encoding batches of captions"):
            batch = inputs.texts(texts[start : start + 128])
            states, mask = model.encode_texts({key: value.to(model.device) for key, value in batch.items()})
            for row, length in zip(states.cpu().numpy(), mask.sum(1).tolist(), strict=True):
                yield row[:length]
