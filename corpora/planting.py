"""Made-up images with their captions, drawn in pairs so that known difficulties can be planted: look-alikes, shared captions, swapped colours."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
from itertools import product
from typing import Literal

import numpy as np

from corpora.corpus import CorpusError
from corpora.scene_captions import Caption, Phrase, Statement, captions, vague
from corpora.scenes import Kind, Scene, jittered, sample_scene, swappable, with_colours_swapped

Role = Literal["plain", "near_duplicates", "shared_captions", "swapped_attributes"]


@dataclass(frozen=True)
class Shares:
    """Share of the images, in [0, 1], that belong to a planted pair of each sort."""

    near_duplicates: float = 0.04
    """The same scene, its things moved by a pixel or two, other noise."""
    shared_captions: float = 0.04
    """Two scenes with two things in common, and a caption of the first that says no more than that."""
    swapped_attributes: float = 0.04
    """The same scene but for two things that exchange their colours; both have a caption that tells it."""

    def __post_init__(self) -> None:
        if not (min(astuple(self)) >= 0 and sum(astuple(self)) <= 1):
            raise CorpusError(f"planted shares {asdict(self)}: each must be at least 0 and their sum at most 1")


@dataclass(frozen=True)
class SceneImage:
    """One made-up image and its true captions."""

    id: str
    split: str
    scene: Scene
    captions: tuple[Caption, ...]
    role: Role
    twin_of: str = ""
    """Id of the other image of a planted pair, where this is its second."""

    def caption_id(self, number: int) -> str:
        """Id of the image's caption, counted from 0."""
        return f"{self.id}-{number}"


def scene_images(split: str, count: int, seed: int, planted: Shares) -> list[SceneImage]:
    """The first `count` images of a split. Images 2j and 2j + 1 come from a generator of their own, whatever the count."""
    pairs = (_pair(split, j, seed, planted) for j in range(-(-count // 2)))
    return [image for pair in pairs for image in pair][:count]


def _pair(split: str, j: int, seed: int, planted: Shares) -> tuple[SceneImage, SceneImage]:
    rng = np.random.default_rng([seed, zlib.crc32(split.encode()), j])
    role = _role(rng.random(), planted)
    scene = sample_scene(rng)
    while (pair := swappable(scene)) is None:  # in every role, else planting would change the mix of scenes
        scene = sample_scene(rng)
    other = _other(scene, pair, role, rng)
    told = {"shared_captions": (scene,), "swapped_attributes": (scene, other)}.get(role, ())
    given = [[vague(_kinds(of, pair))] for of in told] + [[], []]
    ids = f"{split}-{2 * j:06d}", f"{split}-{2 * j + 1:06d}"
    twin_of = "" if role == "plain" else ids[0]
    return (
        SceneImage(ids[0], split, scene, tuple(captions(scene, rng, given[0])), role),
        SceneImage(ids[1], split, other, tuple(captions(other, rng, given[1])), role, twin_of),
    )


def _role(drawn: float, planted: Shares) -> Role:
    """The role that a number drawn from [0, 1) falls to."""
    roles: tuple[Role, ...] = ("near_duplicates", "shared_captions", "swapped_attributes")
    for role, edge in zip(roles, np.cumsum(astuple(planted)), strict=True):
        if drawn < edge:
            return role
    return "plain"


def _other(scene: Scene, pair: tuple[int, int], role: Role, rng: np.random.Generator) -> Scene:
    """The second scene of a pair."""
    if role == "near_duplicates":
        return jittered(scene, rng)
    if role == "swapped_attributes":
        return with_colours_swapped(scene, pair)
    return sample_scene(rng, _kinds(scene, pair) if role == "shared_captions" else ())


def _kinds(scene: Scene, pair: tuple[int, int]) -> list[Kind]:
    return [scene.things[i].kind for i in pair]


def also_fits(images: Sequence[SceneImage]) -> dict[str, list[str]]:
    """Every caption id that is true of an image of its split other than its own, with all those images; exact and complete.

    A statement is checked only against scenes that hold all its phrases: all others make it false.
    """
    having: defaultdict[tuple[str, Phrase], set[int]] = defaultdict(set)
    for i, image in enumerate(images):
        for thing in image.scene.things:
            for parts in product(*(("", word) for word in astuple(thing.kind))):
                having[image.split, Phrase(*parts)].add(i)
    fitting: dict[tuple[str, Statement], list[int]] = {}
    found: dict[str, list[str]] = {}
    for i, image in enumerate(images):
        for number, (statement, _) in enumerate(image.captions):
            key = (image.split, statement)
            if key not in fitting:
                candidates = set.intersection(*(having[image.split, phrase] for phrase in statement.things))
                fitting[key] = [other for other in sorted(candidates) if statement.holds(images[other].scene)]
            if others := [images[other].id for other in fitting[key] if other != i]:
                found[image.caption_id(number)] = others
    return found
