"""A text corpus against a collection: every line right, and the same bytes however often the work was killed and shared."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from real_processes import die, in_processes, killed

from corpora.corpus import Caption, Corpus, CorpusWriter, Split
from corpora.pieces import Part
from corpora.store import StoreError
from ranking import corpus_retrieval
from ranking.collection import Collection, open_collection
from ranking.corpus_retrieval import Found, Retrieval, read_retrieval, split_of
from ranking.evaluate import evaluate
from ranking.index_build import build_index
from ranking.index_changes import remove
from ranking.matrix import Axis, Provenance, Ranking, RankingError, Relevance
from ranking.vectors import Origin, Vectors, VectorsError, in_memory, read_vectors, write_vectors

TEXTS, IMAGES, PIECE, WIDTH = 45, 30, 8, 3
PIECES = -(-TEXTS // PIECE)
ORIGIN = Origin("made-up", "none", "", "test", weights="w")
RNG = np.random.default_rng(0)
ROWS = {"texts": RNG.integers(-2, 3, (TEXTS, WIDTH)), "images": RNG.integers(-2, 3, (IMAGES, WIDTH))}  # whole numbers: many ties


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch) -> None:
    monkeypatch.setattr(corpus_retrieval, "PIECE", PIECE)


def stored(folder: Path, kind: str, rows: np.ndarray | None = None, origin: Origin = ORIGIN) -> Vectors:
    rows = ROWS[kind] if rows is None else rows
    ids = [f"{kind[0]}{number}" for number in range(len(rows))]
    made = write_vectors(folder, in_memory(rows.astype(np.float32)), ids, replace(origin, kind=kind))
    assert made is not None
    return made


def split(own: list[list[int]]) -> Split:
    """Texts with images of their own, by number; some of them may be in no collection."""
    images = sorted({image for images in own for image in images})
    pairs = sorted((images.index(image), text) for text, some in enumerate(own) for image in some)
    ids = tuple(f"i{image}" for image in images), tuple(f"t{text}" for text in range(len(own)))
    texts = tuple(f'text {text} "ü"\u2028' for text in range(len(own)))
    return Split("test", ids[0], ("",) * len(images), ids[1], texts, np.array(pairs))


OWN = [sorted({int(i) for i in RNG.integers(IMAGES, size=1 + text % 3)}) for text in range(TEXTS)]


@pytest.fixture
def texts(tmp_path) -> Vectors:
    return stored(tmp_path / "vectors/texts", "texts")


@pytest.fixture
def collection(tmp_path) -> Collection:
    stored(tmp_path / "vectors/images", "images")
    return open_collection(tmp_path / "vectors/images")


@pytest.fixture
def retrieval(texts, collection, tmp_path) -> Callable[..., Retrieval]:
    def made(name: str = "found", **changes) -> Retrieval:
        given = {"split": split(OWN), "top": 5, **changes}
        return Retrieval(texts=texts, collection=collection, folder=tmp_path / name, **given)

    return made


@pytest.fixture
def whole(retrieval) -> dict[str, bytes]:
    """What one unbroken run makes."""
    assert retrieval("whole").run()
    return content(retrieval("whole").folder)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "retrieved.jsonl").read_bytes().split(b"\n")[:-1]]


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.parent.glob(f".{folder.name}*"))


# What the lines say


@pytest.mark.parametrize("top", [1, 5, 29, 30, 50])
def test_every_line_is_that_of_brute_force(retrieval, top):
    assert retrieval(top=top).run()
    found = lines(retrieval().folder)
    assert "ü".encode() in (retrieval().folder / "retrieved.jsonl").read_bytes()
    assert [line["id"] for line in found] == [f"t{text}" for text in range(TEXTS)]
    scores = ROWS["texts"] @ ROWS["images"].T
    for number, line in enumerate(found):
        assert line["text"] == f'text {number} "ü"\u2028'
        assert line["scores"] == sorted(scores[number].tolist(), reverse=True)[:top]
        places = [int(image[1:]) for image in line["images"]]
        assert scores[number][places].tolist() == line["scores"] and len(set(places)) == min(top, IMAGES)
        assert all(a < b for a, b, s, t in zip(places, places[1:], line["scores"], line["scores"][1:], strict=False) if s == t)


@pytest.mark.parametrize("top", [1, 3, 5, 10, 12])
@pytest.mark.parametrize("own", [OWN, [[text % IMAGES] for text in range(TEXTS)], [[0, 1, 2, 3, 4, 5, 6]] * TEXTS])
def test_recall_is_that_of_a_ranking_of_everything_ties_against_the_model(retrieval, top, own):
    assert retrieval(top=top, split=split(own)).run()
    relevant = Relevance.from_pairs(np.array([(t, i) for t, images in enumerate(own) for i in images]), TEXTS)
    axes = Axis("text", tuple(f"t{t}" for t in range(TEXTS))), Axis("image", tuple(f"i{i}" for i in range(IMAGES)))
    scores = (ROWS["texts"] @ ROWS["images"].T).astype(np.float32)
    best = np.array([max(scores[t, images]) for t, images in enumerate(own)])
    above = [sum(scores[t, i] >= best[t] for i in range(IMAGES) if i not in images) for t, images in enumerate(own)]
    expected = [1 + count if count < top else None for count in above]
    assert [line["rank"] for line in lines(retrieval().folder)] == expected
    statistics = read_retrieval(retrieval().folder)["statistics"]
    assert list(statistics["recall"]) == [f"R@{k}" for k in (1, 5, 10) if k <= top]
    ranking = Ranking(*axes, relevant, scores, Provenance("", "", "", "", "", ""))
    if all(any(t in images for images in own) for t in range(IMAGES)):  # evaluate counts both directions
        figures = evaluate(ranking)["figures"]["t2i"]
        for name, row in statistics["recall"].items():
            assert row["found"] == pytest.approx(figures[name])
    assert statistics["recall"]["R@1"]["found"] == pytest.approx(100 * np.mean([count == 0 for count in above]))


def test_statistics_are_counted_from_the_lines(retrieval):
    assert retrieval().run()
    found, statistics = lines(retrieval().folder), read_retrieval(retrieval().folder)["statistics"]
    first, every = Counter(line["images"][0] for line in found), Counter(i for line in found for i in line["images"])
    for name, counts in (("first", first), ("all", every)):
        assert statistics[name]["distinct"] == len(counts) and statistics[name]["max"] == max(counts.values())
        assert statistics[name]["coverage"] == pytest.approx(100 * len(counts) / IMAGES)
        assert statistics[name]["mean"] == pytest.approx(sum(counts.values()) / len(counts))
    assert [row["count"] for row in statistics["most_often"]] == sorted(every.values(), reverse=True)[:10]
    assert all(every[row["id"]] == row["count"] for row in statistics["most_often"])
    assert (statistics["texts"], statistics["images"], statistics["top"]) == (TEXTS, IMAGES, 5)
    assert statistics["recall"]["R@1"]["random"] == pytest.approx(100 * np.mean([len(images) / IMAGES for images in OWN]))


def test_texts_without_images_of_their_own(retrieval, capsys):
    some = [images if text else [99] for text, images in enumerate(OWN)]
    assert retrieval(split=split(some)).run()
    first, second, *_ = lines(retrieval().folder)
    assert "rank" not in first and "rank" in second
    statistics = read_retrieval(retrieval().folder)["statistics"]
    assert (statistics["recall"], statistics["own_images"]) == ({}, TEXTS - 1)
    assert retrieval("unknown", split=None).run()
    assert list(lines(retrieval("unknown").folder)[0]) == ["id", "images", "scores"]


def test_the_most_often_retrieved_are_those_that_were(collection, tmp_path):
    texts = stored(tmp_path / "alike", "texts", np.tile([1, 0, 0], (4, 1)))
    assert Retrieval(texts, None, collection, tmp_path / "found", 1).run()
    hub = f"i{int(np.argmax(ROWS['images'][:, 0]))}"
    assert read_retrieval(tmp_path / "found")["statistics"]["most_often"] == [{"id": hub, "count": 4}]


def test_a_model_that_was_trained_on_them_is_told(texts, collection, tmp_path):
    (tmp_path / "trained-on.txt").write_text("coco/3\ncoco/5\n")
    seen = replace(split([[0]] * TEXTS), sources=("coco/3",))
    trained = replace(texts, made_by=replace(texts.made_by, checkpoint=str(tmp_path)))
    assert Retrieval(trained, seen, collection, tmp_path / "found", 2).run()
    assert read_retrieval(tmp_path / "found")["statistics"]["leakage"] == "1 of the 1 images were trained on"


def test_own_images_that_the_collection_lacks(texts, tmp_path):
    other = write_vectors(
        tmp_path / "other", in_memory(ROWS["images"].astype(np.float32)), [f"x{i}" for i in range(IMAGES)], ORIGIN
    )
    assert other is not None
    assert Retrieval(texts, split(OWN), open_collection(tmp_path / "other"), tmp_path / "found", 2).run()
    assert "rank" not in lines(tmp_path / "found")[0]
    assert read_retrieval(tmp_path / "found")["statistics"]["own_images"] == 0


def test_scores_keep_every_digit_of_a_float32(texts, tmp_path):
    rows = np.random.default_rng(1).standard_normal((IMAGES, WIDTH))
    stored(tmp_path / "real", "images", rows)
    retrieval = Retrieval(texts, None, open_collection(tmp_path / "real"), tmp_path / "found", 3)
    assert retrieval.run()
    scores, _ = retrieval.collection.search(texts.rows[:PIECE], 3)
    assert np.array_equal(np.array([line["scores"] for line in lines(tmp_path / "found")[:PIECE]], np.float32), scores)
    assert all(len(str(score)) < 14 for line in lines(tmp_path / "found") for score in line["scores"])


# An index


@pytest.mark.parametrize("kind", ["Flat", "SQfp16", "IVF4,Flat"])
def test_an_index_finds_what_the_vectors_do(texts, tmp_path, whole, kind):
    build_index(tmp_path / "index", read_vectors(tmp_path / "vectors/images"), kind, shards=2)
    collection = open_collection(tmp_path / "index", "nprobe=4" if "IVF" in kind else "")
    assert Retrieval(texts, split(OWN), collection, tmp_path / "found", 5).run()
    assert [line["rank"] for line in lines(tmp_path / "found")] == [line["rank"] for line in lines(tmp_path / "whole")]
    assert [line["scores"] for line in lines(tmp_path / "found")] == [line["scores"] for line in lines(tmp_path / "whole")]


def test_items_that_were_taken_out_of_an_index_are_not_there(texts, collection, tmp_path):
    build_index(tmp_path / "index", read_vectors(tmp_path / "vectors/images"), "Flat", shards=2)
    remove(tmp_path / "index", ["i0", "i29"])
    index = open_collection(tmp_path / "index")
    assert index.size == IMAGES - 2 and index.held(["i0", "i1", "i29", "x"]) == {"i1"}
    assert collection.held(["i0", "i1", "i29", "x"]) == {"i0", "i1", "i29"}
    own = [[0]] + [[1, 29]] * (TEXTS - 1)
    assert Retrieval(texts, split(own), index, tmp_path / "found", 40).run()
    found = lines(tmp_path / "found")
    assert all(len(line["images"]) == IMAGES - 2 and not {"i0", "i29"} & {*line["images"]} for line in found)
    statistics = read_retrieval(tmp_path / "found")["statistics"]
    assert statistics["own_images"] == TEXTS - 1 and statistics["all"]["coverage"] == 100
    assert "rank" not in found[0] and found[1]["rank"] >= 1


def test_fewer_than_were_asked_for(texts, tmp_path):
    """An inverted file finds what is in the lists that it visits."""
    build_index(tmp_path / "index", stored(tmp_path / "vectors/images", "images"), "IVF4,Flat")
    collection = open_collection(tmp_path / "index", "nprobe=1")
    assert Retrieval(texts, split([[0]] * TEXTS), collection, tmp_path / "found", IMAGES).run()
    found = lines(tmp_path / "found")
    assert {line["rank"] is None for line in found} == {True, False}
    assert all((line["rank"] is None) == ("i0" not in line["images"]) for line in found)
    assert min(len(line["images"]) for line in found) < IMAGES
    assert all(len(line["images"]) == len(line["scores"]) == len({*line["images"]}) for line in found)
    counts = Counter(image for line in found for image in line["images"])
    assert read_retrieval(tmp_path / "found")["statistics"]["all"]["max"] == max(counts.values())


def test_recall_against_exact_search(texts, collection, tmp_path):
    vectors = read_vectors(tmp_path / "vectors/images")
    assert collection.recall(texts, vectors, 5) == 1
    build_index(tmp_path / "index", vectors, "IVF4,Flat")
    assert 0 < open_collection(tmp_path / "index", "nprobe=1").recall(texts, vectors, 20) < 1
    assert open_collection(tmp_path / "index", "nprobe=4").recall(texts, vectors, IMAGES) == 1
    remove(tmp_path / "index", ["i0"])
    for other in (open_collection(tmp_path / "index"), open_collection(tmp_path / "vectors/texts")):
        with pytest.raises(VectorsError, match="recall would be wrong"):
            other.recall(texts, vectors, 5)


# Killed, shared, repeated


def dies(moment: str, monkeypatch) -> Callable[[], None]:
    """Have this process killed at a moment of the work."""
    write, join = Found.write, Retrieval._write_lines

    def third(self: Found, path: Path) -> None:
        write(self, path)
        if len(list(path.parent.glob("00000?"))) == 3:
            os.truncate(path, 99)
            die()

    def joined(self: Retrieval, path: Path, pieces: object) -> dict:
        join(self, path, pieces)
        return die()

    return {
        "in the middle of a piece": lambda: monkeypatch.setattr(Found, "write", third),
        "while it joins": lambda: monkeypatch.setattr(Retrieval, "_write_lines", joined),
        "at the very end": lambda: monkeypatch.setattr("corpora.pieces.Pieces.remove", lambda _: die()),
    }[moment]


@pytest.mark.parametrize("moment", ["in the middle of a piece", "while it joins", "at the very end"])
def test_killed_it_goes_on_and_makes_the_same_bytes(retrieval, whole, monkeypatch, moment):
    work, plan = retrieval(), dies(moment, monkeypatch)

    def start() -> None:
        plan()
        work.run()

    killed(start)
    assert left(work.folder) == [".found.pieces"]
    assert work.folder.exists() == (moment == "at the very end")
    searched = []
    again = replace(
        work, collection=replace(work.collection, search=lambda *given: searched.append(1) or work.collection.search(*given))
    )
    assert again.run()
    assert len(searched) == (PIECES - 3 if moment == "in the middle of a piece" else 0)
    assert content(work.folder) == whole and left(work.folder) == []


@pytest.mark.parametrize("parts", [2, 3, 20])
def test_parts_give_the_same_bytes(retrieval, whole, parts):
    done = [retrieval(part=Part(number, parts)).run() for number in range(parts, 0, -1)]
    assert done == [False] * (parts - 1) + [True]
    assert content(retrieval().folder) == whole and left(retrieval().folder) == []


def test_processes_share_the_parts_of_jobs(retrieval, whole):
    def job(number: int) -> Callable[[], None]:
        return lambda: retrieval(part=Part(number, 2), rank=int(os.environ["RANK"]), size=2).run() and None

    assert in_processes(2, job(2)) == [0, 0]
    assert len(list(retrieval().folder.with_name(".found.pieces").glob("00000?"))) == PIECES // 2
    assert in_processes(2, job(1)) == [0, 0]
    assert content(retrieval().folder) == whole and left(retrieval().folder) == []


def test_what_stands_is_left_alone_and_another_retrieval_is_refused(retrieval, collection, whole, tmp_path):
    def nothing(*_: object) -> None:
        raise AssertionError("searched again")

    assert retrieval("whole").run()
    assert replace(retrieval("whole"), collection=replace(collection, search=nothing)).run()
    with pytest.raises(RankingError, match="whole: holds a retrieval of other top; remove it or choose another"):
        retrieval("whole", top=4).run()
    build_index(tmp_path / "index", read_vectors(tmp_path / "vectors/images"), "IVF4,Flat")
    near, far = (
        replace(retrieval("found by index"), collection=open_collection(tmp_path / "index", f"nprobe={n}")) for n in (1, 2)
    )
    assert near.run()
    with pytest.raises(RankingError, match="by index: holds a retrieval of other images"):
        far.run()
    retrieval(part=Part(1, 2)).run()
    with pytest.raises(StoreError, match="begun with other options"):
        retrieval(part=Part(2, 2), top=4).run()


def test_a_damaged_piece_is_removed_and_made_again(retrieval, whole):
    work = retrieval()
    retrieval(part=Part(1, 2)).run()
    piece = work.folder.with_name(".found.pieces") / "000002"
    harmed = bytearray(piece.read_bytes())
    harmed[200] ^= 1
    piece.write_bytes(harmed)
    with pytest.raises(RankingError, match="000002: was damaged after it was written and is removed; run again"):
        work.run()
    assert not work.folder.exists() and not piece.exists()
    assert work.run()
    assert content(work.folder) == whole


# What is refused


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"weights": "v"}, "queries have weights v and items w"),
        ({"model": "other"}, "queries have model other and items made-up"),
        ({"measure": "l2"}, "queries have measure l2 and items ip"),
        ({"kind": "images"}, "give those of texts"),
    ],
)
def test_vectors_that_cannot_be_compared(texts, collection, tmp_path, changes, told):
    with pytest.raises(RankingError, match=told):
        Retrieval(replace(texts, made_by=replace(texts.made_by, **changes)), None, collection, tmp_path / "found", 5)


def test_vectors_of_another_width(collection, tmp_path):
    with pytest.raises(RankingError, match="queries have dimension 2 and items 3"):
        Retrieval(stored(tmp_path / "narrow", "texts", ROWS["texts"][:, :2]), None, collection, tmp_path / "found", 5)


def test_scores_that_are_not_finite(texts, tmp_path):
    stored(tmp_path / "huge", "images", ROWS["images"] * 1e38)
    huge = replace(texts, rows=texts.rows * np.float32(1e30))
    with pytest.raises(RankingError, match="scores of texts 0 to 7 are not finite; encode again"):
        Retrieval(huge, None, open_collection(tmp_path / "huge"), tmp_path / "found", 5).run()
    assert not (tmp_path / "found").exists()


def test_what_is_no_collection(texts, collection, tmp_path):
    with pytest.raises(VectorsError, match="nothing: no vectors or index here"):
        open_collection(tmp_path / "nothing", "nprobe=3")
    with pytest.raises(VectorsError, match=r"--parameters nprobe=3: .* is searched exactly"):
        open_collection(tmp_path / "vectors/images", "nprobe=3")
    (tmp_path / "found").mkdir()
    with pytest.raises(RankingError, match="found: no whole retrieval"):
        Retrieval(texts, None, collection, tmp_path / "found", 5).run()


def test_the_split_is_the_one_that_was_encoded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in (("reddit", "a"), ("other", "b")):
        with CorpusWriter(Path(name)) as corpus:
            corpus.captions.append(Caption("1", text, split="test"))
    digest = Corpus("reddit").split("test").digest
    texts = stored(tmp_path / "one", "texts", ROWS["texts"][:1], replace(ORIGIN, corpus="reddit", digest=digest))
    found = split_of(texts, None)
    assert found is not None and found.texts == ("a",)
    assert split_of(replace(texts, made_by=replace(texts.made_by, corpus="")), None) is None
    with pytest.raises(RankingError, match="other: split test is not the one that was encoded"):
        split_of(texts, Path("other"))
    Path("reddit").rename("moved")
    with pytest.raises(RankingError, match=r"reddit: the texts were encoded from this corpus, .* --corpus"):
        split_of(texts, None)
    assert split_of(texts, Path("moved")) is not None
