"""What a camera and a perfect detector would see of a made-up scene: pixels, and region features that carry the truth."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw

from corpora.scenes import COLOURS, RADII, RING_HOLE, SHAPES, TEXTURES, TONES, Kind, Scene, Thing

OVERSAMPLING = 4
BACKGROUNDS = {"light": 225.0, "dark": 60.0}
REGIONS = 8
"""Regions of an image: its things, then as many of the cells as fit."""
CELLS = np.array([(0, 0, 0.5, 0.5), (0.5, 0, 1, 0.5), (0, 0.5, 0.5, 1), (0.5, 0.5, 1, 1), (0, 0, 1, 1), (0.25, 0.25, 0.75, 0.75)])
WORDS = (*SHAPES, *COLOURS, *RADII, *TONES, *TEXTURES)
"""What a region's truth is coded in: one number a word."""
FEATURE_WIDTH = 64
FEATURE_NOISE = 0.1
MIXING = np.random.default_rng(64).normal(0, FEATURE_WIDTH**-0.5, (len(WORDS), FEATURE_WIDTH))
"""From words to features; the same in every corpus, so a model trained on one can read another."""


def render(scene: Scene, size: int) -> Image.Image:
    """The scene as an RGB picture, size x size, edges smoothed."""
    rng = np.random.default_rng(scene.grain)
    pixels = np.repeat(_background(scene, size, rng)[:, :, None], 3, axis=2)
    for thing in scene.things:
        share = _mask(thing, size)[:, :, None]
        pixels += share * (np.array(COLOURS[thing.kind.colour]) * thing.shade - pixels)
    pixels += rng.normal(0, 2, pixels.shape)
    return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))


def _background(scene: Scene, size: int, rng: np.random.Generator) -> np.ndarray:
    """(size, size) grey, softly textured."""
    grey = np.full((size, size), BACKGROUNDS[scene.tone])
    if scene.texture == "striped":
        angle, waves = rng.uniform(0, np.pi), rng.uniform(6, 9)
        y, x = np.mgrid[:size, :size] / size
        grey += 12 * np.sin(2 * np.pi * waves * (x * np.cos(angle) + y * np.sin(angle)))
    if scene.texture == "speckled":
        grain = -(-size // 4)
        grey += 12 * rng.standard_normal((grain, grain)).repeat(4, axis=0).repeat(4, axis=1)[:size, :size]
    return grey


def _mask(thing: Thing, size: int) -> np.ndarray:
    """(size, size): the share of each pixel that the thing covers."""
    scale = size * OVERSAMPLING
    mask = Image.new("L", (scale, scale))
    draw = ImageDraw.Draw(mask)
    draw.polygon((thing.outline * scale).ravel().tolist(), fill=255)
    if thing.kind.shape == "ring":
        centre = np.array((thing.x, thing.y))
        draw.polygon(((centre + RING_HOLE * (thing.outline - centre)) * scale).ravel().tolist(), fill=0)
    return np.asarray(mask.reduce(OVERSAMPLING)) / 255


def encoded(picture: Image.Image) -> bytes:
    """The picture as a JPEG file without colour subsampling, which would smear small shapes."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=90, subsampling=0)
    return file.getvalue()


def regions(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Features (R, D) float32 and boxes (R, 4) float32: the things in order, then fixed cells.

    A feature is a linear code of the region's words plus noise: shape, colour and size of a thing; of a cell the average of
    the things in it, by area, and of the background. So a linear layer can read the truth.
    """
    things = np.stack([thing.box for thing in scene.things])
    cells = CELLS[: REGIONS - len(things)]
    overlap = (np.minimum(cells[:, None, 2:], things[None, :, 2:]) - np.maximum(cells[:, None, :2], things[None, :, :2])).clip(0)
    shares = overlap.prod(axis=2) / (cells[:, 2:] - cells[:, :2]).prod(axis=1, keepdims=True)
    thing_words = np.stack([_words(thing.kind) for thing in scene.things])
    background = np.isin(WORDS, (scene.tone, scene.texture)).astype(float)
    cell_words = shares @ thing_words + (1 - shares.sum(axis=1, keepdims=True)) * background
    features = np.concatenate([thing_words, cell_words]) @ MIXING
    features += np.random.default_rng([scene.grain, 1]).normal(0, FEATURE_NOISE, features.shape)
    return features.astype(np.float32), np.concatenate([things, cells]).astype(np.float32)


def _words(kind: Kind) -> np.ndarray:
    return np.isin(WORDS, (kind.shape, kind.colour, kind.size)).astype(float)
