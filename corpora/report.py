"""What is in a corpus folder: counts, sizes, captions, formats, what was left out, and pictures that stand in two splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from corpora.corpus import Corpus, Split

FORMATS: dict[str, Callable[[bytes], bool]] = {
    "JPEG": lambda head: head.startswith(b"\xff\xd8"),
    "PNG": lambda head: head.startswith(b"\x89PNG"),
    "GIF": lambda head: head.startswith(b"GIF8"),
    "WebP": lambda head: head[:4] == b"RIFF" and head[8:12] == b"WEBP",
    "BMP": lambda head: head.startswith(b"BM"),
    "TIFF": lambda head: head[:4] in (b"II*\0", b"MM\0*"),
    "JPEG 2000": lambda head: head[4:8] == b"jP  " or head.startswith(b"\xff\x4f\xff\x51"),
    "AVIF": lambda head: head[4:8] == b"ftyp",
    "PPM": lambda head: head[:1] == b"P",
}
"""How the first bytes of the kinds that corpora.images decodes look."""
EXAMPLES = 5


def describe(corpus: Corpus) -> dict[str, Any]:
    """All of the report as plain values, ready for JSON."""
    splits = [corpus.split(name) for name in corpus.info["splits"]]
    return {
        "folder": str(corpus.folder),
        "splits": {split.name: _of_split(split) for split in splits},
        "images": _of_images(corpus) if any(split.image_ids for split in splits) else {},
        "collections": dict(
            Counter(source.partition("/")[0] or "unknown" for split in splits for source in split.sources).most_common()
        ),
        "regions": _of_regions(corpus),
        "left_out": dict(Counter(row["reason"].partition(" (")[0] for row in corpus.info["left_out"]).most_common()),
        "same": _of_doubles(corpus, splits),
        "made_by": corpus.info["made_by"],
        "made_from": corpus.info["sources"],
    }


def _of_split(split: Split) -> dict[str, Any]:
    captions = np.bincount(split.pairs[:, 0], minlength=len(split.image_ids)) if split.texts else np.zeros(0)
    return {
        "images": len(split.image_ids),
        "captions": len(split.texts),
        "classes": len(set(split.classes) - {""}),
        "captions_an_image": _spread(captions),
        "words_a_caption": _spread([len(text.split()) for text in split.texts]),
        "longest_caption": max(split.texts, key=len, default=""),
        "texts_that_repeat": len(split.texts) - len(set(split.texts)),
    }


def _of_images(corpus: Corpus) -> dict[str, Any]:
    store = corpus.images
    table = pq.read_table(corpus.folder / "images.parquet", columns=["width", "height"])
    sides = np.stack([table["width"].to_numpy(), table["height"].to_numpy()])
    heads = (store.head(row) for row in range(len(store.ids)))
    return {
        "count": len(store.ids),
        "bytes": int(store.sizes.sum()),
        "bytes_an_image": _spread(store.sizes),
        "short_side": _spread(sides.min(axis=0)),
        "long_side": _spread(sides.max(axis=0)),
        "formats": dict(Counter(map(format_of, heads)).most_common()),
    }


def format_of(head: bytes) -> str:
    """The format of a file that begins so."""
    return next((name for name, fits in FORMATS.items() if fits(head)), "unknown")


def _of_regions(corpus: Corpus) -> list[dict[str, Any]]:
    found = []
    for path in sorted(corpus.folder.glob("regions-*.h5")):
        store = corpus.regions(path.stem.removeprefix("regions-"))
        images, regions, numbers = store.file["features"].shape
        found.append({"file": path.name, "images": images, "regions": regions, "numbers": numbers, "bytes": path.stat().st_size})
    return found


def _of_doubles(corpus: Corpus, splits: Sequence[Split]) -> dict[str, Any]:
    """Files (by sha256) and caption texts that stand there more than once: in two splits, and within one."""
    pictures: dict[bytes, list[tuple[str, str]]] = {}
    if any(split.image_ids for split in splits):
        store = corpus.images
        digest_of = dict(zip(store.ids, store.digests(), strict=True))
        for split in splits:
            for image_id in split.image_ids:
                pictures.setdefault(digest_of[image_id], []).append((split.name, image_id))
    doubles = [places for places in pictures.values() if len(places) > 1]
    across = [places for places in doubles if len({split for split, _ in places}) > 1]
    splits_of_text: dict[str, set[str]] = {}
    for split in splits:
        for text in split.texts:
            splits_of_text.setdefault(text, set()).add(split.name)
    return {
        "files_in_two_splits": len(across),
        "examples": [[f"{split}: {image}" for split, image in places] for places in across[:EXAMPLES]],
        "files_twice_in_a_split": len(doubles) - len(across),
        "texts_in_two_splits": sum(len(names) > 1 for names in splits_of_text.values()),
    }


def _spread(values: Sequence[int] | np.ndarray) -> dict[str, float]:
    """Least, median, mean, 95th percentile and greatest; nothing of nothing."""
    if not len(values):
        return {}
    return {
        "least": int(np.min(values)),
        "median": float(np.median(values)),
        "mean": round(float(np.mean(values)), 2),
        "p95": int(np.percentile(values, 95, method="higher")),
        "greatest": int(np.max(values)),
    }


def as_text(report: Mapping[str, Any]) -> str:
    """The report as tables for a terminal, without a last newline."""
    lines = _table(
        ["split", "images", "captions", "classes", "captions an image", "words a caption: median, mean, 95 %, most"],
        [
            [
                name,
                _n(row["images"]),
                _n(row["captions"]),
                _n(row["classes"]),
                _range(row["captions_an_image"]),
                _words(row["words_a_caption"]),
            ]
            for name, row in report["splits"].items()
        ],
    )
    images = report["images"]
    if images:
        formats = ", ".join(f"{name} {_n(count)}" for name, count in images["formats"].items())
        lines += [
            f"images      {images['bytes'] / 1e6:,.1f} MB; {formats}",
            f"short side  {_range(images['short_side'])} pixels, median {images['short_side']['median']:g}; long side up to {images['long_side']['greatest']:g}",
        ]
        lines.append("pictures of " + ", ".join(f"{name} {_n(count)}" for name, count in report["collections"].items()))
    lines += [
        f"{row['file']}: {_n(row['images'])} images x {row['regions']} regions x {row['numbers']} numbers"
        for row in report["regions"]
    ]
    for reason, count in report["left_out"].items():
        lines.append(f"left out    {_n(count)}: {reason}")
    same = report["same"]
    lines.append(
        f"the same    {_n(same['files_in_two_splits'])} files in two splits, {_n(same['files_twice_in_a_split'])} twice in one; "
        f"{_n(same['texts_in_two_splits'])} texts in two splits"
    )
    lines += [f"WARNING     the same file in two splits: {', '.join(places)}" for places in same["examples"]]
    return "\n".join(lines)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    return ["  ".join(_cells(row, widths)).rstrip() for row in [heads, *rows]]


def _cells(row: Iterable[str], widths: Iterable[int]) -> Iterable[str]:
    return (
        text.ljust(width) if column == 0 else text.rjust(width)
        for column, (text, width) in enumerate(zip(row, widths, strict=True))
    )


def _n(count: int) -> str:
    return f"{count:,}"


def _range(spread: Mapping[str, float]) -> str:
    if not spread:
        return "-"
    low, high = spread["least"], spread["greatest"]
    return f"{low:g}" if low == high else f"{low:g}-{high:g}"


def _words(spread: Mapping[str, float]) -> str:
    return f"{spread['median']:g}, {spread['mean']:.1f}, {spread['p95']:g}, {spread['greatest']:g}" if spread else "-"
