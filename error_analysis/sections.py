"""The topics of the report, in the order it tells them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from corpora.corpus import Corpus
from error_analysis import (
    agreement,
    calibration,
    causes,
    confidence,
    head_to_head,
    headroom,
    hubness,
    judgements,
    near_duplicates,
    ranks,
    slices,
    words,
)
from error_analysis.analysis import Analysis
from error_analysis.contents import Contents
from error_analysis.near_duplicates import Duplicates
from error_analysis.section import Section
from error_analysis.truths import judgements_of


def sections(analysis: Analysis, corpus: Corpus, judged: Sequence[Path] = ()) -> Iterator[Section]:
    """Every section of an analysis of this corpus; `judged` are files of further relevant pairs (error_analysis.truths)."""
    split = analysis.split
    contents, duplicates = Contents.of(split, corpus), Duplicates.of(split, corpus)
    accepted = judgements_of(split, judged)
    yield ranks.section(analysis)
    yield causes.section(analysis, contents, duplicates, accepted)
    yield slices.section(analysis, contents, duplicates.sizes)
    yield words.section(analysis, contents)
    yield confidence.section(analysis)
    yield head_to_head.section(analysis)
    yield near_duplicates.section(analysis, duplicates)
    yield judgements.section(analysis, accepted)
    yield hubness.section(analysis)
    yield headroom.section(analysis)
    yield agreement.section(analysis)
    yield calibration.section(analysis)
    yield ranks.examples(analysis)
    yield ranks.queries(analysis)
