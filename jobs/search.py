"""Search a split with any checkpoint, by a text or a picture: prints what is found and draws a contact sheet.

python jobs/search.py --corpus data/coco --checkpoint openai/clip-vit-base-patch32 --query "two dogs running"
python jobs/search.py --corpus data/coco --checkpoint runs/clip_finetune/coco/checkpoints/best --image holiday.jpg --rerank runs/lxmert_finetune/coco/checkpoints/best
python jobs/search.py --corpus data/coco --checkpoint openai/clip-vit-base-patch32 runs/guided_train/de/checkpoints/best --serve
sbatch slurm/search.sh --corpus data/coco --query "two dogs running"
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from launch.entry import main
from launch.resources import Resources
from training.learning import require

ASKED: Any = {"identity": False}
"""Searches of one corpus by one model share a run folder, and with it what the model made of the corpus."""


@dataclass(frozen=True)
class Config:
    corpus: Path = Path("data/scenes")
    """Corpus folder."""
    split: str = "test"
    """Split to search."""
    checkpoint: tuple[str, ...] = ("openai/clip-vit-base-patch32",)
    """Hub name or folder of a checkpoint: CLIP, LXMERT, DE, SIAM, TERN, the sentence matcher. Of several each searches, and the page lets choose."""
    regions: str = ""
    """Region features by extractor name, for a model that reads them; by default the only ones the corpus has."""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """Precision of the forward passes."""
    query: str = field(default="", metadata=ASKED)
    """Text to search images by."""
    image: str = field(default="", metadata=ASKED)
    """Picture to search texts by, and with a dual encoder images: the id of an image of the corpus, or a file."""
    top: int = field(default=10, metadata=ASKED)
    """How many to show."""
    rerank: str = field(default="", metadata=ASKED)
    """Checkpoint of a second model, which scores the shortlist again."""
    shortlist: int = field(default=50, metadata=ASKED)
    """How many of the best the second model scores."""
    serve: bool = field(default=False, metadata=ASKED)
    """Serve a page to search on, until the job is ended; needs gradio (the extra demo)."""
    host: str = field(default="127.0.0.1", metadata=ASKED)
    """Address the page listens at. There is no password: any other than loopback opens the corpus to whoever reaches it."""
    port: int = field(default=0, metadata=ASKED)
    """Its port; 0 = the first free one from 7860 on."""

    def __post_init__(self) -> None:
        require(
            self,
            ("checkpoint", len(self.checkpoint) > 0, "one checkpoint or more"),
            ("top", self.top > 0, "1 or more"),
            ("shortlist", self.shortlist > 0, "1 or more"),
            ("port", 0 <= self.port < 1 << 16, "0 to 65535"),
        )
        asked = [name for name, given in (("--query", self.query), ("--image", self.image), ("--serve", self.serve)) if given]
        if len(asked) > 1:
            raise ValueError(f"{' and '.join(asked)}: give one of them")


RESOURCES = Resources()


def run(config: Config, run_dir: Path) -> None:
    if not (config.query.strip() or config.image or config.serve):
        raise ValueError('what to search for? give --query "two dogs running", --image with an id or a file, or --serve')

    from launch.process_group import device_name, loader_workers
    from models.scorer import open_scorer
    from ranking.search import Searched, Searcher, read_query, search
    from ranking.search_page import serve
    from ranking.search_sheet import listing, sheet_of, sheet_path
    from training import processes
    from training.loop import process_group

    corpus = Searched(config.corpus)
    split = corpus.split(config.split)
    query = None if config.serve else read_query(corpus, config.query, config.image)
    process_group(config.precision)
    if processes.size() > 1:
        raise ValueError("a search is a job for one process: use --gpus-per-node 1")

    def opened(checkpoint: str) -> Searcher:
        name, model, inputs = open_scorer(checkpoint, corpus, config.regions)
        engine = model.to(device_name()), inputs, split, config.precision, 512, loader_workers()
        return Searcher(*engine, name=name, checkpoint=checkpoint, corpus=corpus, cache=run_dir / "encoded")

    models, second = [opened(checkpoint) for checkpoint in config.checkpoint], opened(config.rerank) if config.rerank else None
    if query is None:
        serve(models, second, config.top, config.shortlist, config.host, config.port)
        return
    for model in models:
        found = search(model, query, config.top, second, config.shortlist)
        print(listing(model, second, query, found))
        path = sheet_path(run_dir, config.query or config.image, model.checkpoint, config.rerank, config.shortlist, config.top)
        sheet_of(corpus, query, found).save(path, quality=90)
        print(f"contact sheet: {path}", flush=True)


if __name__ == "__main__":
    main(Config, RESOURCES, run)
