"""The whole error report of COCO-size rankings: seconds and peak memory of making it, from the ranking files to the folder.

    python benchmarks/error_report.py
    python benchmarks/error_report.py --captions coco_test_25000.txt --image-ids coco_test_image_ids.json

5,000 synthetic photos of 640 x 480 pixels, five captions each, and two made-up models: a vector for each image,
one near it for each caption, nearer for the first model. Captions are put together from 120 words, or come from a file, one a line, five
for each image in a row. With the ids that eccv_caption knows (a JSON list of images) the report also has CxC and ECCV Caption.

Counted is everything in the report's own process and those it starts, imports too. Exits with 1 at 90 s or 2 GB; meant for 2 cores.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from PIL import Image

from corpora.corpus import Caption, Corpus, CorpusWriter, ImageRecord
from corpora.images import write_images
from ranking.matrix import Axis, Provenance, Ranking, Relevance, write_ranking

MOST_SECONDS, MOST_BYTES = 90, 2e9
WIDTH, NOISE = 48, {"nearer": 0.23, "farther": 0.26}
A_ROW = 5
"""Captions of an image."""
PHOTO = 640, 480
WORDS = {
    "who": "man woman boy girl child dog cat horse bird cow sheep elephant zebra giraffe bear player skier surfer baby group",
    "how": "red blue green yellow black white brown small large old young tall wooden empty crowded sunny snowy busy quiet striped",
    "does": "rides holds watches eats carries throws catches pulls pushes follows passes crosses leaves joins finds shows uses likes",
    "what": "bicycle bench table pizza ball car bus train boat kite board umbrella phone book cake plate chair bed sofa lamp",
    "where": "left_of right_of above below behind under near beside inside outside in_front_of on_top_of next_to away_from across",
    "place": "street beach park kitchen room field river lake road station market mountain forest garden yard bridge house hill",
    "many": "one two three four several many some no",
}


@dataclass(frozen=True)
class Config:
    images: int = 5_000
    captions: Path | None = None
    """Real captions, one a line."""
    image_ids: Path | None = None
    """COCO's ids of the images; those of the captions are then taken from eccv_caption."""
    keep: Path | None = None
    """Where to leave the corpus, the rankings and the report; by default they are removed."""


def run(config: Config) -> bool:
    """Print both figures; whether both limits hold."""
    with tempfile.TemporaryDirectory() as name:
        folder = config.keep or Path(name)
        corpus = make_corpus(folder / "corpus", config)
        paths = [write_model(folder, corpus, model) for model in NOISE]
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            seconds, cpu, peak = pool.submit(report, paths, folder / "reports" / "benchmark").result()
        files = [path for path in (folder / "reports" / "benchmark").rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files)
    print(f"{config.images:,} images, {A_ROW * config.images:,} captions, {len(paths)} models")
    print(f"{seconds:.1f} s ({cpu:.1f} CPU seconds), peak memory {peak / 1e9:.2f} GB; {len(files):,} files, {size / 1e6:.0f} MB")
    return seconds < MOST_SECONDS and peak < MOST_BYTES


def report(paths: list[Path], run_dir: Path) -> tuple[float, float, int]:
    """Make the report; seconds, CPU seconds and peak bytes, of this process and those it started."""
    start = time.perf_counter()
    from error_analysis.analysis import Options
    from error_analysis.study import study

    study(paths, run_dir, Options())
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(one.ru_utime + one.ru_stime for one in used)
    return time.perf_counter() - start, cpu, max(one.ru_maxrss for one in used) * 1024


def make_corpus(folder: Path, config: Config) -> Corpus:
    """A corpus of one split, test."""
    generator = np.random.default_rng(0)
    texts = (
        config.captions.read_text(encoding="utf-8").splitlines()
        if config.captions
        else list(_sentences(generator, config.images))
    )
    image_ids, text_ids = _ids(config)
    with CorpusWriter(folder) as writer:
        write_images(writer.part / "images.h5", zip(image_ids, _photos(generator, len(image_ids)), strict=True))
        writer.images += [ImageRecord(key, "test", *PHOTO) for key in image_ids]
        writer.captions += [Caption(key, texts[place], (image_ids[place // A_ROW],)) for place, key in enumerate(text_ids)]
    return Corpus(folder)


def _ids(config: Config) -> tuple[list[str], list[str]]:
    """Ids of the images and of the captions."""
    if config.image_ids is None:
        return [f"image{n}" for n in range(config.images)], [f"caption{n}" for n in range(A_ROW * config.images)]
    from eccv_caption import Metrics

    images = json.loads(config.image_ids.read_text())[: config.images]
    return [str(key) for key in images], [str(key) for key in Metrics().coco_ids[: A_ROW * len(images)]]


def _sentences(generator: np.random.Generator, images: int) -> Iterator[str]:
    """Five sentences an image about the same things, common words far more often than others."""
    words = {part: [word.replace("_", " ") for word in line.split()] for part, line in WORDS.items()}

    def drawn(part: str) -> str:
        return words[part][min(int(generator.zipf(1.3)), len(words[part])) - 1]

    for _ in range(images):
        who, what, place = drawn("who"), drawn("what"), drawn("place")
        for _ in range(A_ROW):
            yield (
                f"{drawn('many')} {drawn('how')} {who} {drawn('does')} a {drawn('how')} {what} "
                f"{drawn('where')} the {drawn('how')} {place}"
            ).capitalize()


def _photos(generator: np.random.Generator, count: int) -> Iterator[bytes]:
    """Soft patches of colour, different in each, under the same noise."""
    noise = generator.normal(0, 12, (*reversed(PHOTO), 1))
    for _ in range(count):
        patches = Image.fromarray(generator.integers(0, 256, (6, 8, 3), np.uint8)).resize(PHOTO, Image.Resampling.BICUBIC)
        file = io.BytesIO()
        Image.fromarray((np.asarray(patches) + noise).clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=85)
        yield file.getvalue()


def write_model(folder: Path, corpus: Corpus, model: str) -> Path:
    """A ranking file of a made-up model; images and captions have the same vectors in both, but for the noise."""
    split = corpus.split("test")
    generator = np.random.default_rng(1)
    seen = generator.standard_normal((len(split.image_ids), WIDTH), np.float32)
    told = np.empty((len(split.text_ids), WIDTH), np.float32)
    told[split.pairs[:, 1]] = seen[split.pairs[:, 0]]
    told += NOISE[model] * WIDTH**0.5 * np.random.default_rng([2, len(model)]).standard_normal(told.shape, np.float32)
    ranking = Ranking(
        Axis("image", split.image_ids),
        Axis("text", split.text_ids),
        Relevance.from_pairs(split.pairs, len(split.image_ids)),
        seen @ told.T,
        Provenance(model, "none", str(corpus.folder), "test", split.digest, "made up"),
    )
    path = folder / f"{model}.h5"
    write_ranking(path, ranking)
    return path


if __name__ == "__main__":
    sys.exit(not run(tyro.cli(Config, description=__doc__)))
