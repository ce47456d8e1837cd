"""The matrix file of lxmert_clip_tiir (https://github.com/gzhihongwei/lxmert_clip_tiir), read and written.

An .npz with `logits` and `labels`, two matrices of one shape, and the 0-based rank of the best relevant item of each image,
`i2t_ranks`, and of each caption, `t2i_ranks`. It names neither axes nor ids: the rows are captions in the files that the
repository ships and images in those that its code writes.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np

from ranking.matrix import Axis, Kind, Provenance, Ranking, RankingError, Relevance, written_aside
from ranking.metrics import positions, positions_by_policy

KEYS = ("logits", "labels", "i2t_ranks", "t2i_ranks")


def read_npz(
    path: Path,
    provenance: Provenance,
    rows: Kind | None = None,
    image_ids: Sequence[str] | None = None,
    text_ids: Sequence[str] | None = None,
) -> Ranking:
    """The ranking in such a file, in memory; its queries are the rows.

    What the rows are follows from the lengths of the ranks; only a square matrix needs `rows`. Without ids images and
    captions are named by position: "0", "1", ... A damaged file, a score that is not finite, a label other than 0 and 1, a
    row or column without a relevant item, and ranks that the scores do not bear out (ties in either order) raise RankingError.
    """
    try:
        return _ranking(_arrays(path), provenance, rows, {"image": image_ids, "text": text_ids})
    except RankingError as error:
        raise RankingError(f"{path}: {error}") from None
    except (
        OSError,
        ValueError,
        EOFError,
        TypeError,
        AttributeError,
        RuntimeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise RankingError(f"{path}: not a whole .npz matrix file ({error})") from None


def write_npz(path: Path, ranking: Ranking, rows: Kind = "image") -> None:
    """Store a ranking in that layout, whole or not at all; ties count against the model. Ids and provenance are lost."""
    if ranking.rescored is not None:
        raise RankingError(
            f"{path}: a matrix file holds one score a pair, and this ranking was re-ranked; write the first model's"
        )
    matrix = ranking.by(rows)
    labels = np.zeros((len(matrix.queries.ids), len(matrix.items.ids)), bool)
    labels[tuple(matrix.relevant.pairs().T)] = True
    i2t_ranks, t2i_ranks = (positions(matrix.by(kind)).first for kind in get_args(Kind))
    with written_aside(path) as part, part.open("wb") as file:
        np.savez(file, logits=matrix.rows(0, len(labels)), labels=labels, i2t_ranks=i2t_ranks, t2i_ranks=t2i_ranks)


def _ranking(
    arrays: dict[str, np.ndarray], provenance: Provenance, rows: Kind | None, given: dict[Kind, Sequence[str] | None]
) -> Ranking:
    logits, counts = arrays["logits"], {"image": len(arrays["i2t_ranks"]), "text": len(arrays["t2i_ranks"])}
    kind = _row_kind(logits.shape, counts["image"], counts["text"], rows)
    axes = [Axis(side, _ids(side, given[side], counts[side])) for side in get_args(Kind)]
    queries, items = axes if kind == "image" else axes[::-1]
    relevant = Relevance.from_pairs(np.argwhere(arrays["labels"]), len(logits))
    ranking = Ranking(queries, items, relevant, logits, provenance)
    _check_ranks("i2t_ranks", arrays["i2t_ranks"], ranking.by("image"))
    _check_ranks("t2i_ranks", arrays["t2i_ranks"], ranking.by("text"))
    return ranking


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """The four arrays; their shapes and types are checked, not what they say."""
    with np.load(path, allow_pickle=False) as file:
        missing = [key for key in KEYS if key not in file]
        if missing:
            raise RankingError(f"lacks {', '.join(missing)}; a matrix file holds {', '.join(KEYS)}")
        arrays = {key: file[key] for key in KEYS}
    shapes = ", ".join(f"{key} {array.dtype} {array.shape}" for key, array in arrays.items())
    if any(array.dtype.kind not in "biuf" for array in arrays.values()):
        raise RankingError(f"{shapes}: must be numbers")
    dimensions = [array.ndim for array in arrays.values()]
    if dimensions != [2, 2, 1, 1] or arrays["labels"].shape != arrays["logits"].shape:
        raise RankingError(f"{shapes}: logits and labels must be matrices of one shape, ranks one row each")
    labels = arrays["labels"]
    odd = labels[(labels != 0) & (labels != 1)]
    if odd.size:
        raise RankingError(f"{odd.size} labels are neither 0 nor 1, the first: {odd[0]}")
    return arrays


def _row_kind(shape: tuple[int, ...], images: int, texts: int, rows: Kind | None) -> Kind:
    possible: list[Kind] = []
    if shape == (images, texts):
        possible.append("image")
    if shape == (texts, images):
        possible.append("text")
    if not possible:
        raise RankingError(f"logits {shape} fit neither way to the ranks of {images} images and {texts} captions")
    if rows is None and len(possible) == 2:
        raise RankingError(f"logits {shape} are square, so rows may be images or captions; say which: rows='image' or 'text'")
    if rows is not None and rows not in possible:
        raise RankingError(f"rows cannot be {rows}: logits {shape} for the ranks of {images} images and {texts} captions")
    return rows or possible[0]


def _ids(kind: Kind, ids: Sequence[str] | None, count: int) -> tuple[str, ...]:
    if ids is None:
        return tuple(str(number) for number in range(count))
    if len(ids) != count:
        raise RankingError(f"holds ranks of {count} {kind}s and {len(ids)} {kind} ids were given")
    return tuple(ids)


def _check_ranks(key: str, ranks: np.ndarray, queries: Ranking) -> None:
    """Stored ranks must lie between the optimistic and the pessimistic rank that the scores give."""
    at = positions_by_policy(queries)
    best, worst = at["optimistic"].first, at["pessimistic"].first
    bad = np.flatnonzero(~((best <= ranks) & (ranks <= worst)))
    if len(bad):
        query = bad[0]
        raise RankingError(
            f"{len(bad)} of {len(ranks)} {key} are not what logits and labels give, the first: {queries.queries.kind} "
            f"{queries.queries.ids[query]!r} has {ranks[query]}, the scores say {best[query]} to {worst[query]} (counted from 0); "
            "the file mixes two models, or its axes are not what they seem"
        )
