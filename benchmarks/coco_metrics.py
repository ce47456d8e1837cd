"""COCO's whole set of figures: 5k, the mean of five folds, CxC and ECCV Caption, from a ranking file; with --reference beside eccv_caption.

    python benchmarks/coco_metrics.py
    python benchmarks/coco_metrics.py --reference

Made-up scores over the real ids that eccv_caption carries: a vector for each image, and one near it for each of its captions. Both
sides run in processes of their own and are timed from the ranking file to the figures, the start of Python and imports not counted.
The reference sorts every row and hands eccv_caption lists of ids (Metrics.compute_all_metrics: minutes and gigabytes).

Needs the package eccv_caption. Exits with 1 above 10 s or 2 GB, or if a figure differs from eccv_caption's by more than 1e-6.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from corpora.corpus import Split
from error_analysis.judgements import fold_figures, judged
from error_analysis.mining import DIRECTIONS, QUERY_KIND, Retrieval
from error_analysis.truths import coco_judgements
from ranking.matrix import Axis, Provenance, Ranking, Relevance, read_ranking, write_ranking

MOST_SECONDS, MOST_BYTES, TOLERANCE = 10, 2e9, 1e-6
WIDTH, NOISE = 48, 0.24
FOLDS = 5
RECALLS = ("R@1", "R@5", "R@10")
KNOWN = {"coco_1k": "folds", "coco_5k": "original", "cxc": "CxC", "eccv": "ECCV"}
"""Names of eccv_caption and ours."""

Figures = dict[str, float]


@dataclass(frozen=True)
class Config:
    images: int = 5_000
    """The first so many images of the test split, with their captions."""
    reference: bool = False
    """Also run eccv_caption and compare."""
    seed: int = 0


def run(config: Config) -> bool:
    """Print times, memory and the largest difference; whether all limits hold."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ranking.h5"
        write_ranking(path, made_up(config.images, config.seed))
        ours, seconds, peak = _alone(our_figures, path)
        print(f"misrank        {seconds:7.1f} s  {peak / 1e9:5.2f} GB  {len(ours)} figures")
        holds = seconds <= MOST_SECONDS and peak <= MOST_BYTES
        if config.reference:
            theirs, seconds, peak = _alone(their_figures, path)
            print(f"eccv_caption   {seconds:7.1f} s  {peak / 1e9:5.2f} GB  {len(theirs)} figures")
            worst = max(theirs, key=lambda name: abs(ours[name] - theirs[name]))
            print(
                f"largest difference {abs(ours[worst] - theirs[worst]):.1e} ({worst}: {ours[worst]:.6f} and {theirs[worst]:.6f})"
            )
            holds &= abs(ours[worst] - theirs[worst]) <= TOLERANCE
    return holds


def made_up(images: int, seed: int) -> Ranking:
    """Image queries against texts under COCO's ids, in the order of Karpathy's file."""
    from eccv_caption import Metrics

    metrics = Metrics()
    texts = metrics.coco_ids[: images * len(metrics.coco_ids) // 5_000].tolist()
    image_of = [metrics.coco_gts["t2i"][text][0] for text in texts]
    ids = list(dict.fromkeys(image_of))
    row = {image: index for index, image in enumerate(ids)}
    pairs = np.array([(row[image], text) for text, image in enumerate(image_of)])
    generator = np.random.default_rng(seed)
    seen = generator.standard_normal((len(ids), WIDTH), np.float32)
    told = seen[pairs[:, 0]] + NOISE * WIDTH**0.5 * generator.standard_normal((len(texts), WIDTH), np.float32)
    return Ranking(
        Axis("image", tuple(map(str, ids))),
        Axis("text", tuple(map(str, texts))),
        Relevance.from_pairs(pairs, len(ids)),
        seen @ told.T,
        Provenance("made up", "none", "", "test", "", "made up"),
    )


def our_figures(path: Path) -> Figures:
    """Shares by eccv_caption's names."""
    ranking = read_ranking(path)
    split = Split(
        "test",
        ranking.queries.ids,
        ("",) * len(ranking.queries.ids),
        ranking.items.ids,
        ("",) * len(ranking.items.ids),
        ranking.relevant.pairs(),
    )
    judgements = coco_judgements(split)
    folds = fold_figures(Retrieval.of(ranking, "i2t"), len(ranking.queries.ids) // FOLDS)
    figures: Figures = {}
    for way in DIRECTIONS:
        retrieval = Retrieval.of(ranking, way)
        found = judged("", retrieval, np.zeros(len(retrieval.ranks), np.int64), judgements).figures | {"folds": folds[way]}
        figures |= {
            f"{theirs}_{name.replace('R@', 'r')}_{way}": found[ours][name] for theirs, ours in KNOWN.items() for name in RECALLS
        }
        figures[f"eccv_map_at_r_{way}"] = found["ECCV"]["MAP@R"]
        figures[f"eccv_rprecision_{way}"] = found["ECCV"]["R-precision"]
    return figures


def their_figures(path: Path) -> Figures:
    """eccv_caption's figures; of part of the images where only these were ranked."""
    from eccv_caption import Metrics

    metrics = Metrics()
    ranking = read_ranking(path)
    sorted_items = {way: _sorted_items(ranking.by(QUERY_KIND[way])) for way in DIRECTIONS}
    everything = {way: {item for items in metrics.coco_gts[way].values() for item in items} for way in DIRECTIONS}
    for truth in (metrics.coco_gts, metrics.cxc_gts, metrics.eccv_gts):
        for way in DIRECTIONS:
            ranked = set(next(iter(sorted_items[way].values())))
            truth[way] = _restricted(truth[way], set(sorted_items[way]), ranked, everything[way] - ranked)
    metrics.coco_ids = metrics.coco_ids[: len(ranking.items.ids)]
    names = [f"{name}_recalls" for name in KNOWN if name != "eccv"]
    found = metrics.compute_all_metrics(sorted_items["i2t"], sorted_items["t2i"], names, verbose=False)
    found |= metrics.eccv_metrics(sorted_items, "all")
    for k in (5, 10):
        found[f"eccv_r{k}"] = metrics.eccv_recalls(sorted_items, "all", K=k)
    return {f"{name}_{way}": float(by_way[way]) for name, by_way in found.items() for way in DIRECTIONS}


def _sorted_items(ranking: Ranking) -> dict[int, list[int]]:
    """Query id -> ids of all items, best first; the lists share their numbers, or they would need 12 GB."""
    queries, items = [int(key) for key in ranking.queries.ids], [int(key) for key in ranking.items.ids]
    return {
        queries[start + number]: [items[item] for item in np.argsort(-row, kind="stable").tolist()]
        for start, block in ranking.blocks()
        for number, row in enumerate(block)
    }


def _restricted(truth: dict[int, list[int]], queries: set[int], ranked: set[int], unranked: set[int]) -> dict[int, list[int]]:
    """Without queries and items that were not ranked, and queries that have no other right item."""
    found = {query: [item for item in items if item not in unranked] for query, items in truth.items() if query in queries}
    return {query: items for query, items in found.items() if ranked.intersection(items)}


def _alone(work: Callable[[Path], Figures], path: Path) -> tuple[Figures, float, int]:
    """Figures, seconds and peak bytes of a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measured, work, path).result()


def _measured(work: Callable[[Path], Figures], path: Path) -> tuple[Figures, float, int]:
    start = time.perf_counter()
    figures = work(path)
    return figures, time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    sys.exit(not run(tyro.cli(Config, description=__doc__)))
