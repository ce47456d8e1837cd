"""Why queries fail: each gets one cause, and R@1 is worked out as it would be without that cause.

A query fails where a wrong item stands first. The rules (error_analysis.rules) are tried in their order on the query and that item; the
first that holds is the cause. The idea is TIDE's (Bolya et al. 2020), for detectors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from corpora.corpus import Split
from error_analysis.analysis import Analysis
from error_analysis.contents import Contents
from error_analysis.mining import DIRECTIONS, Direction
from error_analysis.near_duplicates import Duplicates
from error_analysis.neighbours import KEPT
from error_analysis.rules import RULES, Evidence
from error_analysis.section import Column, Plot, Section, Series, Table
from error_analysis.summary import NOUN, WAY
from error_analysis.truths import Judgement

NAME, TITLE = "causes", "Why queries fail"
NO_FAULTS = ("near-duplicate", "ground-truth gap", "under-specified caption")
"""Causes for which what stands first is as good as the truth."""


@dataclass(frozen=True)
class Diagnosis:
    """Why a query fails."""

    query: int
    item: int
    """The first wrong item."""
    cause: str
    words: str
    alone: bool
    """Whether the cause's rule holds for every item above the truth, so that without it the truth would stand first."""


def diagnose(evidence: Evidence) -> tuple[Diagnosis, ...]:
    """Every failed query, in order."""
    wrong = evidence.neighbours.best_wrong_item
    failed = np.flatnonzero((evidence.retrieval.ranks > 0) & (wrong >= 0))
    return tuple(_diagnosis(evidence, query, int(wrong[query])) for query in failed.tolist())


def _diagnosis(evidence: Evidence, query: int, item: int) -> Diagnosis:
    found = ((cause, words) for cause, (rule, _) in RULES.items() if (words := rule(evidence, query, item)))
    cause, words = next(found)  # the last rule holds always
    rule, _ = RULES[cause]
    above, complete = _above(evidence, query)
    return Diagnosis(
        query, item, cause, words, complete and all(other == item or rule(evidence, query, other) for other in above)
    )


def _above(evidence: Evidence, query: int) -> tuple[list[int], bool]:
    """The wrong items that stand above the best truth or tie with it, and whether those are all: only the first ones are kept."""
    items, scores = evidence.neighbours.items[query], evidence.neighbours.scores[query]
    over = scores >= evidence.neighbours.truth[query]
    truths = evidence.truths(query)
    complete = len(items) == len(evidence.retrieval.ranking.items.ids) or not over.all() or bool(np.isin(items, truths).any())
    return [item for item in items[over].tolist() if item not in truths], complete


def section(analysis: Analysis, contents: Contents, duplicates: Duplicates, judgements: Sequence[Judgement] = ()) -> Section:
    """The causes of every model, what each costs, and every failed query with its cause. `judgements` are those of other judges."""
    if not analysis.split.texts:
        return Section(NAME, TITLE, ("The split has no captions, by which causes are told.",))
    accepted = {direction: _accepted(analysis.split, judgements, direction) for direction in DIRECTIONS}
    found = [
        (
            model.name,
            direction,
            Evidence(model.retrievals[direction], model.neighbours[direction], contents, duplicates, accepted[direction]),
        )
        for model in analysis.models
        for direction in DIRECTIONS
    ]
    results = [_Result(name, direction, evidence, diagnose(evidence)) for name, direction, evidence in found]
    return Section(
        NAME,
        TITLE,
        tuple(sentence for result in results for sentence in _sentences(result)),
        (
            _summary(results),
            _rules(),
            *(table for number, result in enumerate(results) if (table := _queries(result, number // 2 + 1)).rows),
        ),
        tuple(_plot([result for result in results if result.direction == direction], direction) for direction in DIRECTIONS),
        " ".join(_lead(model.name, [result for result in results if result.model == model.name]) for model in analysis.models),
    )


@dataclass(frozen=True)
class _Result:
    model: str
    direction: Direction
    evidence: Evidence
    diagnoses: tuple[Diagnosis, ...]

    @property
    def queries(self) -> int:
        return len(self.evidence.retrieval.ranks)

    def count(self, cause: str, alone: bool = False) -> int:
        return sum(one.cause == cause and (one.alone or not alone) for one in self.diagnoses)


def _accepted(split: Split, judgements: Sequence[Judgement], direction: Direction) -> frozenset[tuple[int, int]]:
    """Pairs (image, caption) that any judge holds right, asked in this direction."""
    image = {key: place for place, key in enumerate(split.image_ids)}
    text = {key: place for place, key in enumerate(split.text_ids)}
    pairs = (
        (query, item) if direction == "i2t" else (item, query)
        for judgement in judgements
        for query, items in judgement.right[direction].items()
        for item in items
    )
    return frozenset((image[a], text[b]) for a, b in pairs if a in image and b in text)


def _lead(model: str, results: Sequence[_Result]) -> str:
    """Both directions of a model together."""
    failed = sum(len(result.diagnoses) for result in results)
    if not failed:
        return f"{model} fails nowhere."
    counts = sorted(((sum(result.count(cause) for result in results), cause) for cause in RULES), key=lambda pair: -pair[0])
    most = ", ".join(f"{cause} {count / failed:.0%}" for count, cause in counts[:3] if count)
    return f"{model} fails for {failed:,} of {sum(result.queries for result in results):,} queries, most often for: {most}."


def _sentences(result: _Result) -> Iterator[str]:
    failed, noun = len(result.diagnoses), NOUN[result.direction]
    who = f"{result.model}, {WAY[result.direction].lower()}"
    if not failed:
        yield f"{who}: no {noun} fails."
        return
    counts = sorted(((result.count(cause), cause) for cause in RULES), key=lambda pair: -pair[0])
    most = ", ".join(f"{cause} {count / failed:.0%}" for count, cause in counts[:3] if count)
    yield f"{who}: {failed:,} of {result.queries:,} {noun}s fail, {failed / result.queries:.1%}. Most often for: {most}."
    gaps = sum(result.count(cause) for cause in NO_FAULTS)
    if gaps:
        yield (
            f"{who}: for {gaps:,} of them ({gaps / failed:.1%}) what stands first is a near-duplicate of a right item or fits as well, so "
            f"at most {100 * gaps / result.queries:.1f} points of R@1 may be the corpus's fault rather than the model's."
        )


def _summary(results: Sequence[_Result]) -> Table:
    columns = (
        Column("Model"),
        Column("Direction"),
        Column("Cause"),
        Column("Queries", "count"),
        Column("Of the failed", "share"),
        Column("R@1 would rise by at least", "share"),
        Column("at most", "share"),
    )
    rows = tuple(
        (
            result.model,
            WAY[result.direction],
            cause,
            result.count(cause),
            result.count(cause) / max(1, len(result.diagnoses)),
            result.count(cause, alone=True) / result.queries,
            result.count(cause) / result.queries,
        )
        for result in results
        for cause in RULES
    )
    note = (
        "At most: every query of the cause has a truth first. At least: only those over whose truth no item stands but such as the cause "
        f"holds for, looked for among the first {KEPT}. Synonyms are not known as such, so the gaps of the truth are more than counted here."
    )
    return Table("causes", "What each cause costs", columns, rows, note)


def _rules() -> Table:
    rows = tuple((number, cause, said) for number, (cause, (_, said)) in enumerate(RULES.items(), 1))
    note = "Tried in this order, on the query and its first wrong item: a caption and an image, which speaks through its own captions."
    return Table("cause-rules", "The rules", (Column("Order", "count"), Column("Cause"), Column("Rule")), rows, note)


def _queries(result: _Result, number: int) -> Table:
    ranking = result.evidence.retrieval.ranking
    ranks = result.evidence.retrieval.ranks
    rows = tuple(
        (ranking.queries.ids[one.query], float(ranks[one.query]), ranking.items.ids[one.item], one.cause, one.words)
        for one in result.diagnoses
    )
    columns = Column("Query", "query"), Column("Rank", "rank"), Column("First wrong item", "item"), Column("Cause"), Column("Why")
    title = f"{WAY[result.direction]}: why each query of {result.model} fails"
    return Table(f"causes-{result.direction}-{number}", title, columns, rows, direction=result.direction)


def _plot(results: Sequence[_Result], direction: Direction) -> Plot:
    series = tuple(
        Series(result.model, tuple(RULES), tuple(100 * result.count(cause) / result.queries for cause in RULES))
        for result in results
    )
    title = f"{WAY[direction]}: points of R@1 by cause of failure"
    return Plot(f"causes-{direction}", title, "bar", "Cause", "Share of all queries (%)", series)
