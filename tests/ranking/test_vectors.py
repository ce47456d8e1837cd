"""The vectors folder: what is written is read, killed runs go on, nothing half-done or foreign is taken for whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from real_processes import die, in_processes, killed, small_disk

from corpora.pieces import Part
from corpora.store import StoreError
from ranking.vectors import (
    Ids,
    Origin,
    Vectors,
    VectorsError,
    in_memory,
    read_ids,
    read_vectors,
    write_ids,
    write_vectors,
)

ORIGIN = Origin("tiny", "none", "made-up", "test", weights="w", digest="d", revision="r1")
ROWS = np.random.default_rng(0).standard_normal((23, 4), np.float32)
IDS = [f"é{number}" for number in range(23)]


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr("ranking.vectors.PIECE", 5)


def write(folder: Path, encode=None, ids=IDS, origin=ORIGIN, **more) -> Vectors | None:
    return write_vectors(folder, encode or in_memory(ROWS), ids, origin, **more)


def test_what_is_written_is_read(tmp_path):
    written = write(tmp_path / "some" / "vectors")
    vectors = read_vectors(tmp_path / "some" / "vectors")
    assert np.array_equal(vectors.rows, ROWS) and vectors.rows.dtype == np.float32 and isinstance(vectors.rows, np.memmap)
    assert list(vectors.ids) == IDS and vectors.made_by == ORIGIN and (len(vectors), vectors.dimension) == (23, 4)
    assert vectors.digest == written.digest != ""
    assert [path.name for path in (tmp_path / "some").iterdir()] == ["vectors"]
    with pytest.raises(ValueError, match="read-only"):
        vectors.rows[0] = 0


def test_the_digest_tells_rows_and_ids(tmp_path):
    digests = {
        write(tmp_path / "a").digest,
        write(tmp_path / "b", in_memory(ROWS + 1)).digest,
        write(tmp_path / "c", ids=IDS[::-1]).digest,
    }
    assert len(digests) == 3
    assert write(tmp_path / "d").digest in digests
    ids = hashlib.sha256(json.dumps(IDS).encode()).hexdigest()
    assert hashlib.sha256(ids.encode() + ROWS.tobytes()).hexdigest() in digests


def test_halves_are_rounded_once(tmp_path):
    vectors = write(tmp_path / "v", dtype="float16")
    assert np.array_equal(vectors.rows, ROWS.astype(np.float16))
    starts, blocks = zip(*vectors.blocks(10), strict=True)
    assert starts == (0, 10, 20) and {block.dtype for block in blocks} == {np.dtype(np.float32)}
    assert np.array_equal(np.concatenate(blocks), ROWS.astype(np.float16))


def test_ids_by_place_slice_and_many(tmp_path):
    write_ids(tmp_path / "ids", IDS)
    ids = read_ids(tmp_path / "ids")
    assert (ids[0], ids[22], ids[-1]) == (IDS[0], IDS[22], IDS[22])
    assert ids[3:9:2] == IDS[3:9:2] and ids[20:99] == IDS[20:]
    assert ids.take(np.array([[5, 0], [22, 5]])) == [IDS[5], IDS[0], IDS[22], IDS[5]]
    assert "é7" in ids and "x" not in ids
    with pytest.raises(IndexError):
        ids[23]
    assert list(Ids(ids._column.slice(2, 3))) == IDS[2:5]


def test_iterating_over_more_ids_than_are_read_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("ranking.vectors.AT_ONCE", 4)
    write_ids(tmp_path / "ids", IDS)
    assert list(read_ids(tmp_path / "ids")) == IDS


# Going on


def dying_after(pieces: int):
    """Encodes so many pieces and then ends the process as kill -9 does."""

    def encode(ranges: Sequence[range]) -> Iterator[np.ndarray]:
        for number, some in enumerate(ranges):
            if number == pieces:
                die()
            yield ROWS[some.start : some.stop]

    return encode


@pytest.mark.parametrize("pieces", [0, 1, 4])
def test_a_killed_run_goes_on(tmp_path, pieces):
    folder = tmp_path / "v"
    killed(lambda: write(folder, dying_after(pieces)))
    with pytest.raises(VectorsError, match="not finished, run its job again"):
        read_vectors(folder)
    asked: list[range] = []

    def encode(ranges: Sequence[range]) -> Iterator[np.ndarray]:
        asked.extend(ranges)
        return in_memory(ROWS)(ranges)

    assert np.array_equal(write(folder, encode, origin=replace(ORIGIN, revision="r2")).rows, ROWS)
    assert asked == [range(5 * n, min(5 * n + 5, 23)) for n in range(pieces, 5)]
    write(tmp_path / "unbroken", origin=replace(ORIGIN, revision="r2"))
    for path in (tmp_path / "unbroken").iterdir():
        assert path.read_bytes() == (folder / path.name).read_bytes()


def test_killed_while_the_pieces_are_joined(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("ranking.vectors.write_ids", lambda *_: die())
        killed(lambda: write(tmp_path / "v"))
    assert np.array_equal(write(tmp_path / "v", lambda ranges: iter(())).rows, ROWS)  # nothing is encoded twice


def test_parts_share_the_work_and_the_last_joins(tmp_path):
    assert write(tmp_path / "v", part=Part(2, 3)) is None
    assert write(tmp_path / "v", part=Part(1, 3)) is None
    assert np.array_equal(write(tmp_path / "v", part=Part(3, 3)).rows, ROWS)
    assert np.array_equal(write(tmp_path / "v", part=Part(2, 3)).rows, ROWS)  # it stands


def test_parts_that_end_at_once(tmp_path):
    """Whichever joins, and if both do: one whole folder."""
    for number in range(5):
        folder = tmp_path / f"v{number}"
        assert in_processes(2, lambda folder=folder: write(folder, part=rank_part())) == [0, 0]
        assert np.array_equal(read_vectors(folder).rows, ROWS)
    assert len(list(tmp_path.iterdir())) == 5


@pytest.mark.parametrize("moment", ["write_ids", "_piece"])
def test_another_part_is_faster(tmp_path, monkeypatch, moment):
    """It joins the pieces, and removes them, while this one is about to."""
    from ranking import vectors

    there = getattr(vectors, moment)

    def overtaken(*given):
        monkeypatch.setattr(vectors, moment, there)
        assert len(write(tmp_path / "v")) == 23
        return there(*given)

    monkeypatch.setattr(vectors, moment, overtaken)
    assert np.array_equal(write(tmp_path / "v").rows, ROWS)
    assert [path.name for path in tmp_path.iterdir()] == ["v"]


def rank_part() -> Part:
    import os

    return Part(int(os.environ["RANK"]) + 1, 2)


def test_a_damaged_piece_is_encoded_again(tmp_path):
    assert write(tmp_path / "v", part=Part(1, 2)) is None
    piece = tmp_path / ".v.pieces" / "000002"
    piece.write_bytes(piece.read_bytes()[:-7])
    with pytest.raises(VectorsError, match="damaged after it was written and is removed; run again"):
        write(tmp_path / "v")
    assert np.array_equal(write(tmp_path / "v").rows, ROWS)


def test_a_full_disk_leaves_what_was_encoded(tmp_path):
    rows = np.zeros((30_000, 30), np.float32)
    ids = [str(number) for number in range(len(rows))]
    with small_disk(tmp_path / "disk", 5) as disk:
        import ranking.vectors

        ranking.vectors.PIECE = 4096  # the fixture puts it back
        with pytest.raises(VectorsError, match=r"cannot be written .* is kept beside it, run again"):
            write(disk / "v", in_memory(rows), ids)
        assert not (disk / "v").exists() and len(list((disk / ".v.pieces").iterdir())) > 2


# What is refused


def test_vectors_that_stand_are_left_alone_and_others_refused(tmp_path):
    write(tmp_path / "v")
    before = (tmp_path / "v" / "vectors.npy").stat().st_mtime_ns
    assert len(write(tmp_path / "v", origin=replace(ORIGIN, revision="later"))) == 23
    assert (tmp_path / "v" / "vectors.npy").stat().st_mtime_ns == before
    for change in ({"weights": "x"}, {"kind": "texts"}, {"measure": "l2"}, {"precision": "bf16"}):
        with pytest.raises(VectorsError, match=f"another {next(iter(change))}; remove it"):
            write(tmp_path / "v", origin=replace(ORIGIN, **change))
    with pytest.raises(VectorsError, match="another ids"):
        write(tmp_path / "v", ids=IDS[::-1])
    with pytest.raises(VectorsError, match="another type"):
        write(tmp_path / "v", dtype="float16")


def test_pieces_of_other_vectors_are_not_gone_on_with(tmp_path):
    assert write(tmp_path / "v", part=Part(1, 2)) is None
    with pytest.raises(StoreError, match="begun with other options"):
        write(tmp_path / "v", origin=replace(ORIGIN, weights="x"))


@pytest.mark.parametrize("value, dtype", [(np.nan, "float32"), (np.inf, "float32"), (1e6, "float16")])
def test_what_is_not_finite_is_refused_by_name(tmp_path, value, dtype):
    rows = ROWS.copy()
    rows[7, 2] = value
    with pytest.raises(VectorsError, match=f"the vector of 'é7' is not finite in {dtype}"):
        write(tmp_path / "v", in_memory(rows), dtype=dtype)
    assert not (tmp_path / "v").exists()


@pytest.mark.parametrize("rows, ids", [(ROWS[:22], IDS), (ROWS[:, 0], IDS), (ROWS, [*IDS[:22], IDS[0]]), (ROWS[:0], [])])
def test_rows_and_ids_must_fit(tmp_path, rows, ids):
    with pytest.raises(ValueError, match=r"came for|more than once|nothing to encode"):
        write(tmp_path / "v", in_memory(rows), ids)


def test_vectors_in_memory_are_checked():
    for ids, rows in ((IDS[:2], ROWS), (["a", "a"], ROWS[:2]), (IDS, ROWS.astype(float)), (IDS, ROWS[:, 0]), ([], ROWS[:0])):
        with pytest.raises(ValueError):
            Vectors(ids, rows, ORIGIN)
    with pytest.raises(VectorsError, match="measure 'cosine': must be one of ip, l2"):
        replace(ORIGIN, measure="cosine")


def test_damaged_folders_are_one_clear_error(tmp_path):
    with pytest.raises(VectorsError, match=r"no vectors here$"):
        read_vectors(tmp_path / "v")
    write(tmp_path / "v")
    for name in ("vectors.npy", "ids.arrow", "vectors.json"):
        path = tmp_path / "v" / name
        whole = path.read_bytes()
        for damaged in (whole[: len(whole) // 2], b"", b"x" * len(whole)):
            path.write_bytes(damaged)
            with pytest.raises(VectorsError, match="v"):
                read_vectors(tmp_path / "v")
        path.unlink()
        with pytest.raises(VectorsError, match=name.split(".")[0]):
            read_vectors(tmp_path / "v")
        path.write_bytes(whole)
    info = json.loads((tmp_path / "v" / "vectors.json").read_text())
    for change in ({"schema": 99}, {"count": 22}, {"dimension": 5}, {"type": "float16"}):
        (tmp_path / "v" / "vectors.json").write_text(json.dumps({**info, **change}))
        with pytest.raises(VectorsError, match=r"schema 1|says otherwise"):
            read_vectors(tmp_path / "v")
