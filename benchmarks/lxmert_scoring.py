"""LXMERT scoring: one full forward a pair against ranking.engine, in CPU seconds of one thread, fp32.

    python benchmarks/lxmert_scoring.py
    python benchmarks/lxmert_scoring.py --captions captions.txt

12 images of 36 random region vectors x 24 captions through an LXMERT of full size with random weights; speed and rounding do
not depend on what the weights have learned. Counted on both sides: everything from captions and stored regions to the
matrix of scores, which is tokenizing, reading, encoding and scoring. Not counted: imports, making the model, one warm-up pair.

full: transformers' LxmertModel and the head for every pair, as lxmert_clip_tiir did: pairs image by image in the order of the
captions, 24 at a time, each batch padded to its longest caption.

engine: ranking.engine as the jobs use it: every item encoded once, and only the cross layers run for every pair.

Exits with 1 if a score differs by more than 1e-5.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from transformers import LxmertConfig

from corpora.corpus import Split
from corpora.regions import RegionStore, write_regions
from models.lxmert import Lxmert, LxmertInputs
from models.tokenizer import learn_tokenizer
from ranking.engine import Engine
from ranking.matrix import Provenance

IMAGES, TEXTS, REGIONS, FEATURES = 12, 24, 36, 2048
PAIRS_AT_ONCE = 24
TOLERANCE = 1e-5

CAPTIONS = """\
Two dogs sleep on a rug.
A boat tied to a wooden pier.
A child in boots jumps in a puddle.
An old clock hangs over the door.
A woman waters plants on her balcony.
Three bowls of fruit stand on a table.
A man repairs a bicycle in his garage.
A yellow tram passes an empty market square.
Several sheep are resting in the shade of a tree.
A girl with a red umbrella waits for the bus.
A cook is slicing onions on a large wooden board.
Two men carry a long ladder across a busy street.
A grey cat looks out of the window at the birds.
A plate of pancakes with berries and a cup of black coffee.
A row of parked motorcycles in front of a small brick hotel.
A boy is kicking a ball against the wall of a house.
A white horse and its foal are grazing near a low stone fence.
A group of friends is having a picnic on the grass by the lake.
A train with blue doors is leaving the station while people wave from the platform.
A desk with two screens, a keyboard, a lamp and a half eaten sandwich.
A surfer in a black suit is paddling out towards the waves.
The kitchen has white cupboards and a stove.
A bus is driving down a wet road at night.
A man in a green jacket is taking a picture of a giraffe behind a fence.
""".splitlines()


@dataclass(frozen=True)
class Config:
    captions: Path | None = None
    """Text file, one caption a line; 24 of its lines are taken at even distances. By default 24 plain sentences."""


def run(config: Config) -> bool:
    """Measure both ways, print the table, and say whether the scores agree."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    captions = _captions(config.captions)
    model = Lxmert(LxmertConfig(head="binary")).eval()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "regions-random.h5"
        ids = tuple(f"image {number}" for number in range(IMAGES))
        write_regions(path, ((image_id, *_random_regions(number)) for number, image_id in enumerate(ids)), IMAGES)
        inputs = LxmertInputs(learn_tokenizer(captions), RegionStore(path), 512)
        pairs = np.stack(np.divmod(np.arange(IMAGES * TEXTS), TEXTS), 1)
        split = Split("test", ids, ("",) * IMAGES, tuple(map(str, range(TEXTS))), tuple(captions), pairs)
        engine = Engine(model, inputs, split)
        full_scores(model, inputs, ids[:1], captions[:1])
        full, full_seconds = timed(lambda: full_scores(model, inputs, ids, captions))
        ours, ours_seconds = timed(lambda: engine.rank_in_memory(Provenance("", "", "", "", "", "")).scores)
    lengths = inputs.texts(captions)["attention_mask"].sum(1).tolist()
    difference = float(np.abs(full - ours).max())
    print(
        f"{IMAGES} images x {TEXTS} captions of {min(lengths)} to {max(lengths)} tokens (mean {np.mean(lengths):.1f}), fp32, one thread"
    )
    print(f"full forward a pair      {full_seconds:6.1f} CPU s")
    print(f"engine                   {ours_seconds:6.1f} CPU s")
    print(f"ratio                    {full_seconds / ours_seconds:6.2f}")
    print(f"largest difference       {difference:.1e}, scores from {full.min():.3f} to {full.max():.3f}")
    return difference <= TOLERANCE


def full_scores(model: Lxmert, inputs: LxmertInputs, image_ids: tuple[str, ...], captions: list[str]) -> np.ndarray:
    """(images, captions) scores, every layer for every pair."""
    pairs = [(image_id, caption) for image_id in image_ids for caption in captions]
    scores = []
    with torch.inference_mode():
        for start in range(0, len(pairs), PAIRS_AT_ONCE):
            images, texts = zip(*pairs[start : start + PAIRS_AT_ONCE], strict=True)
            regions, tokens = inputs.images(images), inputs.texts(texts)
            out = model.lxmert(visual_feats=regions["features"], visual_pos=regions["boxes"], **tokens)
            scores.append(model.cls(out.pooled_output).squeeze(1))
    return torch.cat(scores).numpy().reshape(len(image_ids), len(captions))


def timed(call: Callable[[], np.ndarray]) -> tuple[np.ndarray, float]:
    """What the call returns, and its CPU seconds."""
    start = time.process_time()
    result = call()
    return result, time.process_time() - start


def _captions(path: Path | None) -> list[str]:
    if path is None:
        return CAPTIONS
    lines = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    if len(lines) < TEXTS:
        raise ValueError(f"{path}: {len(lines)} captions; at least {TEXTS} are needed, one a line")
    return lines[:: len(lines) // TEXTS][:TEXTS]


def _random_regions(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features like a ReLU's, half of them zero, and boxes with x1 < x2 and y1 < y2."""
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(REGIONS, FEATURES)).clip(0)
    corners = np.sort(generator.random((REGIONS, 2, 2)), axis=1)
    return features, corners.reshape(REGIONS, 4)


if __name__ == "__main__":
    try:
        agree = run(tyro.cli(Config, description=__doc__))
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    sys.exit(0 if agree else f"error: a score differs by more than {TOLERANCE}")
