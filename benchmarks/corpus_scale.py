"""Retrieval at the scale of a corpus: a million made-up texts over a million made-up images by an approximate index, killed half-way.

    python benchmarks/corpus_scale.py
    python benchmarks/corpus_scale.py --count 100000 --index IVF1024,PQ16 --unbroken

Images are points around many centres on a sphere, and each text is a point near one image. jobs/build_index.py and
jobs/retrieve_corpus.py run as a user starts them; the second is ended by kill -9 when half of its pieces are written, and started
again. Told are the pieces that the first start left, the CPU seconds of each step, the most memory of any of them, and
the recall of a sample of texts against exact search.

Exits with 1 if a line is missing or out of place, or with --unbroken if one run without a break does not give the same bytes.
"""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from ranking.corpus_retrieval import PIECE
from ranking.vectors import Kind, Origin, write_vectors

JOBS = Path(__file__).resolve().parents[1] / "jobs"
CENTRES = 20_000
SPREAD, NOISE = 0.7, 0.5
"""Of images around their centre and of texts around their image, in lengths of a vector of the sphere."""


@dataclass(frozen=True)
class Config:
    count: int = 1_000_000
    """Texts, and images."""
    dimension: int = 64
    """Of the vectors."""
    index: str = "IVF4096,SQ8"
    """faiss's factory string."""
    parameters: str = "nprobe=32"
    """How much of the index is searched."""
    top: int = 5
    """Images of each text."""
    unbroken: bool = False
    """Also run once without a break and compare the files."""


def run(config: Config) -> bool:
    """Print what the module says; whether all lines are there, and equal."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind in ("images", "texts"):
            make(folder / kind, kind, config)
        started("build_index", folder, "--vectors", "images", "--index", "index", "--type", config.index)
        retrieve = "--texts", "texts", "--collection", "index", "--top", str(config.top), "--parameters", config.parameters
        kill_half_way(folder, config, *retrieve, "--folder", "found")
        started("retrieve_corpus", folder, *retrieve, "--folder", "found", "--vectors", "images")
        whole = in_order(folder / "found/retrieved.jsonl", config.count)
        if config.unbroken:
            started("retrieve_corpus", folder, *retrieve, "--folder", "unbroken")
            files = [
                [(folder / name / file).read_bytes() for file in ("retrieved.jsonl", "retrieval.json")]
                for name in ("found", "unbroken")
            ]
            print("the same bytes as without a break:", files[0] == files[1])
            whole = whole and files[0] == files[1]
        memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        print(f"most memory of a process: {memory / 1e6:.2f} GB")
    return whole


def make(folder: Path, kind: Kind, config: Config) -> None:
    """A vectors folder of made-up vectors, the same for the same options."""
    ids = [f"{kind[0]}{number}" for number in range(config.count)]
    write_vectors(
        folder, lambda ranges: (made(some, kind, config.dimension) for some in ranges), ids, Origin("made-up", "", "", "", kind)
    )


def made(some: range, kind: Kind, dimension: int) -> np.ndarray:
    """(len(some), dimension) vectors of length 1."""
    centres = np.random.default_rng(0).standard_normal((CENTRES, dimension), np.float32)
    rng = np.random.default_rng([1, some.start])
    rows = centres[rng.integers(CENTRES, size=len(some))] + SPREAD * rng.standard_normal((len(some), dimension), np.float32)
    if kind == "texts":
        rows += NOISE * rng.standard_normal(rows.shape, np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def command(job: str, options: Sequence[str]) -> list[str]:
    return [sys.executable, str(JOBS / f"{job}.py"), "--cluster", "local", *options]


def started(job: str, folder: Path, *options: str) -> None:
    """Run a job to its end; SystemExit if it fails."""
    before = used()
    done = subprocess.run(command(job, options), cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{job} failed:\n{done.stderr[-2000:]}")
    told = [line for line in done.stdout.splitlines() if not re.match("run folder|no Slurm|most often", line)]
    print(f"{job}, {used() - before:,.0f} CPU s:", *told, sep="\n  ", flush=True)


def kill_half_way(folder: Path, config: Config, *options: str) -> None:
    """Start the retrieval and end it by kill -9 when half of its pieces are written."""
    before, pieces = used(), -(-config.count // PIECE)
    with subprocess.Popen(
        command("retrieve_corpus", options), cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as job:
        while job.poll() is None and len(list(folder.glob(".found.pieces/??????"))) < pieces // 2:
            time.sleep(0.02)
        job.kill()
    standing = len(list(folder.glob(".found.pieces/??????")))
    print(f"killed, {used() - before:,.0f} CPU s: {standing} of {pieces} pieces of {PIECE} texts stand", flush=True)


def in_order(path: Path, count: int) -> bool:
    """Whether every text has its line, in order."""
    return [line["id"] for line in lines(path)] == [f"t{number}" for number in range(count)]


def lines(path: Path) -> Iterator[dict[str, object]]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def used() -> float:
    """CPU seconds of all processes that were started here and have ended."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(0 if run(tyro.cli(Config, description=__doc__)) else "error: lines are missing, or not the same")
