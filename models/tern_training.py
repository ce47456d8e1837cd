"""Training TERN: a batch of image-text pairs, every pair compared with the whole batch, however many processes share it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from corpora.corpus import Split
from models.tern import Tern, TernInputs
from models.text_features import TextFeatures, tower_name, write_text_features
from training.chunking import in_chunks
from training.gathering import gathered
from training.losses import related
from training.metric_losses import make_loss
from training.objective import Objective
from training.pairs import PairSet
from training.processes import on_main
from training.supervision import Supervisor

IMAGE_KEYS, TEXT_KEYS = ("features", "boxes", "region_mask"), ("input_ids", "states", "attention_mask")


class TernPairs:
    """Makes batches from a split; runs in loader workers.

    A sample is a pair of the split, or with `one_caption` an image with one of its captions, drawn anew every time.
    """

    def __init__(self, split: Split, inputs: TernInputs, one_caption: bool = False) -> None:
        self._split, self._inputs, self._one_caption = split, inputs, one_caption
        self._pairs = PairSet(split.pairs, len(split.image_ids), len(split.texts))
        self.samples = len(split.image_ids) if one_caption else len(split.pairs)

    def batch(self, samples: np.ndarray, generator: np.random.Generator) -> dict[str, Tensor]:
        """Regions and texts of B pairs; what fits what (`PairSet.known`), and `own_image` (B,)."""
        pairs = self._pairs.one_each(samples, generator) if self._one_caption else samples
        images, texts = self._split.pairs[pairs].T
        regions = self._inputs.images([self._split.image_ids[i] for i in images])
        words = self._inputs.texts([self._split.texts[i] for i in texts])
        known = {key: torch.from_numpy(value) for key, value in self._pairs.known(pairs).items()}
        return {**regions, **words, **known, "own_image": torch.from_numpy(images)}

    def describe(self, samples: np.ndarray) -> list[str]:
        """Caption ids of samples, or image ids."""
        if self._one_caption:
            return [self._split.image_ids[image] for image in samples]
        return [self._split.text_ids[text] for text in self._split.pairs[samples, 1]]


class TernTrainee(nn.Module):
    """TERN with a loss: what the training loop runs. `chunk`: pairs encoded at once (`training.chunking`)."""

    def __init__(self, model: Tern, objective: Objective, chunk: int = 0) -> None:
        super().__init__()
        freeze_unread(model)
        self.model, self._chunk = model, chunk
        self._loss = make_loss(objective, lambda images, texts: model.score((images,), (texts,)))

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """The loss of the whole batch, the same in every process."""
        images, texts = self._encoded(batch)
        known = (gathered(batch[key]) for key in ("own_image", "texts_of_image", "own_text"))
        owners, texts_of_image, own_text = known
        fits = related(texts_of_image[:, None], own_text)
        with torch.autocast(images.device.type, enabled=False):
            return self._loss(gathered(images), gathered(texts), owners, fits)

    def _encoded(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        regions, words = ({key: batch[key] for key in keys if key in batch} for keys in (IMAGE_KEYS, TEXT_KEYS))
        (images,) = in_chunks(self.model.encode_images, regions, self._chunk)
        (texts,) = in_chunks(self.model.encode_texts, words, self._chunk)
        return images, texts


def freeze_unread(model: Tern) -> None:
    """Freeze what the chosen aggregations do not read: DistributedDataParallel waits for every gradient."""
    shape, unread = model.shape, []
    past = {side: kind == "encoder" for side, kind in (("image", shape.image_aggregation), ("text", shape.text_aggregation))}
    if shape.shared_layers:
        unread += [getattr(model, f"{side}_{'projection' if aside else 'pooled'}") for side, aside in past.items()]
    if past["image"] and (past["text"] or shape.separate):
        unread.append(model.shared)
    if past["text"] and model.shared_text is not None:
        unread.append(model.shared_text)
    for part in unread:
        part.requires_grad_(False)


def freeze_text(model: Tern, name: str, splits: list[Split], cache: Path, supervisor: Supervisor) -> TextFeatures:
    """The features of the splits' texts over the model's frozen tower, computed once for the life of the run folder."""
    tower = model.text
    if tower is None or not tower.frozen:
        raise ValueError("only a frozen text tower gives the same features at every step")
    made_by = tower_name(tower, name)
    identity = hashlib.sha256("\n".join([made_by, *(split.digest for split in splits)]).encode()).hexdigest()
    folder = cache / f"text-features-{identity[:16]}"
    if not on_main(folder.exists):
        texts = [text for split in splits for text in split.texts]
        on_main(lambda: write_text_features(folder, tower, made_by, texts, supervisor))
    return TextFeatures(folder)
