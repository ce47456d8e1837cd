"""Captions of made-up scenes: each is a logical statement first and words second, so its truth can be checked against any scene."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from corpora.scenes import RELATIONS, Kind, Scene, Thing, related

NUMBERS = ("no", "one", "two", "three", "four")
RELATION_WORDS = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
SIZE_WORDS = {"small": ("small", "little"), "large": ("large", "big")}
OPENINGS = ("", "", "there is ", "a picture of ", "we see ")


@dataclass(frozen=True)
class Phrase:
    """What is said of one thing; an empty part is left unsaid."""

    shape: str = ""
    colour: str = ""
    size: str = ""

    def fits(self, kind: Kind) -> bool:
        said = ((self.shape, kind.shape), (self.colour, kind.colour), (self.size, kind.size))
        return all(part in ("", truth) for part, truth in said)


@dataclass(frozen=True)
class Statement:
    """What a caption says: distinct things fit the phrases and stand in the relations; counts are exact; "" leaves the background unsaid."""

    things: tuple[Phrase, ...]
    relations: tuple[tuple[int, str, int], ...] = ()
    counts: tuple[tuple[Phrase, int], ...] = ()
    tone: str = ""
    texture: str = ""

    def holds(self, scene: Scene) -> bool:
        """Whether the statement is true of the scene."""
        if self.tone not in ("", scene.tone) or self.texture not in ("", scene.texture):
            return False
        if any(sum(phrase.fits(thing.kind) for thing in scene.things) != count for phrase, count in self.counts):
            return False
        return any(self._fits(chosen) for chosen in permutations(scene.things, len(self.things)))

    def _fits(self, chosen: Sequence[Thing]) -> bool:
        return all(phrase.fits(thing.kind) for phrase, thing in zip(self.things, chosen, strict=True)) and all(
            related(chosen[i], relation, chosen[j]) for i, relation, j in self.relations
        )


Caption = tuple[Statement, str]


def captions(scene: Scene, rng: np.random.Generator, given: Sequence[Caption] = ()) -> list[Caption]:
    """Three to seven captions that are true of the scene, all different, the given ones first."""
    count = rng.integers(3, 8)
    found = {text: statement for statement, text in given}
    while len(found) < count:
        wording = WORDINGS[rng.integers(len(WORDINGS))]
        statement, text = wording(scene, rng)
        found.setdefault(text, statement)
    return [(statement, text) for text, statement in found.items()]


def vague(kinds: Sequence[Kind]) -> Caption:
    """A caption that names things by colour and shape and says no more: it fits every scene that has them."""
    phrases = tuple(Phrase(kind.shape, kind.colour) for kind in kinds)
    return Statement(phrases), _joined([f"{_article(p.colour)} {p.colour} {p.shape}" for p in phrases])


def _listing(scene: Scene, rng: np.random.Generator) -> Caption:
    """All things, in any order."""
    named = [_named(scene.things[i], rng) for i in rng.permutation(len(scene.things))]
    return Statement(tuple(phrase for phrase, _ in named)), _pick(OPENINGS, rng) + _joined([text for _, text in named])


def _relation(scene: Scene, rng: np.random.Generator) -> Caption:
    """Two things and how they stand to each other; a third where it stands in a relation to the first."""
    order = rng.permutation(len(scene.things))
    first, others = scene.things[order[0]], [scene.things[i] for i in order[1 : 2 + rng.integers(2)]]
    phrase, text = _named(first, rng)
    phrases, relations, clauses = [phrase], [], []
    for other in others:
        true = [relation for relation in RELATIONS if related(first, relation, other)]
        relation = _pick(true, rng)
        phrase, words = _named(other, rng)
        relations.append((0, relation, len(phrases)))
        phrases.append(phrase)
        clauses.append(f"{_pick(RELATION_WORDS[relation], rng)} {words}")
    verb = _pick((" ", " is ", " stands "), rng)
    return Statement(tuple(phrases), tuple(relations)), text + verb + " and ".join(clauses)


def _count(scene: Scene, rng: np.random.Generator) -> Caption:
    """How many things there are, or how many of one shape or colour, and one of them in full."""
    thing = scene.things[rng.integers(len(scene.things))]
    about = (Phrase(), Phrase(shape=thing.kind.shape), Phrase(colour=thing.kind.colour))[rng.integers(3)]
    number = sum(about.fits(other.kind) for other in scene.things)
    phrase, text = _named(thing, rng)
    noun = about.shape or f"{about.colour} shape".strip()
    if number == 1:
        return Statement((phrase,), counts=((about, 1),)), f"{text} is the only {noun}"
    plural = "crosses" if noun == "cross" else noun + "s"
    return Statement((phrase,), counts=((about, number),)), f"{NUMBERS[number]} {plural} and one of them is {text}"


def _setting(scene: Scene, rng: np.random.Generator) -> Caption:
    """Two things and the background."""
    named = [_named(scene.things[i], rng) for i in rng.permutation(len(scene.things))[:2]]
    tone, texture = ((scene.tone, scene.texture), (scene.tone, ""), ("", scene.texture))[rng.integers(3)]
    background = " ".join(word for word in (tone, texture) if word)
    text = f"{_joined([text for _, text in named])} on a {background} background"
    return Statement(tuple(phrase for phrase, _ in named), tone=tone, texture=texture), text


WORDINGS: tuple[Callable[[Scene, np.random.Generator], Caption], ...] = (
    *(_listing, _relation) * 2,  # what identifies a scene best comes most often
    _count,
    _setting,
)


def _named(thing: Thing, rng: np.random.Generator) -> tuple[Phrase, str]:
    """A thing by colour and shape, in two of three cases by size too."""
    kind = thing.kind
    size = kind.size if rng.random() < 2 / 3 else ""
    words = [_pick(SIZE_WORDS[size], rng)] if size else []
    words += [kind.colour, kind.shape]
    return Phrase(kind.shape, kind.colour, size), " ".join([_article(words[0]), *words])


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _joined(parts: Sequence[str]) -> str:
    return ", ".join(parts[:-1]) + (" and " if len(parts) > 1 else "") + parts[-1]


def _pick(words: Sequence[str], rng: np.random.Generator) -> str:
    return words[int(rng.integers(len(words)))]
