"""Turn a score matrix of the original suite (.npz with logits, labels, i2t_ranks, t2i_ranks) into a ranking file.

python jobs/import_npz.py --npz lxmert_1k.npz --corpus data/coco --image-ids test_img_keys_1k.tsv --model LXMERT
sbatch slurm/import_npz.sh --npz lxmert_1k.npz --corpus data/coco --image-ids test_img_keys_1k.tsv --model LXMERT
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from launch.entry import main
from launch.resources import Resources


@dataclass(frozen=True)
class Config:
    npz: Path = Path("matrix.npz")
    """The original's file."""
    corpus: Path = Path("data/coco")
    """Corpus folder that was ranked."""
    split: str = "test"
    """Split that was ranked."""
    image_ids: Path | None = None
    """File of image ids, one a line, in the order of the matrix; by default the split's own order."""
    rows: Literal["infer", "image", "text"] = "infer"
    """What the rows are. The original wrote both; only a square matrix cannot tell by itself."""
    model: str = "imported"
    """Name of the model, for reports."""


RESOURCES = Resources(gpus_per_node=0, minutes=60)


def run(config: Config, run_dir: Path) -> None:
    import numpy as np

    from corpora.corpus import Corpus
    from ranking.evaluate import as_table, evaluate, read_ids, write_result
    from ranking.matrix import Provenance, RankingError, write_ranking
    from ranking.npz import read_npz

    corpus = Corpus(config.corpus)
    whole = corpus.split(config.split)
    image_ids = read_ids(config.image_ids) if config.image_ids else whole.image_ids
    split = whole.subset(image_ids)
    place = {image_id: i for i, image_id in enumerate(image_ids)}
    order = np.array([place[image_id] for image_id in split.image_ids])
    by_image = split.pairs[np.argsort(order[split.pairs[:, 0]], kind="stable")]
    text_ids = [split.text_ids[text] for text in by_image[:, 1]]
    provenance = Provenance(config.model, str(config.npz), str(config.corpus), config.split, split.digest, "as imported")
    rows = None if config.rows == "infer" else config.rows
    ranking = read_npz(config.npz, provenance, rows, image_ids, text_ids).by("image")
    known = {(split.image_ids[image], split.text_ids[text]) for image, text in split.pairs}
    labelled = {(image_ids[image], text_ids[text]) for image, text in ranking.relevant.pairs()}
    if labelled != known:
        raise RankingError(
            f"{config.npz}: its labels pair other images and captions than {corpus.folder}; is --image-ids the order of the matrix?"
        )
    path = run_dir / f"ranking-{config.split}.h5"
    write_ranking(path, ranking)
    result = evaluate(ranking)
    write_result(run_dir / "metrics.json", result)
    print(f"{as_table(result)}\nranking file: {path}")


if __name__ == "__main__":
    main(Config, RESOURCES, run)
