"""Every text of a corpus against a collection of images of any size: a JSON line a text, with the best images and their scores.

The work is cut into pieces of PIECE texts, which any number of jobs and processes share; a killed one loses the piece it was at.
Whoever finds all pieces there joins them to a folder of `retrieved.jsonl` and `retrieval.json` (what it was made from, and statistics).
However often the work was killed and however it was shared, the bytes of both are the same; with another number of threads the BLAS of
an exact search may round the last digit of a score otherwise.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from corpora.corpus import Corpus, Split
from corpora.leakage import leakage
from corpora.pieces import Part, Pieces
from corpora.progress import progress
from corpora.store import StoreError
from ranking.collection import Collection
from ranking.diversity import diversity, recalls
from ranking.matrix import RankingError
from ranking.vectors import Origin, Vectors, check_one_model
from training.supervision import Nobody, Supervisor

SCHEMA = 1
PIECE = 4096
"""Texts a piece: fixed, so that a job goes on under any number of processes."""
CUTOFFS = (1, 5, 10)
MOST_OFTEN = 10


@dataclass(frozen=True)
class Found:
    """What was found for some texts."""

    lines: np.ndarray
    """uint8: their JSON lines."""
    places: np.ndarray
    """(texts, top) int64, -1 where fewer were found."""
    ranks: np.ndarray
    """(texts,) int32: where the best image of its own stands, from 1, a tie against it; 0 if not among the best."""

    def write(self, path: Path) -> None:
        with path.open("wb") as file:
            np.savez(file, lines=self.lines, places=self.places, ranks=self.ranks)

    @classmethod
    def read(cls, path: Path) -> Found:
        """RankingError, and the file is removed, if it is damaged: zip files carry checksums."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                return cls(stored["lines"], stored["places"], stored["ranks"])
        except (ValueError, EOFError, KeyError, zipfile.BadZipFile):
            path.unlink(missing_ok=True)
            raise RankingError(f"{path}: was damaged after it was written and is removed; run again") from None


@dataclass(frozen=True)
class Retrieval:
    """This process's share of a retrieval."""

    texts: Vectors
    split: Split | None
    """The texts themselves and their own images; None for vectors that come from no corpus."""
    collection: Collection
    folder: Path
    top: int
    part: Part = Part()  # noqa: RUF009
    rank: int = 0
    """This process's number among the job's `size` processes, which share the part."""
    size: int = 1
    supervisor: Supervisor = field(default_factory=Nobody)

    def __post_init__(self) -> None:
        check_comparable(self.texts, self.collection)

    def run(self) -> bool:
        """Retrieve this share; True if the whole folder stands now. The first process of each job joins the pieces if all are there.

        RankingError if the folder holds another retrieval.
        """
        pieces_folder = self.folder.with_name(f".{self.folder.name}.pieces")
        if self.folder.exists():
            self._refuse_others()
            shutil.rmtree(pieces_folder, ignore_errors=True)  # left by a job killed at its very end
            return True
        pieces = Pieces(pieces_folder, -(-len(self.texts) // PIECE), self._made_from)
        try:
            self._retrieve(pieces)
            if self.rank == 0:
                self._wait_for_the_others(pieces)
                self._join(pieces)
        except (OSError, StoreError):
            if not self.folder.exists():  # else another job has joined the pieces and removed them meanwhile
                raise
        return self.folder.exists()

    @cached_property
    def _made_from(self) -> dict[str, Any]:
        """What decides the result."""
        return {
            "texts": {"vectors": self.texts.digest, **_without_revision(self.texts.made_by)},
            "images": {**self.collection.identity, **_without_revision(self.collection.made_by)},
            "top": self.top,
            "piece": PIECE,
        }

    def _refuse_others(self) -> None:
        there = read_retrieval(self.folder)["made_from"]
        differ = [key for key, value in self._made_from.items() if there.get(key) != value]
        if differ:
            raise RankingError(
                f"{self.folder}: holds a retrieval of other {', '.join(differ)}; remove it or choose another folder"
            )

    # Pieces

    def _retrieve(self, pieces: Pieces) -> None:
        missing = pieces.missing(self.part.share(self.rank, self.size))
        for number in progress(missing, f"pieces of {PIECE} texts", len(missing)):
            self.supervisor.beat()
            found = self._found(range(number * PIECE, min((number + 1) * PIECE, len(self.texts))))
            self.supervisor.check()
            with pieces.writing(number) as aside:
                found.write(aside)
            if self.rank == 0:
                self.supervisor.saved(pieces.count - len(pieces.missing()))

    def _found(self, some: range) -> Found:
        # More than is wanted, as a tie across the end of the list counts against a text's own images
        more = max(map(len, self._truth), default=0)
        rows = np.asarray(self.texts.rows[some.start : some.stop], np.float32)
        scores, places = self.collection.search(rows, min(self.top + more, self.collection.size))
        order = np.lexsort((places, -scores), axis=-1)
        scores, places = (np.take_along_axis(values, order, axis=1) for values in (scores, places))
        if np.isnan(scores).any() or np.isinf(scores[places >= 0]).any():
            raise RankingError(f"{self.folder}: scores of texts {some.start} to {some.stop - 1} are not finite; encode again")
        images = np.array(self.collection.ids.take(np.maximum(places, 0)), object).reshape(places.shape)
        own = [_rank(scores[row], places[row], images[row], self._own_images(text)) for row, text in enumerate(some)]
        ranks = np.where(np.array(own) > self.top, 0, own).astype(np.int32)
        best = scores[:, : self.top], places[:, : self.top], images[:, : self.top]
        lines = "".join(self._lines(some, ranks, *best)).encode()
        return Found(np.frombuffer(lines, np.uint8), best[1], ranks)

    def _lines(self, some: range, ranks: np.ndarray, scores: np.ndarray, places: np.ndarray, images: np.ndarray) -> Iterator[str]:
        readable = scores.astype(str).astype(float)  # the fewest digits that tell a float32 from others
        ids = self.texts.ids[some.start : some.stop]
        for number, text in enumerate(some):
            line: dict[str, Any] = {"id": ids[number]}
            if self.split is not None:
                line["text"] = self.split.texts[text]
            if self._own_images(text):
                line["rank"] = int(ranks[number]) or None
            found = places[number] >= 0
            line |= {"images": images[number][found].tolist(), "scores": readable[number][found].tolist()}
            yield json.dumps(line, ensure_ascii=False) + "\n"

    def _own_images(self, text: int) -> frozenset[str]:
        """Those of the collection that a text was written for."""
        return self._truth[text] if self._truth else frozenset()

    @cached_property
    def _truth(self) -> list[frozenset[str]]:
        """Own images of every text; empty if no text has any in the collection."""
        if self.split is None or not len(self.split.pairs):
            return []
        held = self.collection.held(self.split.image_ids)
        own: list[list[str]] = [[] for _ in self.split.texts]
        for image, text in self.split.pairs:
            own[text].append(self.split.image_ids[image])
        return [frozenset(held.intersection(images)) for images in own] if held else []

    # Joining

    def _wait_for_the_others(self, pieces: Pieces) -> None:
        """The job has not ended well before all its processes have, and it is the first of them that says so."""
        while pieces.missing(self.part) and not self.folder.exists():
            self.supervisor.beat()
            time.sleep(0.2)

    def _join(self, pieces: Pieces) -> None:
        """Put the pieces together if all are there. Of several jobs that do so at once, any may be the last: the files are equal."""
        if not self.folder.exists() and pieces.whole:
            aside = pieces.folder / f"joined.{os.uname().nodename}.{os.getpid()}"
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir()
            statistics = self._write_lines(aside / "retrieved.jsonl", pieces)
            result = {"schema": SCHEMA, "made_from": self._made_from, "statistics": statistics}
            (aside / "retrieval.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            self.supervisor.check()
            if not self.folder.exists():
                aside.rename(self.folder)
        if self.folder.exists():
            pieces.remove()

    def _write_lines(self, path: Path, pieces: Pieces) -> dict[str, Any]:
        """Write the lines of all pieces; returns the statistics."""
        first, every = (np.zeros(len(self.collection.ids), np.int32) for _ in range(2))
        ranks = []
        with path.open("wb") as file:
            for number in progress(range(pieces.count), "joining pieces"):
                self.supervisor.beat()
                found = Found.read(pieces.path(number))
                file.write(found.lines.data)
                for counts, places in ((first, found.places[:, :1]), (every, found.places)):
                    np.add.at(counts, places[places >= 0], 1)
                ranks.append(found.ranks)
            file.flush()
            os.fsync(file.fileno())
        return self._statistics(first, every, np.concatenate(ranks))

    def _statistics(self, first: np.ndarray, every: np.ndarray, ranks: np.ndarray) -> dict[str, Any]:
        size, own = self.collection.size, np.array([len(images) for images in self._truth])
        often = np.argsort(-every, kind="stable")[:MOST_OFTEN]
        cutoffs = [k for k in CUTOFFS if k <= self.top]
        return {
            "texts": len(self.texts),
            "images": size,
            "top": self.top,
            "first": diversity(first, size),
            "all": diversity(every, size),
            "most_often": [
                {"id": item, "count": int(every[place])}
                for item, place in zip(self.collection.ids.take(often), often, strict=True)
                if every[place]
            ],
            "own_images": int((own > 0).sum()),
            "recall": recalls(ranks, own, size, cutoffs) if len(own) and own.all() else {},
            "leakage": leakage(self.texts.made_by.checkpoint, self.split) if self.split is not None else "",
        }


def _without_revision(made_by: Origin) -> dict[str, Any]:
    return asdict(replace(made_by, revision=""))


def _rank(scores: np.ndarray, places: np.ndarray, images: Sequence[str], own: frozenset[str]) -> int:
    """Where the best of a text's own images stands in its list, from 1, after the others that score as high; 0 if none does."""
    mine = np.array([image in own for image in images]) & (places >= 0) if own else np.zeros(0, bool)
    return int(1 + (scores[~mine] >= scores[mine].max()).sum()) if mine.any() else 0


def check_comparable(texts: Vectors, collection: Collection) -> None:
    """RankingError unless the scores of these vectors mean something."""
    if texts.made_by.kind != "texts":
        raise RankingError(f"vectors of {texts.made_by.corpus}: are of {texts.made_by.kind}; give those of texts")
    check_one_model(texts, collection.dimension, collection.made_by)


def split_of(texts: Vectors, corpus: Path | None) -> Split | None:
    """The split that text vectors were made of; `corpus` is where its folder is now. None for vectors that come from no corpus."""
    made_by = texts.made_by
    if not (corpus or made_by.corpus):
        return None
    folder = corpus or Path(made_by.corpus)
    if not folder.exists():
        raise RankingError(
            f"{folder}: the texts were encoded from this corpus, and it is not here; give its folder with --corpus"
        )
    split = Corpus(folder).split(made_by.split)
    if split.digest != made_by.digest:
        raise RankingError(f"{folder}: split {split.name} is not the one that was encoded; encode it again, or give --corpus")
    return split


def read_retrieval(folder: Path) -> dict[str, Any]:
    """What a folder was made from, and its statistics; RankingError if it is no whole retrieval."""
    try:
        result: dict[str, Any] = json.loads((folder / "retrieval.json").read_text(encoding="utf-8"))
        if result["schema"] != SCHEMA:
            raise ValueError(f"schema {result['schema']}, this version reads {SCHEMA}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RankingError(f"{folder}: no whole retrieval ({error}); remove it and run again") from None
    return result
