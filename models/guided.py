"""Guided image retrieval: a dual encoder (DE), and SIAM, whose image vectors are guided by the text.

DE: a picture's last map, averaged, and a text's pooled state, each through one linear layer; score = cosine.
SIAM (spatial information aggregator): the text vector t of a frozen DE weighs region vectors r_k by w_k = r_k . t; from
g = sum of w_k r_k three linear layers make alpha (of rows), beta (of columns) and gamma (of channels), which modulate the map X
of a frozen trunk: X (1 + alpha_h + beta_w + gamma_c). Its mean, normalised and projected, is the guided vector; score = its
cosine with t. The original ranked ascending, and by DE's image vectors; here the guided vector is what is ranked, best first.

The mean of a modulated map needs only the map's row and column means (`modulation`): O(C (H + W)) a pair, no map. And
all from w to the projected mean is linear, so its parts are computed once an image: a pair then costs the two products of
region-sized matrices with t. Both equal the modulated map to rounding (tests/models/test_guided.py).

Tensor suffixes: I images, T texts, R regions, K = 1 + R parts (the first: without regions), C channels, H rows and
W columns of the map, D width of the common space, F width of a region's features.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from corpora.corpus import Corpus
from corpora.regions import RegionStore
from models.image_trunk import ImageTrunk, read_trunk
from models.pretrained import one_error
from models.protocols import Batch, Inputs, States
from models.text_tower import TextTower, read_text_tower
from models.tower_inputs import TowerInputs
from models.weight_files import load_named, read_tensors

FILE = "guided.json"
Kind = Literal["de", "siam"]
TINY = 1e-12
"""Least squared length by which is divided."""


class DualEncoder(nn.Module):
    """Two towers and a linear layer each; `dropout` of what the towers give, or of what SIAM reads of an image."""

    score_meaning = "cosine"
    kind: Kind = "de"

    def __init__(self, trunk: ImageTrunk, tower: TextTower, size: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.trunk, self.tower, self.size = trunk, tower, size
        self.dropout, self.text_dropout = nn.Dropout(dropout), nn.Dropout(dropout)
        self.image, self.text = nn.Linear(trunk.width, size), nn.Linear(tower.width, size)

    def encode_images(self, batch: Batch) -> States:
        """`pixel_values` (I, 3, side, side), or what the trunk made of them, `image_vectors` (I, C) -> unit vectors (I, D)."""
        vectors_ID = self.image(self.dropout(self._seen(batch)))
        return (F.normalize(vectors_ID.float(), dim=-1),)

    def encode_texts(self, batch: Batch) -> States:
        """`input_ids` and `attention_mask` (T, L), or what the tower made of them, `text_vectors` -> unit vectors (T, D)."""
        read = batch["text_vectors"] if "text_vectors" in batch else self.tower(batch).pooled
        return (F.normalize(self.text(self.text_dropout(read)).float(), dim=-1),)

    def score(self, images: States, texts: States) -> Tensor:
        """(I, T) cosines."""
        with torch.autocast(images[0].device.type, enabled=False):  # a bf16 score has 8 bits: of thousands, many would tie
            return images[0] @ texts[0].T

    def _seen(self, batch: Batch) -> Tensor:
        return batch["image_vectors"] if "image_vectors" in batch else self.trunk.pooled(batch["pixel_values"])


class ProfileTrunk(ImageTrunk):
    """A frozen trunk whose map is kept as its row means and then its column means, (I, (H + W) C)."""

    def __init__(self, trunk: ImageTrunk) -> None:
        super().__init__(trunk.model, trunk.prepare, trunk.name, trunk._config, frozen=True)
        with torch.no_grad():
            side = self.prepare.side
            self.rows, self.columns = self(torch.zeros(1, 3, side, side)).shape[2:]

    def pooled(self, pixels: Tensor) -> Tensor:
        """(I, 3, side, side) -> the profile, which is all that SIAM reads of a map."""
        map_ICHW = self(pixels).float()
        return torch.cat([map_ICHW.mean(3), map_ICHW.mean(2)], dim=2).mT.flatten(1)


class Siam(DualEncoder):
    """SIAM over the text side of a dual encoder. Only its five linear layers learn: region, alpha, beta, gamma, image."""

    score_meaning = "cosine of the text and the image vector that it guides"
    kind: Kind = "siam"
    trunk: ProfileTrunk

    def __init__(self, trunk: ImageTrunk, tower: TextTower, size: int, region_width: int, dropout: float = 0.0) -> None:
        super().__init__(ProfileTrunk(trunk), tower, size, dropout)
        self.region_width, self.text_dropout = region_width, nn.Dropout(0.0)  # its texts are the dual encoder's
        self.region = nn.Linear(region_width, size)
        self.alpha, self.beta = nn.Linear(size, self.trunk.rows), nn.Linear(size, self.trunk.columns)
        self.gamma = nn.Linear(size, self.trunk.width)
        for part in (self.tower, self.text):
            part.requires_grad_(False)
        self.tower.frozen = True

    def encode_images(self, batch: Batch) -> States:
        """`pixel_values` or `image_vectors` as ProfileTrunk makes them; `regions` (I, R, F) and `region_counts` (I,).

        Gives region vectors (I, R, D); the projected mean in parts, the last the projection's bias (I, K + 1, D); the
        products of the mean's parts with each other, for its length (I, K, K).
        """
        profile_IPC = self.dropout(self._seen(batch).float()).unflatten(1, (-1, self.trunk.width))
        with torch.autocast(profile_IPC.device.type, enabled=False):
            regions_IRD = self._regions(self.dropout(batch["regions"]), batch["region_counts"])
            parts_IKC = self._parts(profile_IPC, regions_IRD)
            bias = self.image.bias.expand(len(profile_IPC), 1, -1)
            projected = torch.cat([F.linear(parts_IKC, self.image.weight), bias], dim=1)
            return regions_IRD, projected, parts_IKC @ parts_IKC.mT

    def score(self, images: States, texts: States) -> Tensor:
        """(I, T) cosines of each text and the image as that text guides it."""
        regions_IRD, projected, products_IKK = images
        (text_TD,) = texts
        with torch.autocast(text_TD.device.type, enabled=False):
            weights_IRT = regions_IRD @ text_TD.T
            parts_IKT = F.pad(weights_IRT, (0, 0, 1, 0), value=1.0)
            parts_IKT = F.pad(parts_IKT / _length(products_IKK, parts_IKT), (0, 0, 0, 1), value=1.0)
            along_text = (parts_IKT * (projected @ text_TD.T)).sum(1)
            return along_text / _length(projected @ projected.mT, parts_IKT).squeeze(1)

    def _regions(self, features_IRF: Tensor, counts_I: Tensor) -> Tensor:
        """Unit vectors (I, R, D); zero where an image has fewer regions."""
        real = torch.arange(features_IRF.shape[1], device=counts_I.device) < counts_I[:, None]
        return F.normalize(self.region(features_IRF), dim=-1) * real[..., None]

    def _parts(self, profile_IPC: Tensor, regions_IRD: Tensor) -> Tensor:
        """The mean of the modulated map is the sum over K of (1, w_1 .. w_R) x parts (I, K, C)."""
        rows, columns = profile_IPC.split([self.trunk.rows, self.trunk.columns], dim=1)
        of_regions = (F.linear(regions_IRD, layer.weight) for layer in (self.alpha, self.beta, self.gamma))
        of_all = (layer.bias.expand(len(rows), 1, -1) for layer in (self.alpha, self.beta, self.gamma))
        base = rows.mean(1, keepdim=True) + modulation(rows, columns, *of_all)
        return torch.cat([base, modulation(rows, columns, *of_regions)], dim=1)


def modulation(rows_IHC: Tensor, columns_IWC: Tensor, alpha_INH: Tensor, beta_INW: Tensor, gamma_INC: Tensor) -> Tensor:
    """(I, N, C): the mean over all places of X (alpha_h + beta_w + gamma_c), from X's row and column means alone."""
    by_row = alpha_INH @ rows_IHC / rows_IHC.shape[1]
    by_column = beta_INW @ columns_IWC / columns_IWC.shape[1]
    return by_row + by_column + gamma_INC * rows_IHC.mean(1, keepdim=True)


def _length(products: Tensor, parts: Tensor) -> Tensor:
    """(I, 1, T) lengths of vectors that are sums of parts (I, K, T), from the parts' products (I, K, K) with each other."""
    return (parts * (products @ parts)).sum(1, keepdim=True).clamp(min=TINY).sqrt()


class SiamInputs:
    """The inputs of the towers, with regions."""

    def __init__(self, towers: Inputs, regions: RegionStore) -> None:
        self.towers, self._regions = towers, regions

    def images(self, image_ids: Sequence[str]) -> Batch:
        """Also `regions` (I, R, F) and `region_counts` (I,)."""
        features, _, counts = self._regions.read_padded(image_ids)
        regions = {"regions": torch.from_numpy(features).float(), "region_counts": torch.from_numpy(counts)}
        return {**self.towers.images(image_ids), **regions}

    def texts(self, texts: Sequence[str]) -> Batch:
        """As the towers read them."""
        return self.towers.texts(texts)


def siam_over(dual: DualEncoder, region_width: int, trunk: ImageTrunk | None = None, dropout: float = 0.0) -> Siam:
    """A new SIAM over a trained dual encoder, by default also over its trunk."""
    if isinstance(dual, Siam):
        raise ValueError("SIAM is trained over a dual encoder, and this checkpoint is a SIAM already")
    model = Siam(trunk or dual.trunk, dual.tower, dual.size, region_width, dropout)
    model.text.load_state_dict(dual.text.state_dict())
    return model


@torch.no_grad()
def start_as(model: Siam, dual: DualEncoder, pictures: Batch) -> None:
    """Let a SIAM over a dual encoder's own trunk begin where that stands: with its image layer, and guided by nothing.

    SIAM normalises what the layer reads. Some pictures tell how long it was, by which the bias must become smaller.
    """
    length = dual.trunk.pooled(pictures["pixel_values"]).norm(dim=1).mean()
    model.image.weight.copy_(dual.image.weight)
    model.image.bias.copy_(dual.image.bias / length)
    for layer in (model.alpha, model.beta, model.gamma):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)


def read(checkpoint: str) -> DualEncoder:
    """The dual encoder or SIAM in a folder that `save` wrote, with frozen towers."""
    folder = Path(checkpoint)
    with one_error(checkpoint, f"{FILE} of a DE or SIAM"):
        told = json.loads((folder / FILE).read_text())
    towers = read_trunk(folder), read_text_tower(folder)
    siam = told["kind"] == "siam"
    model = Siam(*towers, told["size"], told["region_width"]) if siam else DualEncoder(*towers, told["size"])
    load_named(model, read_tensors(folder / "model.safetensors"), checkpoint)
    return model


def tower_inputs(model: DualEncoder, corpus: Corpus) -> TowerInputs:
    """What the towers read of a corpus."""
    return TowerInputs(model.trunk.prepare, model.tower.tokens, corpus.images)


def with_regions(model: DualEncoder, towers: Inputs, corpus: Corpus, regions: str) -> Inputs:
    """What the model reads: for SIAM also the regions of this name, which must be as wide as those it was made for."""
    if not isinstance(model, Siam):
        return towers
    store = corpus.regions(regions)
    if store.width != model.region_width:
        raise ValueError(
            f"{store.path}: features are {store.width} wide, this SIAM reads {model.region_width}; use the regions it was trained on"
        )
    return SiamInputs(towers, store)


def load(checkpoint: str, corpus: Corpus, regions: str = "") -> tuple[DualEncoder, Inputs]:
    """A dual encoder or a SIAM, as the checkpoint says, and what it reads of a corpus."""
    model = read(checkpoint)
    return model, with_regions(model, tower_inputs(model, corpus), corpus, regions)


def save(model: DualEncoder, folder: Path) -> None:
    """Weights (safetensors), the towers' configurations and the tokenizer, as `load` reads them."""
    told: dict[str, object] = {"kind": model.kind, "size": model.size}
    told |= {"region_width": model.region_width} if isinstance(model, Siam) else {}
    (folder / FILE).write_text(json.dumps(told))
    model.trunk.save(folder)
    model.tower.save(folder)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / "model.safetensors")
