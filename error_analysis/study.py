"""From ranking files to a report: opens the files, finds their corpus, names the models."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from corpora.corpus import Corpus
from error_analysis.analysis import Analysis, Options, analyse
from error_analysis.report import write_report
from error_analysis.reports import REPORTS, write_reports
from ranking.matrix import Ranking, read_ranking


def study(
    paths: Sequence[Path],
    run_dir: Path,
    options: Options,
    corpus: str = "",
    names: Sequence[str] = (),
    judged: Sequence[Path] = (),
) -> tuple[Analysis, Path]:
    """Analyse ranking files and write <run_dir>/report, and the page over all reports beside it; returns the analysis and index.html."""
    rankings = open_rankings(paths, names)
    opened = Corpus(corpus or ranked_corpus(next(iter(rankings.values())), paths[0]))
    analysis = analyse(rankings, opened, options)
    shelf = run_dir.parent
    index = write_report(analysis, opened, run_dir / "report", judged, os.path.relpath(shelf / REPORTS, run_dir / "report"))
    write_reports(shelf)
    return analysis, index


def open_rankings(paths: Sequence[Path], names: Sequence[str] = ()) -> dict[str, Ranking]:
    """The rankings by their name in the report: the model's, or the run folder's where two models share one."""
    if not paths:
        raise ValueError("--rankings: name at least one ranking file, as a rank job writes it (ranking-<split>.h5)")
    rankings = [read_ranking(path) for path in paths]
    names = names or _names(rankings, paths)
    if len(names) != len(rankings) or len(set(names)) != len(names) or not all(names):
        raise ValueError(
            f"the models would be called {', '.join(names)}: give {len(rankings)} different names, one for each ranking, with --names"
        )
    return dict(zip(names, rankings, strict=True))


def _names(rankings: Sequence[Ranking], paths: Sequence[Path]) -> list[str]:
    models = [ranking.provenance.model for ranking in rankings]
    return models if len(set(models)) == len(models) and all(models) else [path.absolute().parent.name for path in paths]


def ranked_corpus(ranking: Ranking, path: Path) -> Path:
    """The corpus folder that a ranking file names, seen from here or from a folder above the file."""
    folder = ranking.provenance.corpus
    for place in (Path(), *path.absolute().parents):
        if folder and (place / folder / "corpus.json").exists():
            return place / folder
    raise ValueError(f"{path}: was ranked on corpus {folder!r}, which is not here; give its folder with --corpus")
