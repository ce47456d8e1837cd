"""Search: one query, a text or a picture, against the images or the texts of a split.

A model encodes the split once; what it made of it is kept in a file, so that a second search encodes the query alone. A
second model can score the best items again (`ranking.rescored` has the rule of their order).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from corpora.corpus import Corpus, Split
from corpora.images import ImageStore, decode
from corpora.progress import progress
from corpora.store import StoreError
from models.protocols import Batch, States
from ranking.engine import BLOCK, Engine
from ranking.matrix import RankingError, check_finite, written_aside
from ranking.rescored import reordered
from training.weights import weights_digest

Kind = Literal["images", "texts"]
Block = tuple[np.ndarray, States]
"""Places of some records in their split, and their states."""
GUEST = "\0"
"""Id of the picture from outside; no id of a corpus holds such a letter."""


class Guests(ImageStore):
    """The pictures of a corpus and, while a search goes on, one from outside."""

    guest: Image.Image | None = None

    def picture(self, image_id: str) -> Image.Image:
        """As of any store; GUEST is the picture from outside."""
        return self.guest if image_id == GUEST and self.guest else super().picture(image_id)


class Searched(Corpus):
    """A corpus whose models can also be shown a picture from outside."""

    @cached_property
    def images(self) -> Guests:
        return Guests(self.folder / "images.h5")


@dataclass(frozen=True)
class Query:
    """A text, an image of the corpus by its id, or a picture from outside."""

    text: str = ""
    image: str = ""
    picture: Image.Image | None = None

    def __post_init__(self) -> None:
        if bool(self.text.strip()) + bool(self.image) + (self.picture is not None) != 1:
            raise ValueError("nothing to search for: give a text or a picture, one of the two")

    @property
    def name(self) -> str:
        return self.text or self.image or "a picture from outside"


@dataclass(frozen=True)
class Hit:
    """One item that was found."""

    id: str
    text: str
    """Of an image its first caption, or its class."""
    image: str
    """Id of the image, or of the first one that the text was written for; empty if there is none."""
    score: float
    second: float | None = None
    """The second model's score; None if that did not see the item."""


@dataclass(frozen=True, kw_only=True)
class Searcher(Engine):
    """A model ready to search one split."""

    name: str
    checkpoint: str
    corpus: Searched
    cache: Path
    """Folder for what the model makes of the split."""

    def asked(self, query: Query) -> States:
        """The query's states, by one forward pass."""
        with self._inference():
            if query.text:
                return self.model.encode_texts(self._here(self.inputs.texts([query.text])))
            self.corpus.images.guest = query.picture
            try:
                batch = self.inputs.images([query.image or GUEST])
            except StoreError as error:
                if query.picture is None:
                    raise
                raise RankingError(
                    f"{self.checkpoint}: {self.name} reads region features, and a picture from outside has none; "
                    "search by the id of an image, or without this model"
                ) from error
            finally:
                self.corpus.images.guest = None
            return self.model.encode_images(self._here(batch))

    def finds(self, query: Query, asked: States) -> list[Kind]:
        """Images by a text; by a picture texts, and images like it if the model is a dual encoder."""
        found: list[Kind] = ["texts"] if self.split.texts and not query.text else []
        return [*found, "images"] if self.split.image_ids and (query.text or is_dual(asked)) else found

    def scores(self, query: Query, asked: States, kind: Kind, places: np.ndarray | None = None) -> np.ndarray:
        """(N,) float32 of all images or texts of the split, or (P,) of those in some places, which are then encoded anew.

        Images are compared with an image by cosine.
        """
        ids = self.ids(kind)
        scores = np.empty(len(ids), np.float32)
        with self._inference():
            for where, states in self._gallery(kind) if places is None else self._some(kind, places):
                if query.text:
                    some = self._compare(states, asked, np.zeros(1, int))[:, 0]
                elif kind == "texts":
                    some = self._compare(asked, states, where)[0]
                else:
                    some = F.cosine_similarity(states[0].float(), asked[0].float())
                scores[where] = some.cpu().numpy()
        chosen = np.arange(len(ids)) if places is None else places
        check_finite(scores[None, chosen], [query.name], [ids[place] for place in chosen])
        return scores[chosen]

    def ids(self, kind: Kind) -> tuple[str, ...]:
        """Of the split's images or texts."""
        return self.split.image_ids if kind == "images" else self.split.text_ids

    # What the model makes of the split

    def _gallery(self, kind: Kind) -> list[Block]:
        return self._images if kind == "images" else self._texts

    @cached_property
    def _images(self) -> list[Block]:
        return self._kept("images", lambda: [(np.arange(len(self.split.image_ids)), self._image_states(shown=True))])

    @cached_property
    def _texts(self) -> list[Block]:
        blocks = self._text_blocks()
        return self._kept(
            "texts", lambda: [self._text_block(b) for b in progress(blocks, "encoding blocks of texts", len(blocks))]
        )

    def _some(self, kind: Kind, places: np.ndarray) -> list[Block]:
        parts = [places[start : start + BLOCK] for start in range(0, len(places), BLOCK)]
        return [self._image_block(part) if kind == "images" else self._text_block(part) for part in parts]

    def _image_block(self, places: np.ndarray) -> Block:
        batch = self.inputs.images([self.split.image_ids[place] for place in places])
        with self._inference():
            return places, self.model.encode_images(self._here(batch))

    def _text_block(self, places: np.ndarray) -> Block:
        batch = self.inputs.texts([self.split.texts[place] for place in places])
        with self._inference():
            return places, self.model.encode_texts(self._here(batch))

    def _kept(self, kind: Kind, encode: Callable[[], list[Block]]) -> list[Block]:
        path = self.cache / f"{kind}-{self._key}.safetensors"
        if path.exists():
            return _read_blocks(path, self._device)
        blocks = encode()
        self.cache.mkdir(parents=True, exist_ok=True)
        _write_blocks(path, blocks)
        return blocks

    @cached_property
    def _key(self) -> str:
        """Tells another model, split or precision, and also pictures or regions that were made anew under the same ids."""
        files = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(self.corpus.folder.glob("*.h5"))]
        which = [weights_digest(cast(nn.Module, self.model)), self.checkpoint, self.split.digest, self.precision, files]
        return hashlib.sha256(json.dumps(which).encode()).hexdigest()[:16]

    def _here(self, batch: Batch) -> Batch:
        return {key: value.to(self._device) for key, value in batch.items()}


def is_dual(images: States) -> bool:
    """Whether the model makes one vector of an image, so that two images can be compared."""
    return len(images) == 1 and images[0].ndim == 2


def _write_blocks(path: Path, blocks: Sequence[Block]) -> None:
    tensors = {}
    for number, (places, states) in enumerate(blocks):
        tensors[f"{number}.places"] = torch.from_numpy(places)
        # Copies: safetensors refuses tensors that share their memory
        tensors |= {
            f"{number}.{part}": state.cpu().clone(memory_format=torch.contiguous_format) for part, state in enumerate(states)
        }
    with written_aside(path) as aside:
        save_file(tensors, aside)


def _read_blocks(path: Path, device: torch.device) -> list[Block]:
    try:
        tensors = load_file(path, str(device))
    except (OSError, SafetensorError) as error:
        raise RankingError(f"{path}: cannot be read ({error}); remove it and search again") from None
    count = sum(name.endswith(".places") for name in tensors)
    parts = len(tensors) // max(count, 1) - 1
    return [
        (tensors[f"{number}.places"].cpu().numpy(), tuple(tensors[f"{number}.{part}"] for part in range(parts)))
        for number in range(count)
    ]


def read_query(corpus: Searched, text: str, image: str) -> Query:
    """A query from what a user gave: a text, or an image's id or file. Anything else is a ValueError."""
    if not image or image in corpus.images:
        return Query(text=text, image=image)
    if not Path(image).is_file():
        raise ValueError(f"--image {image}: neither the id of an image in {corpus.folder} nor a file")
    return Query(text=text, picture=read_picture(Path(image)))


def read_picture(path: Path) -> Image.Image:
    """A picture file; ValueError if it cannot be decoded."""
    try:
        return decode(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path.name}: no picture that can be read ({error})") from None


def search(first: Searcher, query: Query, top: int, second: Searcher | None = None, shortlist: int = 50) -> dict[Kind, list[Hit]]:
    """The `top` best texts and images of the split, as far as the model finds such, best first; of equal ones the earlier.

    An image does not find itself. A second model scores the `shortlist` best again, and they stand before all others; if it is
    no dual encoder, images found by a picture stay as they are.
    """
    asked, again = first.asked(query), second.asked(query) if second else ()
    kinds = first.finds(query, asked)
    if not kinds:
        lacks = "images" if query.text else "texts, and only a dual encoder finds images by a picture"
        raise RankingError(f"{first.corpus.folder}: split {first.split.name} has no {lacks}")
    found: dict[Kind, list[Hit]] = {}
    for kind in kinds:
        scores = first.scores(query, asked, kind)
        others = np.array([place for place, key in enumerate(first.ids(kind)) if kind == "texts" or key != query.image], int)
        order, seconds = others[_best(scores[others])], {}
        if second is not None and kind in second.finds(query, again):
            listed = order[:shortlist]
            new = np.zeros_like(scores)
            new[listed] = second.scores(query, again, kind, listed)
            seconds = {int(place): float(new[place]) for place in listed}
            order = others[_best(reordered(scores[None, others], new[None, others], np.isin(others, listed)[None])[0])]
        places = map(int, order[:top])
        found[kind] = [_hit(first.split, kind, place, float(scores[place]), seconds.get(place)) for place in places]
    return found


def _best(scores: np.ndarray) -> np.ndarray:
    return np.argsort(-scores, kind="stable")


def _hit(split: Split, kind: Kind, place: int, score: float, second: float | None) -> Hit:
    mine = split.pairs[split.pairs[:, 0 if kind == "images" else 1] == place]
    if kind == "images":
        text = split.texts[mine[0, 1]] if len(mine) else split.classes[place]
        return Hit(split.image_ids[place], text, split.image_ids[place], score, second)
    return Hit(split.text_ids[place], split.texts[place], split.image_ids[mine[0, 0]] if len(mine) else "", score, second)
