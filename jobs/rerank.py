"""Re-rank the best items of a ranking file with a second model: a new ranking file that keeps both scores.

python jobs/rerank.py --corpus data/coco --ranking runs/guided_predict/de/ranking-test.h5 --checkpoint runs/guided_train/siam/checkpoints/best --top 50 --name siam-over-de
sbatch slurm/rerank.sh --corpus data/coco --ranking runs/clip_zero_shot/coco/ranking-test.h5 --checkpoint runs/lxmert_finetune/coco/checkpoints/best --top 100
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from launch.entry import main
from launch.resources import Resources
from ranking.options import RankingOptions
from training.learning import require


@dataclass(frozen=True)
class Config(RankingOptions):
    ranking: Path = Path("runs/guided_predict/default/ranking-test.h5")
    """Ranking file of the first model, of the same split (and images, under protocol fixed)."""
    checkpoint: str = "runs/guided_train/siam/checkpoints/best"
    """Checkpoint of the second model: SIAM, DE, LXMERT, CLIP or the sentence matcher."""
    regions: str = ""
    """Region features by extractor name, for a model that reads them; by default the only ones the corpus has."""
    top: int = 50
    """Items of each query's shortlist; the rest stay behind them in the first model's order."""
    queries: Literal["both", "image", "text"] = "both"
    """Which queries are re-ranked: texts (over images), images (over texts), or both."""
    pair_batch: int = 512
    """Pairs scored at once; lower it if a cross-encoder runs out of memory."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self,
            ("top", self.top > 0, "1 or more"),
            ("npz", not self.npz, "off: a matrix file holds one score a pair"),
        )


RESOURCES = Resources(minutes=12 * 60)


def run(config: Config, run_dir: Path) -> None:

    from corpora.corpus import Corpus
    from launch.attempt import current
    from launch.process_group import device_name, loader_workers
    from launch.source import revision
    from models.scorer import open_scorer
    from ranking.evaluate import evaluate
    from ranking.matrix import read_ranking
    from ranking.predict import provenance_of, rank_as, ranked_split
    from ranking.rerank import Reranker, ceilings, comparison, over, shortlists
    from training.loop import process_group
    from training.processes import is_main

    corpus = Corpus(config.corpus)
    split = ranked_split(corpus, config, config.checkpoint)
    first = read_ranking(config.ranking)
    marks = shortlists(first, split, config.top, config.queries)
    process_group(config.precision)
    name, model, inputs = open_scorer(config.checkpoint, corpus, config.regions)
    engine = Reranker(
        model.to(device_name()),
        inputs,
        split,
        config.precision,
        config.pair_batch,
        loader_workers(),
        current(),
        first=first,
        marks=marks,
    )
    made = provenance_of(engine, name, config.checkpoint, config, revision())
    after = rank_as(over(first.provenance, made), engine, config, run_dir)
    if is_main():
        protocol = config.protocol, config.ties, config.image_ids, config.fold_size
        before = evaluate(first, *protocol)
        ranking = read_ranking(run_dir / f"ranking-{config.split}.h5")
        print(comparison(before["figures"], after["figures"], ceilings(ranking), config.top))


if __name__ == "__main__":
    main(Config, RESOURCES, run)
