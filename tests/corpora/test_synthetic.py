"""The made-up corpus folder: the same bytes for the same arguments, and its truth can be read back."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from corpora.corpus import Corpus, CorpusError
from corpora.planting import Shares, scene_images
from corpora.synthetic import make_scenes, read_planted

SIZES = {"train": 60, "val": 11, "test": 10}
SHARES = Shares(0.2, 0.2, 0.2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "scenes"
    assert make_scenes(folder, SIZES, seed=5, size=64, planted=SHARES)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_another_process_makes_the_same_bytes(folder, tmp_path):
    code = (
        "import sys; from pathlib import Path; from corpora.synthetic import make_scenes; from corpora.planting import Shares\n"
        f"make_scenes(Path(sys.argv[1]), {SIZES}, seed=5, size=64, planted=Shares(0.2, 0.2, 0.2))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "77"}
    subprocess.run([sys.executable, "-c", code, tmp_path / "scenes"], check=True, env=environment, capture_output=True)
    assert contents(tmp_path / "scenes") == contents(folder)


def test_a_smaller_corpus_is_the_beginning_of_a_larger_one(folder, tmp_path):
    make_scenes(tmp_path / "scenes", {"train": 8}, seed=5, size=64, planted=SHARES)
    small, large = Corpus(tmp_path / "scenes"), Corpus(folder)
    few, many = small.split("train"), large.split("train")
    assert few.image_ids == many.image_ids[:8]
    assert few.texts == many.texts[: len(few.texts)]
    assert all(small.images.read(i) == large.images.read(i) for i in few.image_ids)
    for mine, theirs in zip(small.regions("truth").read(few.image_ids), large.regions("truth").read(few.image_ids), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("split", SIZES)
def test_the_folder_holds_the_scenes(folder, split):
    records, made = Corpus(folder).split(split), scene_images(split, SIZES[split], 5, SHARES)
    assert records.image_ids == tuple(image.id for image in made)
    assert records.texts == tuple(text for image in made for _, text in image.captions)
    kinds = [image.scene.things[0].kind for image in made]
    assert records.classes == tuple(f"{kind.colour} {kind.shape}" for kind in kinds)
    assert set(np.bincount(records.pairs[:, 0])) <= {3, 4, 5, 6, 7}
    assert (np.bincount(records.pairs[:, 1]) == 1).all()  # a caption lists its own image only


def test_planted_truth_is_read_back_and_names_real_ids(folder):
    planted, corpus = read_planted(folder), Corpus(folder)
    splits = [corpus.split(name) for name in SIZES]
    images = {image for split in splits for image in split.image_ids}
    owner = {split.text_ids[j]: split.image_ids[i] for split in splits for i, j in split.pairs}
    pairs = planted.near_duplicates + planted.swapped_attributes
    assert planted.near_duplicates
    assert planted.swapped_attributes
    assert {image for pair in pairs for image in pair} <= images
    assert all(a.split("-")[0] == b.split("-")[0] and a != b for a, b in pairs)
    assert planted.shared_captions
    for caption, others in planted.shared_captions.items():
        assert owner[caption] not in others
        assert set(others) <= images


def test_the_same_corpus_is_left_as_it_stands(folder):
    before = (folder / "corpus.json").stat().st_mtime_ns
    assert not make_scenes(folder, SIZES, seed=5, size=64, planted=SHARES)
    assert (folder / "corpus.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seed": 6}, "seed 5 there and 6 here"),
        ({"size": 96}, "size 64 there and 96 here"),
        ({"planted": Shares()}, "near_duplicates 0.2 there and 0.04 here"),
        ({"images": {"train": 61}}, "images .* there and .*61.* here"),
    ],
)
def test_another_corpus_in_the_folder_is_an_error(folder, options, words):
    with pytest.raises(CorpusError, match=words):
        make_scenes(folder, **{"images": SIZES, "seed": 5, "size": 64, "planted": SHARES, **options})


@pytest.mark.parametrize("options", [{"images": {}}, {"images": {"train": 0}}, {"seed": -1}, {"size": 8}])
def test_impossible_sizes_are_refused(tmp_path, options):
    with pytest.raises(CorpusError, match="at least 1 image a split, seed 0 and 32 pixels are needed"):
        make_scenes(tmp_path / "x", **{"images": {"train": 2}, **options})
    assert list(tmp_path.iterdir()) == []


def test_planted_truth_of_other_corpora_is_an_error(tmp_path):
    with pytest.raises(CorpusError, match="only corpora made by"):
        read_planted(tmp_path)
    (tmp_path / "planted.json").write_text('{"near_duplicates": []')
    with pytest.raises(CorpusError, match="cannot be read"):
        read_planted(tmp_path)
    (tmp_path / "planted.json").write_text('{"near_duplicates": []}')
    with pytest.raises(CorpusError, match="KeyError: 'shared_captions'"):
        read_planted(tmp_path)
