"""Seeded mutants of every format: one clear error, or regions that are right; never another exception or wrong rows in silence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from region_files import WRITERS, corpus_folder, made_up

from corpora.corpus import Corpus, CorpusError
from corpora.regions import Regions, RegionStore, write_regions
from corpora.store import StoreError
from preprocess.region_choices import Choices
from preprocess.regions import import_regions

MUTANTS = 70
KINDS = ("cut", "drop", "repeat", "turn", "reverse", "flip first", "flip", "digits")
MOVES = KINDS[:4]
"""Kinds that move whole pieces: they are noticed, or do no harm. What is flipped within an array without a check sum cannot be noticed."""
SUMMED = ("stacked_npz", "stacked_lxmert_npz", "npz_folder", "tern_flickr_folder")
"""Formats whose every byte has a check sum."""
MOST_FLIPPED = 8


def mutated(data: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """The kind of change and the changed bytes; a piece is often a whole line."""
    kind = str(rng.choice(KINDS))
    start, stop = sorted(int(place) for place in rng.integers(0, len(data) + 1, 2))
    if kind in MOVES and b"\n" in data and rng.random() < 0.5:
        lines = data.splitlines(keepends=True)
        first = int(rng.integers(len(lines)))
        start = sum(map(len, lines[:first]))
        stop = start + len(lines[first])
    piece = data[start:stop]
    changed = bytearray(data)
    if kind == "cut":
        del changed[start:]
    elif kind == "drop":
        del changed[start:stop]
    elif kind == "repeat":
        changed[stop:stop] = piece
    elif kind == "turn":
        changed = bytearray(data[stop:] + data[:stop])
    elif kind == "reverse":
        changed[start:stop] = reversed(piece)
    else:
        for place in rng.integers(
            0, min(len(data), 400 if kind == "flip first" else len(data)), rng.integers(1, MOST_FLIPPED + 1)
        ):
            digit = kind == "digits" and chr(changed[place]).isdigit()
            changed[place] = rng.integers(48, 58) if digit else rng.integers(256)
    return kind, bytes(changed)


def check(store: RegionStore, truth: dict[str, Regions], kind: str, exact: bool) -> None:
    """Every image has its own row. Exact: it is the truth. Else it may differ in as many numbers as bytes were flipped, or neighbours."""
    assert sorted(store.ids) == sorted(truth)
    for image_id, expected in truth.items():
        found = store.of(image_id)
        assert found.features.shape == expected.features.shape and found.boxes.shape == expected.boxes.shape
        if exact:
            np.testing.assert_array_equal(found.features, expected.features)
            np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-7)
        elif kind != "reverse":
            assert (found.features != expected.features).sum() <= 2 * MOST_FLIPPED, image_id


@pytest.mark.parametrize("name", [name for name in WRITERS if name != "region_file"])
def test_mutants(tmp_path, name):
    write, _, _ = WRITERS[name]
    truth = made_up()
    source = tmp_path / "source"
    write(source, truth)
    files = sorted(path for path in source.rglob("*") if path.is_file()) if source.is_dir() else [source]
    folder = corpus_folder(tmp_path / "corpus")
    rng = np.random.default_rng(sum(map(ord, name)))
    refused = 0
    for _ in range(MUTANTS):
        victim = files[int(rng.integers(len(files)))]
        whole = victim.read_bytes()
        kind, changed = mutated(whole, rng)
        victim.unlink()  # HDF5 takes a file rewritten in place for one it still has open
        victim.write_bytes(changed)
        try:
            import_regions(folder, [source], "x", Choices(exact=True))
        except (CorpusError, StoreError) as error:
            refused += 1
            assert "source" in str(error) or "image" in str(error), error
            assert not list(folder.glob("regions*"))
        else:
            check(Corpus(folder).regions("x"), truth, kind, kind in MOVES or name in SUMMED)
            (folder / "regions-x.h5").unlink()
        victim.unlink()
        victim.write_bytes(whole)
    assert refused > MUTANTS / 4


def test_mutants_of_region_files(tmp_path):
    """HDF5 is C: a process of its own reads them, and must not crash or hang."""
    write_regions(tmp_path / "whole.h5", made_up().values(), 4, exact=True)
    done = subprocess.run(
        [sys.executable, "-c", READING, tmp_path], capture_output=True, text=True, timeout=100, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == 0, done.stdout + done.stderr
    read, refused = map(int, done.stdout.split())
    assert read + refused == 150 and refused > 30


READING = """
import sys
from pathlib import Path
sys.path[:0] = ["tests/preprocess"]
import numpy as np
from test_region_mutants import mutated
from region_files import SIZES
from corpora.regions import RegionStore
from corpora.store import StoreError
folder = Path(sys.argv[1])
whole = (folder / "whole.h5").read_bytes()
rng = np.random.default_rng(0)
read = refused = 0
for number in range(150):
    path = folder / f"{number}.h5"  # HDF5 takes a file rewritten in place for the one it still has open
    path.write_bytes(mutated(whole, rng)[1])
    try:
        store = RegionStore(path)
        ids = [key for key in SIZES if key in store]
        assert store.read(ids)[0].shape == (len(ids), store.regions, store.width)
        [store.of(key) for key in ids]
        read += 1
    except StoreError as error:
        refused += 1
print(read, refused)
"""
