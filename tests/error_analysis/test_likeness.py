from __future__ import annotations

import io
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from imagehash import phash
from PIL import Image, ImageDraw
from rapidfuzz import fuzz

from corpora.images import ImageStore, write_images
from corpora.store import StoreError
from error_analysis.language import words_of
from error_analysis.likeness import COLUMNS, FUZZY, SHARED_WORDS, Pairs, alike_columns, alike_texts, look_alikes, looks, normal
from ranking.matrix import Axis, Provenance, Ranking, Relevance


def encoded(picture: Image.Image, quality: int = 90) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return file.getvalue()


def drawn(seed: int, left: str = "red", right: str = "blue") -> Image.Image:
    """A square and a circle on grey, where the seed puts them."""
    x, y = np.random.default_rng(seed).integers(10, 60, 2).tolist()
    picture = Image.new("RGB", (160, 120), (128, 128, 128))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((x, y, x + 30, y + 40), fill=left)
    draw.ellipse((100, 10 + y, 140, 50 + y), fill=right)
    return picture


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    first = drawn(0)
    pictures = {
        "first": encoded(first),
        "again": encoded(first, quality=40),
        "smaller": encoded(first.resize((120, 90))),
        "colours exchanged": encoded(drawn(0, "blue", "red")),
        "another": encoded(drawn(1)),
    }
    write_images(tmp_path / "images.h5", pictures.items())
    return ImageStore(tmp_path / "images.h5")


def test_the_same_picture_is_known_again_and_exchanged_colours_are_another(store: ImageStore):
    found = look_alikes(looks(store, store.ids))
    assert {(store.ids[a], store.ids[b]) for a, b in found.pairs.tolist()} == set(combinations(("first", "again", "smaller"), 2))
    assert found.values.tolist() == sorted(found.values.tolist())
    assert found.of == {0: {1, 2}, 1: {0, 2}, 2: {0, 1}}


def test_hashes_are_those_of_imagehash_and_sizes_those_of_the_files(store: ImageStore):
    seen = looks(store, ["smaller", "another"])
    for number, key in enumerate(("smaller", "another")):
        bits = phash(store.picture(key)).hash.ravel()  # these are too small to be decoded at a lower resolution
        assert int(seen.hashes[number]) == int("".join(str(int(bit)) for bit in bits), 2)
    assert seen.sizes.tolist() == [[120, 90], [160, 120]]


def test_pictures_of_two_splits(store: ImageStore):
    found = look_alikes(looks(store, ["another", "smaller"]), looks(store, ["colours exchanged", "first"]))
    assert found.pairs.tolist() == [[1, 1]]


def test_no_images(store: ImageStore):
    assert look_alikes(looks(store, [])).of == {}


def test_a_damaged_picture_is_named(tmp_path: Path):
    write_images(tmp_path / "images.h5", [("broken", b"\xff\xd8no picture")])
    with pytest.raises(StoreError, match="'broken' cannot be decoded"):
        looks(ImageStore(tmp_path / "images.h5"), ["broken"])


def test_captions_of_the_same_words_and_nearly_the_same_letters():
    texts = [
        "A dog runs on the grass.",
        "a cat sleeps on the red sofa",
        "a dog runs on the grass",
        "a dog runs on the gras",
        "a bird",
        "...",
        "!",
    ]
    found = alike_texts(texts)
    assert found.pairs.tolist() == [[0, 2], [0, 3], [2, 3]]
    assert found.values[0] == 100
    assert found.values[1:] == pytest.approx(fuzz.ratio("a dog runs on the grass", "a dog runs on the gras"))


def test_normal():
    assert normal("A Dog, running!") == "a dog running"


def test_alike_texts_are_those_of_every_pair_compared():
    rng = np.random.default_rng(0)
    words = words_of("dog cat man woman ball red blue grass park bench tree runs sits on the a with under near two")
    texts = [" ".join(rng.choice(words, rng.integers(4, 9))) for _ in range(60)]
    texts += [text.replace("e", "ee", 1) for text in texts[:30]] + [f"{text} a" for text in texts[:30]]
    found = alike_texts(texts)
    brute = {(a, b) for a, b in combinations(range(len(texts)), 2) if fuzz.ratio(texts[a], texts[b]) >= FUZZY}
    shared = {(a, b): len(set(texts[a].split()) & set(texts[b].split())) for a, b in brute}
    most = {(a, b): max(len(set(texts[i].split())) for i in (a, b)) for a, b in brute}
    assert set(map(tuple, found.pairs.tolist())) == {pair for pair in brute if shared[pair] >= SHARED_WORDS * most[pair]}
    assert len(brute) > len(found.pairs) > 30


def ranking(scores: np.ndarray) -> Ranking:
    queries, items = scores.shape
    return Ranking(
        Axis("text", tuple(f"t{i}" for i in range(queries))),
        Axis("image", tuple(f"i{i}" for i in range(items))),
        Relevance.from_pairs(np.array([(q, q % items) for q in range(queries)]), queries),
        scores.astype(np.float32),
        Provenance("made up", "none", "", "val", "", ""),
    )


def test_columns_that_agree():
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 1, (600, 40))
    scores[:, 7] = scores[:, 3] + rng.normal(0, 0.05, 600)
    scores[:, 9] = 2 * scores[:, 8] + 5
    scores += 30 * rng.normal(0, 1, (600, 1))  # a query's own level says nothing of its items
    found = alike_columns(ranking(scores))
    assert set(map(tuple, found.pairs.tolist())) == {(3, 7), (8, 9)}
    centred = scores - scores.mean(axis=1, keepdims=True)
    for (a, b), value in zip(found.pairs.tolist(), found.values.tolist(), strict=True):
        assert value == pytest.approx(np.corrcoef(centred[:, a], centred[:, b])[0, 1], abs=0.01)
    assert (np.diff(found.values) <= 0).all()
    assert found.values.min() >= COLUMNS


def test_correlations_are_those_of_numpy_on_average():
    """Of items with all sorts of correlations, by a threshold low enough to see them."""
    rng = np.random.default_rng(1)
    base = rng.normal(0, 1, 400)
    scores = np.stack(
        [share * base + np.sqrt(1 - share**2) * rng.normal(0, 1, 400) for share in np.linspace(0.97, 1, 12)], axis=1
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("error_analysis.likeness.COLUMNS", -2.0)
        found = alike_columns(ranking(np.concatenate([scores, -scores], axis=1)))
    whole = np.concatenate([scores, -scores], axis=1)
    exact = np.corrcoef(whole - whole.mean(axis=1, keepdims=True), rowvar=False)
    difference = np.array(
        [value - exact[a, b] for (a, b), value in zip(found.pairs.tolist(), found.values.tolist(), strict=True)]
    )
    assert len(difference) == 24 * 23 / 2
    assert np.abs(difference).max() < 0.05


def test_constant_scores_agree_with_nothing():
    assert alike_columns(ranking(np.ones((20, 5)))).of == {}


def test_pairs_as_rows():
    assert list(Pairs(np.array([[0, 2]]), np.array([1.5])).rows()) == [(0, 2, 1.5)]
    assert list(Pairs(np.empty((0, 2), np.int64), np.empty(0)).rows()) == []


def test_the_other_direction_reads_the_same_columns():
    rng = np.random.default_rng(2)
    scores = rng.normal(0, 1, (300, 10))
    scores[:, 4] = scores[:, 2]
    one = ranking(scores)
    assert alike_columns(one).pairs.tolist() == [[2, 4]]
    assert alike_columns(one.T).of == {}
