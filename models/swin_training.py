"""Metric learning of an image encoder: batches of images with classes, the loss, the moving average, feedback."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from corpora.images import ImageStore
from models.image_trunk import Pixels
from models.swin import ImageEncoder
from training.augmentation import Augmentation, augmented
from training.class_losses import ClassLoss
from training.gathering import gathered
from training.layer_rates import layer_rates
from training.pairs import sample_generators


class ClassBatches:
    """Makes batches of a split's images; runs in loader workers. `labels` are class numbers."""

    def __init__(
        self, image_ids: Sequence[str], labels: np.ndarray, store: ImageStore, prepare: Pixels, augmentation: Augmentation
    ) -> None:
        self._ids, self._labels, self._store = image_ids, labels, store
        self._prepare, self._augmentation = prepare, augmentation

    def batch(self, samples: np.ndarray, generator: np.random.Generator) -> dict[str, Tensor]:
        """`pixel_values` (B, 3, side, side), `labels` (B,) and `images` (B,), their numbers.

        An image that comes twice in a step is changed in the same way both times.
        """
        pixels = self.pixels([self._ids[sample] for sample in samples], samples, generator)
        return {"pixel_values": pixels, "labels": torch.from_numpy(self._labels[samples]), "images": torch.from_numpy(samples)}

    def pixels(self, image_ids: Sequence[str], numbers: np.ndarray, generator: np.random.Generator) -> Tensor:
        """(B, 3, side, side) of some images, each changed as its number and the generator say."""
        drawn = zip(image_ids, sample_generators(numbers, generator), strict=True)
        return self._prepare([augmented(self._store.picture(image_id), self._augmentation, draw) for image_id, draw in drawn])

    def describe(self, samples: np.ndarray) -> list[str]:
        """Image ids of samples."""
        return [self._ids[sample] for sample in samples]


class Learner(nn.Module):
    """All that learns: the encoder, the points of a proxy loss, and what must be kept with them."""

    def __init__(self, encoder: ImageEncoder, loss: ClassLoss, average: float) -> None:
        super().__init__()
        self.encoder, self.loss, self._keep = encoder, loss, average
        self.average = copy.deepcopy(encoder).requires_grad_(False) if average else None

    @property
    def searched(self) -> ImageEncoder:
        """The encoder that is validated and searched with."""
        return self.encoder if self.average is None else self.average

    @torch.no_grad()
    def follow(self) -> None:
        """Move the average towards the weights, after they have changed."""
        if self.average is not None:
            for mine, new in zip(self.average.parameters(), self.encoder.parameters(), strict=True):
                mine.lerp_(new, 1 - self._keep)

    def rates(self, layer_decay: float, proxy_rate: float) -> dict[str, float]:
        """What each parameter's learning rate is multiplied with, by its name in a trainee."""
        trunk = layer_rates(self.encoder.trunk, layer_decay)
        rates = {f"model.encoder.trunk.{name}": rate for name, rate in trunk.items()}
        return rates | {f"model.loss.{name}": proxy_rate for name, _ in self.loss.named_parameters()}


class SwinTrainee(nn.Module):
    """The learner with its loss: what the training loop runs."""

    def __init__(self, model: Learner) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """The loss of the whole batch, from one forward pass of this process's images.

        Behind the images with classes stand those of the feedback, if any: query, relevant item, irrelevant item, query ...; their
        triplet loss, under the same margin and distance, is added.
        """
        labels, images = gathered(batch["labels"]), gathered(batch["images"])
        (vectors,) = self.model.encoder.encode_images({"pixel_values": batch["pixel_values"]})
        count = len(batch["labels"])
        with torch.autocast(vectors.device.type, enabled=False):
            loss: Tensor = self.model.loss(gathered(vectors[:count]), labels, images)
            if len(vectors) > count:
                query, relevant, irrelevant = gathered(vectors[count:]).unflatten(0, (-1, 3)).unbind(1)
                loss = loss + F.triplet_margin_loss(query, relevant, irrelevant, margin=self.model.loss.margin)
        return loss
