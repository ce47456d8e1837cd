"""Say why the models that made one or more rankings of a split fail: a report that opens from disk.

python jobs/error_report.py --rankings runs/clip_zero_shot/default/ranking-test.h5 runs/lxmert_predict/default/ranking-test.h5
sbatch slurm/error_report.sh --rankings runs/clip_zero_shot/default/ranking-test.h5
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from launch.entry import main
from launch.resources import Resources


@dataclass(frozen=True)
class Config:
    rankings: tuple[Path, ...] = ()
    """Ranking files of one split, one for each model."""
    corpus: str = ""
    """Corpus folder that was ranked; by default the one that the first ranking names, looked for here and above the file."""
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
    by: Literal["rank", "margin", "ap"] = "rank"
    """What the lists of hard and easy queries go by: the truth's rank, its score less the best wrong item's, or average precision."""
    hard_below: float | None = None
    """With --by margin or ap: a query is hard below this; by default 0 and 0.1."""
    easy_from: float | None = None
    """With --by margin or ap: a query is easy from this on; by default 0 and 1."""
    images: tuple[str, ...] = ()
    """Ids of image queries to show whatever their rank."""
    captions: tuple[str, ...] = ()
    """Ids of caption queries to show whatever their rank."""
    judgements: tuple[Path, ...] = ()
    """Files of further right pairs, as people judged them: JSON or CSV (error_analysis/truths.py)."""
    original_layouts: bool = False
    """Also write the JSON files of lxmert_clip_tiir: <name>_<split>.json, comparison.json."""

    def __post_init__(self) -> None:
        missing = [path for path in self.judgements if not path.is_file()]
        if missing:
            raise ValueError(f"--judgements {missing[0]}: no such file")
        if self.original_layouts and self.by != "rank":
            raise ValueError(f"--by {self.by}: the original's lists go by rank; leave out --original-layouts")
        if self.by == "rank" and (self.hard_below, self.easy_from) != (None, None):
            raise ValueError("--hard-below and --easy-from: are for --by margin or ap; ranks have --hard and --easy")


RESOURCES = Resources(gpus_per_node=0, minutes=60)


def run(config: Config, run_dir: Path) -> None:
    """Write report/, metrics.json and, on request, the original's files into the run folder, and the page over all reports beside it."""
    from error_analysis.analysis import Options
    from error_analysis.layouts import original_files
    from error_analysis.study import study
    from error_analysis.summary import sentences
    from ranking.evaluate import write_result

    options = Options(**{field.name: getattr(config, field.name) for field in fields(Options)})
    analysis, index = study(config.rankings, run_dir, options, config.corpus, config.names, config.judgements)
    files = {"metrics.json": {model.name: model.metrics for model in analysis.models}}
    if config.original_layouts:
        files |= original_files(analysis)
    for name, content in files.items():
        write_result(run_dir / name, content)
    print(*sentences(analysis), sep="\n")
    print(index)


if __name__ == "__main__":
    main(Config, RESOURCES, run)
