"""Say where one or more rankings of a split go wrong: a report of hard and easy queries, and of model against model.

python jobs/error_report.py --rankings runs/clip_zero_shot/default/ranking-test.h5 runs/lxmert_predict/default/ranking-test.h5
sbatch slurm/error_report.sh --rankings runs/clip_zero_shot/default/ranking-test.h5
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from launch.entry import main
from launch.resources import Resources

if TYPE_CHECKING:
    from ranking.matrix import Ranking


@dataclass(frozen=True)
class Config:
    rankings: tuple[Path, ...] = ()
    """Ranking files of one split, one for each model."""
    corpus: str = ""
    """Corpus folder that was ranked; by default the one that the first ranking names."""
    names: tuple[str, ...] = ()
    """Names of the models in the report; by default the model's, or the run folder's where two models share one."""
    hard: int = 10
    """A query is hard if no truth is among its first so many."""
    easy: int = 1
    """A query is easy if a truth is among its first so many."""
    top: int = 10
    """Model against model: one has a truth among its first so many,"""
    gap: int = 10
    """and the other at least so many places later."""
    sample: int = 40
    """Examples of a list; 0 for all."""
    seed: int = 0
    """The same seed draws the same examples."""
    ties: Literal["pessimistic", "optimistic", "expected"] = "pessimistic"
    """A wrong item with the truth's score stands above it, below it, or halfway."""
    images: tuple[str, ...] = ()
    """Ids of image queries to show whatever their rank."""
    captions: tuple[str, ...] = ()
    """Ids of caption queries to show whatever their rank."""
    original_layouts: bool = False
    """Also write the JSON files of lxmert_clip_tiir: <name>_<split>.json, comparison.json."""


RESOURCES = Resources(gpus_per_node=0, minutes=60)


def run(config: Config, run_dir: Path) -> None:
    """Write report/, metrics.json and, on request, the original's files into the run folder."""
    from corpora.corpus import Corpus
    from error_analysis.analysis import Options, analyse
    from error_analysis.layouts import original_files
    from error_analysis.report import write_report
    from error_analysis.summary import sentences
    from ranking.evaluate import write_result

    options = Options(**{field.name: getattr(config, field.name) for field in fields(Options)})
    rankings = _open(config)
    corpus = Corpus(config.corpus or _ranked_corpus(next(iter(rankings.values())), config.rankings[0]))
    analysis = analyse(rankings, corpus, options)
    files = {"metrics.json": {model.name: model.metrics for model in analysis.models}}
    if config.original_layouts:
        files |= original_files(analysis)
    for name, content in files.items():
        write_result(run_dir / name, content)
    index = write_report(analysis, corpus.images, run_dir / "report")
    print(*sentences(analysis), sep="\n")
    print(index)


def _open(config: Config) -> dict[str, Ranking]:
    """The rankings by their name in the report."""
    from ranking.matrix import read_ranking

    if not config.rankings:
        raise ValueError("--rankings: name at least one ranking file, as a rank job writes it (ranking-<split>.h5)")
    rankings = [read_ranking(path) for path in config.rankings]
    names = config.names or _names(rankings, config.rankings)
    if len(names) != len(rankings) or len(set(names)) != len(names) or not all(names):
        raise ValueError(f"--names {' '.join(names)}: give {len(rankings)} different names, one for each ranking")
    return dict(zip(names, rankings, strict=True))


def _names(rankings: list[Ranking], paths: tuple[Path, ...]) -> tuple[str, ...]:
    models = [ranking.provenance.model for ranking in rankings]
    return tuple(models if len(set(models)) == len(models) and all(models) else (path.absolute().parent.name for path in paths))


def _ranked_corpus(ranking: Ranking, path: Path) -> str:
    """The corpus folder that a ranking file names."""
    folder = ranking.provenance.corpus
    if not (Path(folder) / "corpus.json").exists():
        raise ValueError(f"{path}: was ranked on corpus {folder!r}, which is not here; give its folder with --corpus")
    return folder


if __name__ == "__main__":
    main(Config, RESOURCES, run)
