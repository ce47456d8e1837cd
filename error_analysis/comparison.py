"""Queries on which one model does well and another much worse, and whether two rankings may be compared at all."""

from __future__ import annotations

from dataclasses import dataclass

from error_analysis.mining import Retrieval
from ranking.matrix import Ranking, RankingError


@dataclass(frozen=True)
class Shift:
    """A query and the 0-based rank of its truth under the better and the worse model."""

    query: str
    better: float
    worse: float

    @property
    def gap(self) -> float:
        return self.worse - self.better


def compare(better: Retrieval, worse: Retrieval, top: int = 10, gap: int = 10) -> tuple[Shift, ...]:
    """Queries whose truth `better` has among the first `top` (rank < top) and `worse` at least `gap` places later; the widest gap first.

    Queries are matched by id. Retrievals of different splits or directions raise RankingError.
    """
    if better.direction != worse.direction or better.ties != worse.ties:
        raise RankingError(f"{better.direction} with {better.ties} ties cannot be compared with {worse.direction}, {worse.ties}")
    check_same_split(better.ranking, worse.ranking)
    other = dict(zip(worse.ranking.queries.ids, worse.ranks.tolist(), strict=True))
    pairs = zip(better.ranking.queries.ids, better.ranks.tolist(), strict=True)
    shifts = [Shift(query, rank, other[query]) for query, rank in pairs if rank <= top - 1 and other[query] - rank >= gap]
    return tuple(sorted(shifts, key=lambda shift: -shift.gap))


def check_same_split(a: Ranking, b: Ranking) -> None:
    """Raise RankingError unless both rank the same images against the same texts with the same relevance, in any order."""
    if a.provenance.split != b.provenance.split:
        raise RankingError(
            f"rankings of different splits: {a.provenance.split!r} and {b.provenance.split!r}; rank the same split"
        )
    if a.provenance.digest and b.provenance.digest and a.provenance.digest != b.provenance.digest:
        raise RankingError(
            f"both rank split {a.provenance.split!r}, but of different corpora or parts of one: {_told(a)} and {_told(b)}; rank the same"
        )
    a, b = a.by("image"), b.by("image")
    for mine, theirs in ((a.queries, b.queries), (a.items, b.items)):
        only = set(mine.ids).symmetric_difference(theirs.ids)
        if only:
            raise RankingError(
                f"the rankings differ in {len(only)} {mine.kind} ids, the first: {min(only)!r}; rank the same split"
            )
    differ = related(a).symmetric_difference(related(b))
    if differ:
        image, text = min(differ)
        raise RankingError(f"the rankings differ on {len(differ)} relevant pairs, the first: image {image!r} and text {text!r}")


def _told(ranking: Ranking) -> str:
    images, texts = (len(ranking.by(kind).queries.ids) for kind in ("image", "text"))
    return f"{ranking.provenance.corpus} ({images:,} images, {texts:,} texts)"


def related(ranking: Ranking) -> set[tuple[str, str]]:
    """The relevant pairs as (image id, text id)."""
    ranking = ranking.by("image")
    return {(ranking.queries.ids[image], ranking.items.ids[text]) for image, text in ranking.relevant.pairs().tolist()}
