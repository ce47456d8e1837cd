from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from ranking.matrix import (
    ROWS_AT_ONCE,
    Axis,
    Provenance,
    Ranking,
    RankingError,
    Relevance,
    config_json,
    read_ranking,
    write_ranking,
)

LARGE = ROWS_AT_ONCE + 44
"""More images than one block; with two captions each, both directions need several blocks."""


def whole(ranking: Ranking) -> np.ndarray:
    return np.concatenate([block for _, block in ranking.blocks()])


def test_round_trip(captioned, tmp_path):
    ranking = captioned(LARGE, 2)
    path = tmp_path / "ranking.h5"
    write_ranking(path, ranking)
    back = read_ranking(path)
    np.testing.assert_array_equal(whole(back), ranking.scores)
    assert (back.queries, back.items, back.provenance) == (ranking.queries, ranking.items, ranking.provenance)
    np.testing.assert_array_equal(back.relevant.pairs(), ranking.relevant.pairs())
    assert list(tmp_path.iterdir()) == [path]


def test_other_direction(captioned, tmp_path):
    ranking = captioned(LARGE, 2)
    write_ranking(tmp_path / "ranking.h5", ranking)
    for texts in (ranking.T, read_ranking(tmp_path / "ranking.h5").T):
        assert (texts.queries.kind, texts.items.kind) == ("text", "image")
        assert [first for first, _ in texts.blocks()] == [0, ROWS_AT_ONCE, 2 * ROWS_AT_ONCE]
        np.testing.assert_array_equal(whole(texts), ranking.scores.T)
        np.testing.assert_array_equal(texts.rows(7, 9), ranking.scores.T[7:9])
        np.testing.assert_array_equal(texts.relevant.indices, np.arange(2 * LARGE) // 2)
        np.testing.assert_array_equal(whole(texts.T), ranking.scores)
        assert texts.rows(0, 2).flags.c_contiguous


def test_by_names_the_direction(ranking_of):
    texts = ranking_of([[1, 2, 3]], [[0]], ("text", "image"))
    assert texts.by("text") is texts
    assert texts.by("image").queries.ids == ("i0", "i1", "i2")
    with pytest.raises(RankingError, match="no text axis: this ranking has image queries and image items"):
        ranking_of([[1]], [[0]], ("image", "image")).by("text")


@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (700, 1)])
def test_thin_matrices(ranking_of, tmp_path, shape):
    ranking = ranking_of(np.arange(shape[0] * shape[1]).reshape(shape), [[0]] * shape[0])
    write_ranking(tmp_path / "ranking.h5", ranking)
    back = read_ranking(tmp_path / "ranking.h5")
    np.testing.assert_array_equal(whole(back), ranking.scores)
    np.testing.assert_array_equal(whole(back.T), ranking.scores.T)


def test_scores_become_float32(ranking_of):
    assert ranking_of([[1, 2]], [[0]], dtype=np.int64).rows(0, 1).dtype == np.float32
    extreme = [[np.finfo(np.float32).max, np.finfo(np.float32).min, -0.0]]
    np.testing.assert_array_equal(ranking_of(extreme, [[0]], dtype=np.float64).rows(0, 1), extreme)
    with pytest.raises(RankingError, match="inf for query 'i0' and item 't1'"):
        ranking_of([[1.0, 1e39]], [[0]], dtype=np.float64).rows(0, 1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite(ranking_of, tmp_path, value):
    scores = np.zeros((300, 3), np.float32)
    scores[290, 2] = value
    ranking = ranking_of(scores, [[0]] * 300)
    path = tmp_path / "ranking.h5"
    write_ranking(path, ranking_of([[1]], [[0]]))
    before = path.read_bytes()
    with pytest.raises(RankingError, match=rf"1 of 132 scores are not finite, the first {value} for query 'i290' and item 't2'"):
        write_ranking(path, ranking)
    assert path.read_bytes() == before, "a failed write must leave the old file"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(RankingError, match="query 't2' and item 'i290'"):
        whole(ranking.T)


def test_select_keeps_this_order(captioned):
    ranking = captioned(LARGE, 2)
    images, texts = [0, 1, ROWS_AT_ONCE - 1, ROWS_AT_ONCE, LARGE - 1], [1, 2, 3, 2 * LARGE - 1]
    part = ranking.select([f"i{i}" for i in images[::-1]], [f"t{i}" for i in texts])
    assert part.queries.ids == tuple(f"i{i}" for i in images)
    np.testing.assert_array_equal(part.scores, ranking.scores[np.ix_(images, texts)])
    np.testing.assert_array_equal(part.relevant.pairs(), [[0, 0], [1, 1], [1, 2], [4, 3]])
    turned = ranking.T.select([f"t{i}" for i in texts], [f"i{i}" for i in images])
    np.testing.assert_array_equal(turned.scores, part.scores.T)
    np.testing.assert_array_equal(turned.relevant.pairs(), part.T.relevant.pairs())


def test_select_refuses(captioned):
    ranking = captioned(3, 2)
    with pytest.raises(RankingError, match="no image 'i3' in this ranking of 3"):
        ranking.select(["i0", "i3"], ["t0"])
    with pytest.raises(RankingError, match="text axis: id 't1' stands there more than once"):
        ranking.select(["i0"], ["t1", "t0", "t1"])
    with pytest.raises(RankingError, match="text axis: no ids"):
        ranking.select(["i0"], [])


def test_provenance_of_any_length(ranking_of, tmp_path):
    made = Provenance("modèle", "runs/x", "scenes", "test", "", "cosine", config='{"a": "' + "x" * 200_000 + '"}', revision="abc")
    write_ranking(tmp_path / "ranking.h5", replace(ranking_of([[1]], [[0]]), provenance=made))
    assert read_ranking(tmp_path / "ranking.h5").provenance == made


def test_bytes_depend_on_content_alone(captioned, tmp_path):
    ranking = captioned(LARGE, 2)
    turned = replace(ranking, scores=ranking.scores.T.copy(), transposed=True)
    for name, same in (("a", ranking), ("b", turned), ("c", replace(ranking, scores=ranking.scores.astype(np.float64)))):
        write_ranking(tmp_path / name, same)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes()
    write_ranking(tmp_path / "d", replace(ranking, scores=ranking.scores + 1))
    assert (tmp_path / "a").read_bytes() != (tmp_path / "d").read_bytes()


def test_ids_in_any_script(ranking_of, tmp_path):
    ids = ("猫", "a b\n", "é", "e\u0301", "", "1")
    ranking = replace(ranking_of([range(6)], [[0]]), items=Axis("text", ids))
    write_ranking(tmp_path / "ranking.h5", ranking)
    assert read_ranking(tmp_path / "ranking.h5").items.ids == ids


def test_truncated_anywhere(captioned, tmp_path):
    path = tmp_path / "ranking.h5"
    write_ranking(path, captioned(20, 2))
    content = path.read_bytes()
    for length in (0, 1, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(RankingError, match=r"ranking\.h5: not a whole ranking file .*rank again"):
            read_ranking(path)


def test_damaged_scores(captioned, tmp_path):
    path = tmp_path / "ranking.h5"
    ranking = captioned(20, 2)
    write_ranking(path, ranking)
    content = bytearray(path.read_bytes())
    content[content.index(ranking.scores[7].tobytes()) + 5] ^= 1
    path.write_bytes(content)
    with pytest.raises(RankingError, match=r"ranking\.h5: scores are damaged"):
        read_ranking(path).rows(7, 8)


def test_missing_or_half_done(tmp_path):
    path = tmp_path / "ranking.h5"
    with pytest.raises(RankingError, match=r"ranking\.h5: no such ranking file"):
        read_ranking(path)
    (tmp_path / "ranking.h5.writing").write_bytes(b"left by a killed job")
    with pytest.raises(RankingError, match="no such ranking file"):
        read_ranking(path)
    blocks = tmp_path / "ranking.h5.part"
    blocks.mkdir()
    np.save(blocks / "0.npy", np.zeros(1))
    with pytest.raises(RankingError, match=r"only half done \(1 blocks stand in ranking\.h5\.part\); run its job again"):
        read_ranking(str(path))


def test_other_files(captioned, tmp_path):
    path = tmp_path / "ranking.h5"
    path.write_text("{}")
    with pytest.raises(RankingError, match="not a whole ranking file"):
        read_ranking(path)
    with pytest.raises(RankingError, match="not a whole ranking file"):
        read_ranking(tmp_path)
    write_ranking(path, captioned(2, 2))
    with h5py.File(path, "a") as file:
        file["relevant/indices"][:] = [0, 1, 2, 9]
    with pytest.raises(RankingError, match=r"ranking\.h5: relevance names items 0 to 9, there are 4"):
        read_ranking(path)
    with h5py.File(path, "a") as file:
        del file["items"]
    with pytest.raises(RankingError, match="not a whole ranking file"):
        read_ranking(path)
    with h5py.File(path, "a") as file:
        file.attrs["schema"] = 99
    with pytest.raises(RankingError, match="schema 99, this version reads 1"):
        read_ranking(path)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system cannot reserve space")
def test_full_disk(tmp_path):
    script = (
        "import resource, signal, sys; from pathlib import Path; import numpy as np; from ranking.matrix import *\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "axes = [Axis(kind, tuple(map(str, range(300)))) for kind in ('image', 'text')]; every = np.arange(300)\n"
        "relevant = Relevance(np.arange(301), every); made = Provenance('', '', '', '', '', '')\n"
        "write_ranking(Path(sys.argv[1]), Ranking(*axes, relevant, np.zeros((300, 300)), made))"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "ranking.h5")], capture_output=True, text=True)
    assert done.returncode == 1, "HDF5 by itself ends with a segmentation fault"
    assert "no room for 1 MB" in done.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "ids", "message"),
    [
        ("picture", ("a",), "axis kind 'picture': must be image or text"),
        ("image", (), "image axis: no ids"),
        ("image", ("a", "b", "a", "b"), "image axis: id 'a' stands there more than once"),
        ("text", ("a", 7), "text axis: id 7: must be a string"),
        ("text", ("a\0",), "must be a string without NUL"),
    ],
)
def test_axis_refuses(kind, ids, message):
    with pytest.raises(RankingError, match=message):
        Axis(kind, ids)


@pytest.mark.parametrize(
    ("indptr", "indices", "message"),
    [
        ([], [], "indptr must rise from 0"),
        ([1, 2], [0, 1], "indptr must rise from 0 to the number of pairs, 2"),
        ([0, 3], [0, 1], "indptr must rise"),
        ([0, 2, 1, 3], [0, 1, 2], "indptr must rise"),
        ([0, 2], [1, 1], "items of query 0 must ascend without repeats, item 1 does not"),
        ([0, 1, 3], [5, 2, 1], "items of query 1 must ascend without repeats, item 1 does not"),
    ],
)
def test_relevance_refuses(indptr, indices, message):
    with pytest.raises(RankingError, match=message):
        Relevance(np.array(indptr, np.int64), np.array(indices, np.int64))


def test_relevance_refuses_types():
    with pytest.raises(RankingError, match="indices is float64"):
        Relevance(np.array([0, 1]), np.array([0.0]))
    with pytest.raises(RankingError, match="relevance names queries -1 to 0, there are 2"):
        Relevance.from_pairs(np.array([[0, 0], [-1, 0]]), 2)


def test_relevance_pairs():
    relevance = Relevance.from_pairs(np.array([[2, 1], [0, 3], [2, 0]]), 4)
    np.testing.assert_array_equal(relevance.pairs(), [[0, 3], [2, 0], [2, 1]])
    assert [relevance.of(query).tolist() for query in range(4)] == [[3], [], [0, 1], []]
    np.testing.assert_array_equal(relevance.transposed(5).pairs(), [[0, 2], [1, 2], [3, 0]])
    assert len(Relevance.from_pairs(np.empty((0, 2), np.int64), 3).pairs()) == 0


@pytest.mark.parametrize("shape", [(3, 2), (2,), (2, 3, 1), (0, 3)])
def test_scores_must_fit_the_axes(shape):
    axes = Axis("image", ("a", "b")), Axis("text", ("c", "d", "e"))
    relevant = Relevance(np.array([0, 1, 2]), np.array([0, 1]))
    made = Provenance("", "", "", "", "", "")
    with pytest.raises(RankingError, match="do not fit 2 queries and 3 items"):
        Ranking(*axes, relevant, np.zeros(shape), made)
    with pytest.raises(RankingError, match="relevance of 1 queries does not fit 2"):
        Ranking(*axes, Relevance(np.array([0, 1]), np.array([0])), np.zeros((2, 3)), made)
    with pytest.raises(RankingError, match="relevance names items -1 to 1, there are 3"):
        Ranking(*axes, Relevance(np.array([0, 1, 2]), np.array([-1, 1])), np.zeros((2, 3)), made)


def test_config_json():
    @dataclass(frozen=True)
    class Config:
        corpus: Path = Path("data/scenes")
        batch: int = 8

    assert json.loads(config_json(Config())) == {"batch": 8, "corpus": "data/scenes"}
