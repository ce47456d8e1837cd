"""Tell what is in a corpus folder, show some of its pictures, and check that it is whole.

Prints the report and writes corpus-info.json and contact-sheet.jpg into the run folder.

python jobs/corpus_info.py --corpus data/coco
python jobs/corpus_info.py --corpus data/coco --verify
sbatch slurm/corpus_info.sh --corpus data/coco --verify
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from launch.entry import main
from launch.resources import Resources


@dataclass(frozen=True)
class Config:
    corpus: Path = Path("data/scenes")
    """Corpus folder."""
    verify: bool = False
    """Decode every image again and compare its bytes with those that were packed; ends with an error if one is damaged."""
    pictures: int = 40
    """Pictures on the contact sheet, the same number of every split; 0 for no sheet."""
    seed: int = 0
    """Chooses the pictures."""
    workers: int = 0
    """Processes that verify; 0 is one a core."""


RESOURCES = Resources(gpus_per_node=0, minutes=120)


def run(config: Config, run_dir: Path) -> None:
    """Report, sheet, and the check if it is asked for."""
    import json

    from corpora.contact_sheet import contact_sheet
    from corpora.corpus import Corpus, CorpusError
    from corpora.integrity import find_damage
    from corpora.report import as_text, describe

    corpus = Corpus(config.corpus)
    report = describe(corpus)
    print(corpus, as_text(report), sep="\n")
    if config.verify:
        report["damage"] = find_damage(corpus, config.workers)
    (run_dir / "corpus-info.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if config.pictures and report["images"]:
        contact_sheet(corpus, config.pictures, config.seed).save(run_dir / "contact-sheet.jpg", quality=90)
        print(f"pictures: {run_dir / 'contact-sheet.jpg'}")
    if config.verify:
        damage = report["damage"]
        if damage:
            first = "".join(f"\n  {line}" for line in damage[:5])
            raise CorpusError(f"{config.corpus}: {len(damage)} things are wrong (all in corpus-info.json), the first:{first}")
        print(f"verified: every image is there once, unchanged and whole ({report['images'].get('count', 0):,} images)")


if __name__ == "__main__":
    main(Config, RESOURCES, run)
