"""Many image files into packs: by several processes, in pieces that outlive a killed job."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from corpora.image_packs import PackedImage, read_index
from corpora.pieces import Pieces
from corpora.progress import progress
from corpora.store import StoreError
from corpora.workers import in_processes
from preprocess.image_files import pack_files, unchanged

IMAGES_A_PIECE = 1000

Files = Sequence[tuple[str, Path]]


@dataclass(frozen=True)
class ImagePieces:
    """The (id, path) of all images of a corpus, and the folder of packs of IMAGES_A_PIECE of them each, in order."""

    files: Files
    pieces: Pieces
    short_side: int

    @classmethod
    def of(cls, files: Files, folder: Path, short_side: int) -> ImagePieces:
        """Begin packing, or go on; StoreError if the folder holds packs of other images."""
        listed = hashlib.sha256("".join(f"{image_id}\0{path}\n" for image_id, path in files).encode("utf-8", "surrogateescape"))
        identity = {
            "images": len(files),
            "sha256 of their list": listed.hexdigest(),
            "short_side": short_side,
            "a_piece": IMAGES_A_PIECE,
        }
        return cls(files, Pieces(folder, -(-len(files) // IMAGES_A_PIECE), identity), short_side)

    def of_piece(self, number: int) -> Files:
        return self.files[number * IMAGES_A_PIECE : (number + 1) * IMAGES_A_PIECE]

    def drop_changed(self, numbers: Iterable[int]) -> None:
        """Drop those packs that are damaged, or made of files which have been replaced since, or were missing and are there now."""
        for number in sorted(set(numbers).difference(self.pieces.missing())):
            try:
                keep = unchanged(self.of_piece(number), read_index(self.pieces.path(number)))
            except StoreError:
                keep = False
            if not keep:
                self.pieces.path(number).unlink(missing_ok=True)

    def pack(self, numbers: Sequence[int], workers: int) -> None:
        """Pack these pieces, in so many processes (0: one a core).

        Threads would share the interpreter lock, which takes half of the work on small images: two are slower than one.
        """
        tasks = [(self.of_piece(number), self.pieces, number, self.short_side) for number in numbers]
        packed = in_processes(_pack, tasks, workers)
        for _ in progress(
            (image for number in packed for image in self.of_piece(number)), "images", sum(len(task[0]) for task in tasks)
        ):
            pass

    def packed(self) -> Iterator[PackedImage]:
        """What the packs hold, in the order of the files: each exactly once, or a StoreError."""
        for number in range(self.pieces.count):
            pack = self.pieces.path(number)
            rows = read_index(pack)
            if [row.id for row in rows] != [image_id for image_id, _ in self.of_piece(number)]:
                raise StoreError(f"{pack}: does not hold images {number * IMAGES_A_PIECE} and on; remove it and run again")
            yield from rows


def _pack(files: Files, pieces: Pieces, number: int, short_side: int) -> int:
    with pieces.writing(number) as path:
        pack_files(files, path, short_side)
    return number
