"""Figures of one ranking in both directions, under a named protocol and tie policy.

Protocols: `all` ranks the whole split together ("5k" on COCO); `fixed` only the images listed in a file (COCO's "1k":
test_img_keys_1k.tsv); `folds` contiguous folds of 1,000 images in the order of the ranking, each ranked alone ("five-fold 1k").
Images are always ranked with all their texts. A result is a plain dict, ready for JSON:

    schema, model, checkpoint, corpus, split, digest, leakage    of the result and of the ranking
    protocol    {"name", "images": ranked together}, and {"folds": how many} under folds
    ties        the tie policy of every figure that does not name another
    unit        what the numbers are: every share is in percent
    figures     under folds the mean over folds; counts too are then means
        i2t     image queries, text items; t2i the reverse
            queries, items, R@1, R@5, R@10, MedR, MeanR, MRR, mAP, R-precision, MAP@R, NDCG@10
            NDCG@25 <method>    with graded relevance, where it is given
        recall_fraction@1, @5, @10    what TERN's re-implementation printed as R@k: five captions, one of them first, is 20
            tied    {"queries": how many have an irrelevant item that ties with the best relevant one,
                     "pessimistic": {R@1, R@5, R@10}, "optimistic": {the same}}
        rsum, rsum_published    the sum of the six R@k, in percent (0 to 600) and as shares (0 to 6)
    std, folds  only under folds: standard deviation over the folds (divided by their number), and the figures of each
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from ranking import metrics
from ranking.matrix import Ranking, RankingError, written_aside
from ranking.metrics import Positions, Ties
from ranking.relevance import GradedRelevance

SCHEMA = 1
CUTOFFS = (1, 5, 10)
WAYS = ("i2t", "t2i")
UNIT = {
    "shares": "percent",
    "MedR": "rank, the first is 1",
    "MeanR": "rank, the first is 1",
    "rsum": "sum of six percentages, 0 to 600",
    "rsum_published": "sum of six shares, 0 to 6",
}

Protocol = Literal["all", "fixed", "folds"]


def evaluate(
    ranking: Ranking,
    protocol: Protocol = "all",
    ties: Ties = "pessimistic",
    image_ids: Path | None = None,
    fold_size: int = 1000,
    relevance: Sequence[GradedRelevance] = (),
) -> dict[str, Any]:
    """The result described above. `image_ids` is the list of protocol fixed, `fold_size` counts the images of one fold.

    RankingError if a query lacks a relevant item, a score is not finite, or the protocol does not fit the ranking.
    """
    metrics.check_policy(ties)
    made = ranking.provenance
    results = [_figures(part, ties, relevance) for part in _parts(ranking.by("image"), protocol, image_ids, fold_size)]
    figures = _over(results, np.mean) if protocol == "folds" else results[0]
    images = int(results[0]["i2t"]["queries"])
    head = {
        "schema": SCHEMA,
        **{key: getattr(made, key) for key in ("model", "checkpoint", "corpus", "split", "digest", "leakage")},
        "protocol": {"name": protocol, "images": images} | ({"folds": len(results)} if protocol == "folds" else {}),
        "ties": ties,
        "unit": UNIT,
        "figures": figures,
    }
    return head | ({"std": _over(results, np.std), "folds": results} if protocol == "folds" else {})


def of_images(images: Ranking, image_ids: Iterable[str]) -> Ranking:
    """A ranking with image queries restricted to these images and all their texts."""
    wanted = set(image_ids)
    rows = np.array([key in wanted for key in images.queries.ids])
    pairs = images.relevant.pairs()
    texts = np.unique(pairs[rows[pairs[:, 0]], 1])
    return images.select(wanted, [images.items.ids[text] for text in texts])


def read_ids(path: Path) -> list[str]:
    """A list of ids, one a line; an empty list or an id that comes twice raises RankingError."""
    try:
        ids = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise RankingError(f"{path}: no list of ids, one a line ({error})") from None
    twice = [key for key, count in Counter(ids).items() if count > 1]
    if twice or not ids:
        raise RankingError(
            f"{path}: {f'id {twice[0]!r} comes twice' if twice else 'empty'}; it must list each id once, one a line"
        )
    return ids


def write_result(path: Path, result: dict[str, Any]) -> None:
    """Store a result as JSON, whole or not at all."""
    with written_aside(path) as part:
        part.write_text(json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def as_table(result: dict[str, Any]) -> str:
    """A result as plain text: one line a figure, one column a direction; behind +- the standard deviation over folds."""
    figures, std = result["figures"], result.get("std", {})
    protocol, ties = result["protocol"], result["ties"]
    folds = (
        f"mean of {protocol['folds']} folds of {protocol['images']} images"
        if "folds" in protocol
        else f"{protocol['images']} images"
    )
    lines = [
        f"{result['model']} on {result['corpus']}, split {result['split']}: {folds}, ties {ties}, shares in percent",
        f"{'':<20}{'image to text':>18}{'text to image':>18}",
    ]
    for name in (name for name in figures["i2t"] if name != "tied"):
        cells = (_cell(figures[way][name], std.get(way, {}).get(name)) for way in WAYS)
        lines.append(f"{name:<20}" + "".join(f"{cell:>18}" for cell in cells))
    for name in ("rsum", "rsum_published"):
        lines.append(f"{name:<20}{_cell(figures[name], std.get(name)):>18}")
    if result["leakage"]:
        lines.append(f"leakage: {result['leakage']}")
    return "\n".join([*lines, *(_tie_line(figures[way], way) for way in WAYS if figures[way]["tied"]["queries"])])


def _cell(value: float, std: float | None) -> str:
    text = str(value) if isinstance(value, int) else f"{value:.2f}"
    return f"{text} +- {std:.2f}" if std is not None else text


def _tie_line(figures: dict[str, Any], way: str) -> str:
    tied = figures["tied"]
    ranges = ", ".join(f"R@{k} {tied['pessimistic'][f'R@{k}']:.2f} to {tied['optimistic'][f'R@{k}']:.2f}" for k in CUTOFFS)
    return f"{way}: in {tied['queries']:g} of {figures['queries']:g} queries the best relevant item is tied with an irrelevant one: {ranges}"


def _parts(images: Ranking, protocol: Protocol, image_ids: Path | None, fold_size: int) -> Iterator[Ranking]:
    """The rankings that a protocol evaluates, one at a time, so that one fold is in memory."""
    if protocol not in get_args(Protocol):
        raise RankingError(f"protocol {protocol!r}: must be one of {', '.join(get_args(Protocol))}")
    if (image_ids is None) == (protocol == "fixed"):
        raise RankingError(f"protocol {protocol} {'needs a' if image_ids is None else 'takes no'} list of image ids")
    if image_ids is not None:
        yield _fixed(images, image_ids)
    elif protocol == "folds":
        yield from _folds(images, fold_size)
    else:
        yield images


def _fixed(images: Ranking, path: Path) -> Ranking:
    ids = read_ids(path)
    known = set(images.queries.ids)
    unknown = [key for key in ids if key not in known]
    if unknown:
        raise RankingError(
            f"{path}: {len(unknown)} of its {len(ids)} images are not in the ranking, the first: {unknown[0]!r}; "
            f"the ranking's ids look like {images.queries.ids[0]!r}"
        )
    return of_images(images, ids)


def _folds(images: Ranking, size: int) -> Iterator[Ranking]:
    ids = images.queries.ids
    if size < 1 or len(ids) % size:
        raise RankingError(f"protocol folds: {len(ids)} images do not divide into folds of {size}; choose another fold size")
    for start in range(0, len(ids), size):
        yield of_images(images, ids[start : start + size])


def _figures(images: Ranking, ties: Ties, relevance: Sequence[GradedRelevance]) -> dict[str, Any]:
    ways = {"i2t": images, "t2i": images.by("text")}
    figures: dict[str, Any] = {way: _direction(ranking, ties, relevance) for way, ranking in ways.items()}
    figures["rsum"] = sum(figures[way][f"R@{k}"] for way in WAYS for k in CUTOFFS)
    figures["rsum_published"] = figures["rsum"] / 100
    return figures


def _direction(ranking: Ranking, ties: Ties, relevance: Sequence[GradedRelevance]) -> dict[str, Any]:
    by_policy = metrics.positions_by_policy(ranking)
    at, best, worst = by_policy[ties], by_policy["optimistic"], by_policy["pessimistic"]
    return {
        "queries": len(ranking.queries.ids),
        "items": len(ranking.items.ids),
        **_recalls(at),
        "MedR": metrics.median_rank(at),
        "MeanR": metrics.mean_rank(at),
        "MRR": 100 * metrics.mrr(at),
        "mAP": 100 * metrics.mean_average_precision(at),
        "R-precision": 100 * metrics.r_precision(at),
        "MAP@R": 100 * metrics.map_at_r(at),
        "NDCG@10": 100 * metrics.ndcg(at, 10),
        **{f"NDCG@25 {graded.method}": 100 * metrics.graded_ndcg(ranking, graded.of(ranking), 25, ties) for graded in relevance},
        **{f"recall_fraction@{k}": 100 * metrics.recall_fraction(at, k) for k in CUTOFFS},
        "tied": {
            "queries": int((best.first < worst.first).sum()),
            "pessimistic": _recalls(worst),
            "optimistic": _recalls(best),
        },
    }


def _recalls(at: Positions) -> dict[str, float]:
    return {f"R@{k}": 100 * metrics.recall_any(at, k) for k in CUTOFFS}


def _over(results: Sequence[Any], how: Callable[[Sequence[float]], Any]) -> Any:
    """Mean or deviation of every number of equally built nested dicts."""
    if isinstance(results[0], dict):
        return {key: _over([result[key] for result in results], how) for key in results[0]}
    return float(how(results))
