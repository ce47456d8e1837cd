"""Building an index: in shards and parts, killed and gone on with, and never another index under the same name."""

from __future__ import annotations

import os

import faiss
import numpy as np
import pytest
from collections_made_up import QUERIES, TOP, built, collection, names
from real_processes import die, in_processes, killed, small_disk

from corpora.pieces import Part
from corpora.store import StoreError
from ranking.index import SearchIndexError, read_index
from ranking.index_build import build_index, empty_index, shard_rows
from ranking.vectors import Vectors


def test_rows_of_shards():
    assert shard_rows(10, 3) == [range(0, 3), range(3, 6), range(6, 10)]
    assert [row for some in shard_rows(601, 8) for row in some] == list(range(601))


@pytest.mark.parametrize("kind", ["Flat", "IVF8,PQ4x4"])
def test_parts_give_the_index_of_one_job(tmp_path, kind):
    whole = built(tmp_path / "whole", kind, shards=4)
    assert build_index(tmp_path / "parts", collection(), kind, 4, Part(3, 3)) is None
    with pytest.raises(SearchIndexError, match="not finished, run its job again"):
        read_index(tmp_path / "parts")
    assert build_index(tmp_path / "parts", collection(), kind, 4, Part(1, 3)) is None
    assert build_index(tmp_path / "parts", collection(), kind, 4, Part(2, 3)) == whole.info
    for path in (tmp_path / "whole").rglob("*"):
        other = tmp_path / "parts" / path.relative_to(tmp_path / "whole")
        assert path.is_dir() or path.read_bytes() == other.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parts", "whole"]


def test_shards_of_a_trained_type_find_what_one_finds(tmp_path):
    """All shards are trained alike, so where the whole of each is searched their number does not matter."""
    found = [built(tmp_path / str(shards), "IVF8,PQ4x4", shards=shards).search(QUERIES, TOP) for shards in (1, 5)]
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-4)


def test_killed_and_gone_on_with(tmp_path, monkeypatch):
    from ranking import index_build

    add, added = index_build.filled, []

    def dying(index, rows, some, supervisor):
        added.append(some)
        return die() if len(added) == 3 else add(index, rows, some, supervisor)

    with monkeypatch.context() as patch:
        patch.setattr(index_build, "filled", dying)
        killed(lambda: build_index(tmp_path / "index", collection(), "IVF8,Flat", 4))
    seen: list[range] = []
    monkeypatch.setattr(
        index_build, "filled", lambda index, rows, some, supervisor: seen.append(some) or add(index, rows, some, supervisor)
    )
    build_index(tmp_path / "index", collection(), "IVF8,Flat", 4)
    assert seen == shard_rows(600, 4)[2:]
    assert names(read_index(tmp_path / "index", "nprobe=8")) == names(built(tmp_path / "unbroken", "IVF8,Flat", shards=4))


def test_processes_that_start_at_once(tmp_path):
    """All train, one training counts, whoever ends last joins."""
    for number in range(3):
        folder = tmp_path / str(number)
        action = lambda folder=folder: build_index(folder, collection(), "IVF8,Flat", 2, Part(int(os.environ["RANK"]) + 1, 2))  # noqa: E731
        assert in_processes(2, action) == [0, 0]
        assert len(read_index(folder)) == 600


@pytest.mark.parametrize("moment", ["write_ids", "filled", "write_info"])
def test_another_part_is_faster(tmp_path, monkeypatch, moment):
    """It joins the shards, and removes them, while this one is at work."""
    from ranking import index_build

    there = getattr(index_build, moment)

    def overtaken(*given):
        monkeypatch.setattr(index_build, moment, there)
        assert build_index(tmp_path / "index", collection(), "IVF8,Flat", 2)
        return there(*given)

    monkeypatch.setattr(index_build, moment, overtaken)
    assert build_index(tmp_path / "index", collection(), "IVF8,Flat", 2)
    assert [path.name for path in tmp_path.iterdir()] == ["index"] and len(read_index(tmp_path / "index")) == 600


def test_blocks_of_rows_do_not_matter(tmp_path, monkeypatch):
    whole = names(built(tmp_path / "whole"))
    monkeypatch.setattr("ranking.index_build.ROWS_AT_ONCE", 7)
    assert names(built(tmp_path / "blocks", shards=3)) == whole


def test_halves_are_built_from_halves(tmp_path):
    halves = Vectors(collection().ids, collection().rows.astype(np.float16), collection().made_by, "halves")
    build_index(tmp_path / "index", halves, "SQfp16")
    _, places = read_index(tmp_path / "index").search(halves.rows[:50], 1)
    assert read_index(tmp_path / "index").shards[0].index.sa_code_size() == 32
    assert recalled(places) > 0.8  # by inner product a longer vector may win


def recalled(places: np.ndarray) -> float:
    return float((places[:, 0] == np.arange(len(places))).mean())


def test_training_sees_a_sample_of_all_rows(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("ranking.index_build.TRAINED_ON", 100)
    build_index(tmp_path / "index", collection(), "IVF2,Flat")
    assert "training on 128 of 600 vectors" in capfd.readouterr().out  # 64 a list
    centres = faiss.extract_index_ivf(faiss.read_index(str(tmp_path / "index" / "trained.faiss")))
    assert centres.is_trained and centres.ntotal == 0


def test_the_same_index_is_left_alone_and_another_refused(tmp_path):
    built(tmp_path / "index")
    before = (tmp_path / "index" / "index.json").stat().st_mtime_ns
    built(tmp_path / "index")
    assert (tmp_path / "index" / "index.json").stat().st_mtime_ns == before
    for vectors, kind in ((collection(), "SQ8"), (collection(seed=1), "Flat")):
        with pytest.raises(SearchIndexError, match="another type or of other vectors"):
            build_index(tmp_path / "index", vectors, kind)
    assert build_index(tmp_path / "other", collection(), "Flat", 2, Part(1, 2)) is None
    with pytest.raises(StoreError, match="begun with other options"):
        build_index(tmp_path / "other", collection(seed=1), "Flat", 2)


@pytest.mark.parametrize(
    "kind",
    ["nonsense", "IVF8", "Flat,IDMap", "IVF8,PQ3", "IDMap,Flat", "IVF8,PQ4x4,RFlat", "PQ4", "LSH", "", "NSG16", "IVF8,Flat\nx"],
)
def test_types_that_cannot_be_served(tmp_path, kind):
    with pytest.raises(SearchIndexError, match=r"index type .*(must be one of|faiss makes none)"):
        build_index(tmp_path / "index", collection(), kind)
    assert not list(tmp_path.iterdir())


def test_a_type_that_faiss_refuses_while_it_trains(tmp_path):
    with pytest.raises(SearchIndexError, match=r"index type 'OPQ8_12,IVF8,PQ4': faiss makes none for vectors of 16 \("):
        build_index(tmp_path / "index", collection(), "OPQ8_12,IVF8,PQ4")


def test_too_many_lists_or_shards(tmp_path):
    with pytest.raises(SearchIndexError, match="1024 lists for 600 vectors: faiss suggests about 97"):
        build_index(tmp_path / "index", collection(), "IVF1024,Flat")
    assert build_index(tmp_path / "index", collection(), "IVF8,Flat") is not None  # nothing of the refused one stands in its way
    for shards in (0, 601):
        with pytest.raises(SearchIndexError, match=f"{shards} shards of 600"):
            build_index(tmp_path / "other", collection(), "Flat", shards)


def test_the_measure_is_that_of_the_vectors():
    assert empty_index("Flat", 4, "ip").metric_type == faiss.METRIC_INNER_PRODUCT
    assert empty_index("IVF8,Flat", 4, "l2").metric_type == faiss.METRIC_L2


def test_a_full_disk_is_one_clear_error(tmp_path):
    rows = np.zeros((30_000, 50), np.float32)
    with small_disk(tmp_path / "disk", 4) as disk:
        with pytest.raises(SearchIndexError, match="cannot be written"):
            build_index(disk / "index", Vectors([str(n) for n in range(len(rows))], rows, collection().made_by, "d"))
        assert not (disk / "index").exists()
