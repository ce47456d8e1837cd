"""Ranks a split into a run folder: ranking file, figures, table."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from torch import nn

from corpora.corpus import Corpus, Split
from corpora.leakage import leakage, refuse_leakage
from ranking.engine import Engine
from ranking.evaluate import as_table, evaluate, read_ids, write_result
from ranking.matrix import Provenance, RankingError, config_json
from ranking.npz import write_npz
from ranking.options import RankingOptions
from ranking.relevance import GradedRelevance, read_relevance
from training.processes import is_main
from training.weights import weights_digest


def ranked_split(corpus: Corpus, options: RankingOptions, checkpoint: str) -> Split:
    """The split to rank, which the checkpoint must not have been trained on. Under protocol fixed only the listed images and their texts: COCO's 1k costs a 25th of its 5k."""
    split = corpus.split(options.split)
    for kind, ids in (("texts", split.text_ids), ("images", split.image_ids)):
        if not ids:
            raise RankingError(f"{corpus.folder}: split {split.name} has no {kind} to rank")
    if options.protocol == "folds" and len(split.image_ids) % options.fold_size:
        raise RankingError(
            f"--fold-size {options.fold_size}: the {len(split.image_ids)} images of split {split.name} do not divide into such folds"
        )
    ranked = split if options.image_ids is None else split.subset(read_ids(options.image_ids))
    if not options.allow_leakage:
        refuse_leakage(checkpoint, ranked, corpus.folder)
    return ranked


def predict(
    engine: Engine, model_name: str, checkpoint: str, options: RankingOptions, run_dir: Path, revision: str
) -> dict[str, Any]:
    """Fill ranking-<split>.h5, write metrics.json and print the table. Goes on where a stopped job was."""
    return rank_as(provenance_of(engine, model_name, checkpoint, options, revision), engine, options, run_dir)


def provenance_of(engine: Engine, model_name: str, checkpoint: str, options: RankingOptions, revision: str) -> Provenance:
    """Where the engine's scores come from."""
    return Provenance(
        model=model_name,
        checkpoint=checkpoint,
        weights=weights_digest(cast(nn.Module, engine.model)),
        corpus=str(options.corpus),
        split=options.split,
        digest=engine.split.digest,
        score_meaning=engine.model.score_meaning,
        config=config_json(options),
        revision=revision,
        leakage=leakage(checkpoint, engine.split),
    )


def rank_as(provenance: Provenance, engine: Engine, options: RankingOptions, run_dir: Path) -> dict[str, Any]:
    """Fill, write and print as `predict` does."""
    path = run_dir / f"ranking-{options.split}.h5"
    graded = _graded(options)
    ranking = engine.rank_to_file(path, provenance)
    result = evaluate(ranking, options.protocol, options.ties, options.image_ids, options.fold_size, graded)
    if is_main():
        write_result(run_dir / "metrics.json", result)
        if options.npz:
            write_npz(path.with_suffix(".npz"), ranking)
        print(f"{as_table(result)}\nranking file: {path}", flush=True)
    return result


def _graded(options: RankingOptions) -> list[GradedRelevance]:
    """The relevance files, each of the whole split: the ranked one may be a part of it."""
    split = Corpus(options.corpus).split(options.split) if options.relevance else None
    return [read_relevance(path, split) for path in options.relevance if split is not None]


def validation_figures(engine: Engine) -> dict[str, float]:
    """rsum and the six recalls of a split, in percent, ranked in memory; for choosing a checkpoint."""
    split = engine.split
    unnamed = Provenance("", "", "", split.name, split.digest, engine.model.score_meaning)
    figures = evaluate(engine.rank_in_memory(unnamed))["figures"]
    recalls = {f"{way}_R@{k}": figures[way][f"R@{k}"] for way in ("i2t", "t2i") for k in (1, 5, 10)}
    return {"rsum": figures["rsum"], **recalls}
