"""Searching an index folder: brute force agrees, nothing is copied, damage is one clear error."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import faiss
import numpy as np
import pytest
from collections_made_up import COUNT, QUERIES, ROWS, TOP, TYPES, WIDTH, all_of, best, built, collection, scores
from hypothesis import given, settings
from hypothesis import strategies as st

from ranking.index import SearchIndexError, exact_search, merged, read_index, recall, scores_of
from ranking.index_build import build_index
from ranking.index_changes import remove
from ranking.vectors import Vectors

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("measure", ["ip", "l2"])
@pytest.mark.parametrize("shards", [1, 3])
def test_flat_is_brute_force(tmp_path, measure, shards):
    truth = scores(ROWS, measure)
    found, places = built(tmp_path / "index", "Flat", measure, shards).search(QUERIES, TOP)
    assert np.array_equal(places, best(truth)) and places.dtype == np.int64 and found.dtype == np.float32
    np.testing.assert_allclose(found, np.take_along_axis(truth, places, 1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("measure", ["ip", "l2"])
@pytest.mark.parametrize("kind", TYPES)
def test_every_type_finds_most(tmp_path, measure, kind):
    index = built(tmp_path / "index", kind, measure, 2)
    found, places = index.search(QUERIES, TOP)
    floor = {"IVF8,PQ8x4": 0.4, "PCA12,IVF8,Flat": 0.4, "SQ8": 0.93}.get(kind, 0.99)
    assert recall(places, best(scores(ROWS, measure))) >= floor
    assert (np.diff(found, axis=1) <= 0).all() and len(index) == COUNT
    assert all(len(set(row)) == TOP for row in places)


def test_a_wider_search_finds_more(tmp_path):
    built(tmp_path / "index", "IVF8,Flat")
    truth = best(scores(ROWS, "ip"))
    found = [recall(read_index(tmp_path / "index", f"nprobe={lists}").search(QUERIES, TOP)[1], truth) for lists in (1, 3, 8)]
    assert found[0] < found[1] < found[2] == 1
    assert np.array_equal(*(read_index(tmp_path / "index", text).search(QUERIES, TOP)[1] for text in ("", "nprobe=1")))


def test_defaults_are_wider_than_those_of_faiss(tmp_path):
    build_index(tmp_path / "hnsw", collection(), "HNSW16")
    assert faiss.downcast_index(read_index(tmp_path / "hnsw").shards[0].index).hnsw.efSearch == 128
    build_index(tmp_path / "pca", collection(), "PCA12,HNSW16")
    assert faiss.downcast_index(read_index(tmp_path / "pca").shards[0].index.index).hnsw.efSearch == 128
    build_index(tmp_path / "ivf", collection(), "PCA12,IVF48,Flat")
    assert faiss.extract_index_ivf(read_index(tmp_path / "ivf").shards[0].index).nprobe == 3


def test_fewer_items_than_neighbours(tmp_path):
    build_index(tmp_path / "index", collection(count=5), "Flat", 2)
    found, places = read_index(tmp_path / "index").search(QUERIES, TOP)
    assert (np.sort(places, 1) == [[-1, -1, 0, 1, 2, 3, 4]]).all()
    assert (places[:, 5:] == -1).all() and (found[:, 5:] == -np.inf).all() and np.isfinite(found[:, :5]).all()


@pytest.mark.parametrize("measure", ["ip", "l2"])
def test_exact_search_is_brute_force_by_blocks(measure, monkeypatch):
    monkeypatch.setattr("ranking.index.ROWS_AT_ONCE", 100)
    halves = Vectors(collection().ids, ROWS.astype(np.float16), collection(measure).made_by)
    for vectors in (collection(measure), halves):
        truth = scores(vectors.rows, measure)
        found, places = exact_search(vectors, QUERIES, TOP)
        assert np.array_equal(places, best(truth))
        np.testing.assert_allclose(found, np.take_along_axis(truth, places, 1), rtol=1e-3, atol=1e-3)
    few = collection(measure, count=3)
    assert (exact_search(few, QUERIES, TOP)[1][:, 3:] == -1).all()
    assert (exact_search(few, QUERIES, TOP)[0][:, 3:] == -np.inf).all()


def test_recall_by_hand():
    exact = np.array([[1, 2, 3], [4, 5, -1]])
    assert recall(np.array([[3, 2, 1], [5, 4, -1]]), exact) == 1
    assert recall(np.array([[3, 9, 8], [4, -1, -1]]), exact) == 2 / 5
    assert recall(np.array([[-1, -1, -1], [-1, -1, -1]]), exact) == 0


@given(st.integers(0, 2**32 - 1), st.sampled_from(["ip", "l2"]), st.integers(1, 4), st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_merging_shards_is_sorting_all(seed, measure, shards, k):
    """Values at random, some places empty; the oracle sorts."""
    random = np.random.default_rng(seed)
    found = []
    for shard in range(shards):
        there = random.integers(0, k + 1)
        values = np.sort(random.permutation(1000)[: 2 * there].reshape(2, there) + shard / 10.0, 1)
        values = values[:, ::-1] if measure == "ip" else values
        empty = np.finfo(np.float32).max * (-1 if measure == "ip" else 1)
        padded = np.pad(values, ((0, 0), (0, k - there)), constant_values=empty).astype(np.float32)
        places = np.pad(
            random.permutation(50)[: 2 * there].reshape(2, there) + 100 * shard, ((0, 0), (0, k - there)), constant_values=-1
        )
        found.append((padded, places))
    values, places = merged(found, measure)
    sign = -1 if measure == "ip" else 1
    for query in range(2):
        every = [(sign * v, p) for vs, ps in found for v, p in zip(vs[query], ps[query], strict=True) if p >= 0]
        want = [p for _, p in sorted(every)[:k]]
        assert places[query].tolist() == want + [-1] * (k - len(want))
    assert (scores_of(values, places, measure)[places < 0] == -np.inf).all()


# Cold and mapped


def test_opening_copies_nothing(tmp_path):
    """40 MB of vectors are opened and searched; the process's own memory grows by less than 4 MB."""
    rows = np.random.default_rng(0).standard_normal((40_000, 256), np.float32)
    for kind in ("Flat", "IVF16,Flat", "SQfp16"):
        vectors = Vectors([str(n) for n in range(len(rows))], rows, collection().made_by, "d")
        build_index(tmp_path / kind, vectors, kind)
    code = """if True:
        import sys, numpy as np
        from ranking.index import read_index
        def own(): return next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("RssAnon:")) / 1024
        query, before = np.ones((1, 256), np.float32), own()
        indexes = [read_index(path) for path in sys.argv[1:]]
        for index in indexes: index.search(query, 10)
        print(own() - before)"""
    command = [sys.executable, "-c", code, *(str(path) for path in tmp_path.iterdir())]
    grown = float(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    assert grown < 4


def test_faiss_and_torch_in_one_process_with_threads(tmp_path):
    """Both bring an OpenMP of their own; in either order of import they give what each gives alone."""
    built(tmp_path / "index")
    np.save(tmp_path / "queries.npy", QUERIES)
    code = """if True:
        import sys
        for name in sys.argv[1].split(): __import__(name)
        import faiss, numpy as np, torch
        from ranking.index import read_index
        torch.set_num_threads(2); faiss.omp_set_num_threads(2)
        queries = np.load(sys.argv[3])
        for _ in range(3):
            places = read_index(sys.argv[2]).search(queries, 7)[1]
            product = (torch.ones(300, 300) @ torch.ones(300, 300)).sum().item()
        print(product, places.ravel().tolist())"""
    want = f"{300**3 * 1.0} {best(scores(ROWS, 'ip')).ravel().tolist()}"
    for order in ("torch faiss", "faiss torch"):
        command = [sys.executable, "-c", code, order, str(tmp_path / "index"), str(tmp_path / "queries.npy")]
        assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip() == want


# What is refused


def test_queries_that_do_not_fit(tmp_path):
    index = built(tmp_path / "index")
    for rows, k in ((QUERIES[:, :5], TOP), (QUERIES[0], TOP), (QUERIES, 0)):
        with pytest.raises(SearchIndexError, match=f"holds vectors of {WIDTH}"):
            index.search(rows, k)
    bad = QUERIES.copy()
    bad[3, 2] = np.nan
    with pytest.raises(SearchIndexError, match="query 3 of 40 is not finite"):
        index.search(bad, TOP)
    with pytest.raises(SearchIndexError, match="no such parameters: 'nprobe=3'"):
        read_index(tmp_path / "index", "nprobe=3")


def test_damaged_folders_are_one_clear_error(tmp_path):
    folder = tmp_path / "index"
    with pytest.raises(SearchIndexError, match=r"no index here$"):
        read_index(folder)
    built(folder, shards=2)
    for path in [folder / "index.json", *(folder / "shards" / "000001").iterdir()]:
        whole = path.read_bytes()
        for damaged in (whole[: len(whole) // 2], b""):
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match=r"index|ids.arrow"):
                read_index(folder)
        path.unlink()
        with pytest.raises(ValueError, match=path.stem):
            read_index(folder)
        path.write_bytes(whole)
    info = json.loads((folder / "index.json").read_text())
    for change in ({"schema": 9}, {"dimension": 5}, {"shards": [{"name": "000000", "count": 299}]}, {"shards": [{"count": 3}]}):
        (folder / "index.json").write_text(json.dumps({**info, **change}))
        with pytest.raises(SearchIndexError, match=r"schema 1|expected|whole"):
            read_index(folder)


def test_what_goes_to_a_gpu(tmp_path, monkeypatch):
    """Without a GPU: a copy in its place. It has the parameters; many neighbours and removed items are for the CPU."""
    copies = []

    def copied(index, device):
        copies.append((device, faiss.deserialize_index(faiss.serialize_index(index))))
        return copies[-1][1]

    monkeypatch.setattr("ranking.index._on_gpu", copied)
    monkeypatch.setattr("ranking.index.MOST_ON_GPU", 10)
    built(tmp_path / "index", "IVF8,Flat")
    index = read_index(tmp_path / "index", "nprobe=5", device=3)
    assert [(device, faiss.extract_index_ivf(copy).nprobe) for device, copy in copies] == [(3, 5)]
    want = read_index(tmp_path / "index", "nprobe=5").search(QUERIES, 10)[1]
    assert np.array_equal(index.search(QUERIES, 10)[1], want)
    copies[0][1].reset()
    assert (index.search(QUERIES, 10)[1] == -1).all() and (index.search(QUERIES, 11)[1][:, :10] == want).all()
    remove(tmp_path / "index", ["item-3"])
    assert read_index(tmp_path / "index", device=3).shards[0].on_gpu is None


@pytest.mark.skipif(not faiss.get_num_gpus(), reason="no GPU, or faiss-cpu")
@pytest.mark.parametrize("kind", ["Flat", "IVF8,Flat", "HNSW16"])
def test_a_gpu_finds_the_same(tmp_path, kind):
    built(tmp_path / "index", kind)
    found, places = read_index(tmp_path / "index", all_of(kind), device=0).search(QUERIES, TOP)
    here, there = read_index(tmp_path / "index", all_of(kind)).search(QUERIES, TOP)
    assert (places == there).mean() > 0.99
    np.testing.assert_allclose(found, here, rtol=1e-3, atol=1e-3)
