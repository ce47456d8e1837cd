"""Training LXMERT for retrieval: which pairs a batch scores, and the loss over them.

Binary: a batch names its images and texts once each, and the pairs to score by index, so every item is encoded once a
step however many pairs it is in. Contrastive: the pairs are those of the whole batch, however many processes share it;
each process scores its own texts against the images of all.
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
from models.protocols import States
from training.chunking import in_chunks
from training.gathering import gathered
from training.losses import binary_loss, circulant_pairs, hinge_loss, other_direction, related, softmax_loss
from training.pairs import PairSet
from training.processes import on_main, rank, size
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
    ) -> None:
        self._split, self._inputs, self._states = split, inputs, states
        self._formulation, self._prob_unaligned = formulation, prob_unaligned
        self._pairs = PairSet(split.pairs, len(split.image_ids), len(split.texts))
        if prob_unaligned is not None:
            self._pairs.check_share(prob_unaligned)

    def batch(self, samples: np.ndarray, generator: np.random.Generator) -> dict[str, Tensor]:
        """Items of the batch: `features`, `boxes`; `input_ids` or `states`, with `attention_mask`.

        Binary: pairs by `image` and `text`, rows of these items, and `labels` 1 or 0. Contrastive: row b is an image and
        its own text; what fits what (`PairSet.known`), and `draw` (), from which all processes draw the same partners.
        """
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
        known = {key: torch.from_numpy(value) for key, value in self._pairs.known(samples).items()}
        return self._items(images, texts) | known | {"draw": torch.tensor(int(generator.integers(2**31)))}

    def _items(self, images: np.ndarray, texts: np.ndarray) -> dict[str, Tensor]:
        items = dict(self._inputs.images([self._split.image_ids[i] for i in images]))
        if self._states is None:
            return items | dict(self._inputs.texts([self._split.texts[i] for i in texts]))
        states, mask = self._states.padded(texts)
        return items | {"states": states, "attention_mask": mask}


class LxmertTrainee(nn.Module):
    """LXMERT with a loss: what the training loop runs.

    The rest is for the contrastive formulation: `negatives` other items of the whole batch are scored against each item
    (0 = all), `chunk` items encoded and pairs scored at once (`training.chunking`).
    """

    def __init__(
        self,
        model: Lxmert,
        formulation: Formulation,
        loss: Loss = "softmax",
        margin: float = 0.2,
        top_k: int = 0,
        negatives: int = 0,
        chunk: int = 0,
    ) -> None:
        super().__init__()
        freeze_unread(model)
        self.model, self._formulation = model, formulation
        self._loss, self._margin, self._top_k = loss, margin, top_k
        self._negatives, self._chunk = negatives, chunk

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """The mean loss: binary of this process's pairs, contrastive of the whole batch, the same in every process."""
        return self._binary(batch) if self._formulation == "binary" else self._contrastive(batch)

    def _binary(self, batch: dict[str, Tensor]) -> Tensor:
        images, texts = self._encoded(batch)
        return binary_loss(self.model.score_pairs(images, texts, batch["image"], batch["text"]), batch["labels"])

    def _contrastive(self, batch: dict[str, Tensor]) -> Tensor:
        mine = len(batch["own_text"])
        everyone = mine * size()
        draw = torch.Generator().manual_seed(int(batch["draw"]))
        pairs = circulant_pairs(everyone, self._negatives or everyone - 1, draw)
        image, text = (indices.to(batch["own_text"].device) for indices in pairs)
        scores = self._scores(batch, image[rank() * mine :][:mine].flatten(), text[:mine].flatten())
        by_text = gathered(scores.view(mine, -1))
        ignored = related(gathered(batch["texts_of_image"])[image], gathered(batch["own_text"])[text])
        ignored[:, 0] = False
        by_image = self._contrast(other_direction(by_text, image), other_direction(ignored, image))
        return (self._contrast(by_text, ignored) + by_image) / 2

    def _scores(self, batch: dict[str, Tensor], image_P: Tensor, text_P: Tensor) -> Tensor:
        """(P,) scores of images of the whole batch and texts of this process's part."""
        (vision,), (language, mask) = self._encoded(batch)
        vision = gathered(vision)

        def score(pairs: dict[str, Tensor]) -> tuple[Tensor]:
            """Of the items in these pairs only: a chunk must not project all that the batch has."""
            (images, image), (texts, text) = (pairs[side].unique(return_inverse=True) for side in ("image", "text"))
            states = (vision.index_select(0, images),), (language.index_select(0, texts), mask[texts])
            return (self.model.score_pairs(*states, image, text),)

        return in_chunks(score, {"image": image_P, "text": text_P}, self._chunk)[0]

    def _encoded(self, batch: dict[str, Tensor]) -> tuple[States, States]:
        regions = {key: batch[key] for key in ("features", "boxes")}
        images = in_chunks(self.model.encode_images, regions, self._chunk)
        if "states" in batch:
            return images, (batch["states"], batch["attention_mask"])
        tokens = {key: batch[key] for key in ("input_ids", "attention_mask")}
        return images, in_chunks(self.model.encode_texts, tokens, self._chunk)

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
