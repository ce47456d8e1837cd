"""The made-up world: scenes of two to four coloured shapes, and what relates them. Lengths are shares of the picture's side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

COLOURS = {
    "red": (214, 40, 40),
    "orange": (245, 130, 30),
    "yellow": (240, 215, 40),
    "green": (40, 150, 60),
    "blue": (40, 80, 210),
    "purple": (130, 50, 165),
    "pink": (250, 140, 190),
    "brown": (125, 75, 35),
}
RADII = {"small": 0.09, "large": 0.16}
"""Half the side of the square that holds a shape, however it is turned."""
GAP = 0.04
"""Least distance between two shapes' squares."""
CLEAR = 0.15
"""Two shapes stand left of, right of, above or below each other where their centres differ by at least this."""
RELATIONS = ("left of", "right of", "above", "below")
TONES = ("light", "dark")
TEXTURES = ("plain", "striped", "speckled")


def _star(points: int, inner: float) -> np.ndarray:
    angles = np.arange(2 * points) * np.pi / points - np.pi / 2
    radii = np.where(np.arange(2 * points) % 2, inner, 1.0)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii[:, None]


def _cross(arm: float, half_width: float) -> np.ndarray:
    a, w = arm, half_width
    return np.array([(w, -a), (w, -w), (a, -w), (a, w), (w, w), (w, a), (-w, a), (-w, w), (-a, w), (-a, -w), (-w, -w), (-w, -a)])


OUTLINES = {
    "circle": _star(24, 1.0),
    "square": 0.84 * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]),
    "triangle": _star(3, 0.5),
    "star": _star(5, 0.45),
    "cross": _cross(0.95, 0.3),
    "ring": _star(24, 1.0),
}
"""Corners of each shape within radius 1, (V, 2), y downwards."""
RING_HOLE = 0.55
SHAPES = tuple(OUTLINES)


@dataclass(frozen=True)
class Kind:
    """What a thing looks like."""

    shape: str
    colour: str
    size: str


@dataclass(frozen=True)
class Thing:
    """One shape in a scene: centre, turn in radians, and shade (a factor on its colour)."""

    kind: Kind
    x: float
    y: float
    turn: float
    shade: float

    @property
    def outline(self) -> np.ndarray:
        """Corners (V, 2): x, y."""
        cos, sin = np.cos(self.turn), np.sin(self.turn)
        corners: np.ndarray = OUTLINES[self.kind.shape] @ np.array([(cos, sin), (-sin, cos)])
        return corners * RADII[self.kind.size] + (self.x, self.y)

    @property
    def box(self) -> np.ndarray:
        """x1 y1 x2 y2, tight."""
        outline = self.outline
        return np.concatenate([outline.min(axis=0), outline.max(axis=0)])


@dataclass(frozen=True)
class Scene:
    """Things on a background; `grain` seeds the texture and the noise of its pixels."""

    things: tuple[Thing, ...]
    tone: str
    texture: str
    grain: int


def related(a: Thing, relation: str, b: Thing) -> bool:
    """Whether `a` stands in the relation to `b`: "left of" means that a's centre lies further left by at least CLEAR."""
    dx, dy = b.x - a.x, b.y - a.y
    return {"left of": dx, "right of": -dx, "above": dy, "below": -dy}[relation] >= CLEAR


def sample_scene(rng: np.random.Generator, given: Sequence[Kind] = ()) -> Scene:
    """A scene of two to four things, among them the given kinds."""
    kinds = [*given, *(_sample_kind(rng) for _ in range(rng.integers(2, 5) - len(given)))]
    things = tuple(
        Thing(kind, *centre, turn=rng.uniform(-0.15, 0.15), shade=rng.uniform(0.92, 1.08))
        for kind, centre in zip(kinds, _place([RADII[kind.size] for kind in kinds], rng), strict=True)
    )
    return Scene(things, TONES[rng.integers(2)], TEXTURES[rng.integers(3)], int(rng.integers(2**31)))


def _sample_kind(rng: np.random.Generator) -> Kind:
    return Kind(SHAPES[rng.integers(len(SHAPES))], tuple(COLOURS)[rng.integers(len(COLOURS))], tuple(RADII)[rng.integers(2)])


def _place(radii: Sequence[float], rng: np.random.Generator) -> list[tuple[float, float]]:
    """Centres such that squares of these radii keep GAP apart and stay inside; starts anew when it has painted itself into a corner."""
    while True:
        centres: list[tuple[float, float]] = []
        for radius in radii:
            for x, y in rng.uniform(radius + GAP / 2, 1 - radius - GAP / 2, (20, 2)).tolist():
                placed = zip(centres, radii, strict=False)
                if all(max(abs(x - u), abs(y - v)) >= radius + other + GAP for (u, v), other in placed):
                    centres.append((x, y))
                    break
        if len(centres) == len(radii):
            return centres


def jittered(scene: Scene, rng: np.random.Generator) -> Scene:
    """A near-duplicate: every thing moved by less than half of GAP and turned a little, other noise."""
    step = 0.45 * GAP
    things = []
    for thing in scene.things:
        dx, dy, turn = rng.uniform((-step, -step, -0.05), (step, step, 0.05))
        things.append(replace(thing, x=thing.x + dx, y=thing.y + dy, turn=thing.turn + turn))
    return replace(scene, things=tuple(things), grain=int(rng.integers(2**31)))


def swappable(scene: Scene) -> tuple[int, int] | None:
    """The first two things that differ in shape and colour."""
    kinds = [thing.kind for thing in scene.things]
    pairs = ((i, j) for j in range(len(kinds)) for i in range(j))
    return next(((i, j) for i, j in pairs if kinds[i].shape != kinds[j].shape and kinds[i].colour != kinds[j].colour), None)


def with_colours_swapped(scene: Scene, pair: tuple[int, int]) -> Scene:
    """The same scene but for the colours of two things, which are exchanged."""
    things = list(scene.things)
    for one, other in (pair, pair[::-1]):
        kind = replace(scene.things[one].kind, colour=scene.things[other].kind.colour)
        things[one] = replace(scene.things[one], kind=kind)
    return replace(scene, things=tuple(things))
