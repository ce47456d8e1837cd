"""The engine is stopped, its files are damaged, the disk is full: the ranking file is the same in the end."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from real_processes import die, in_processes, small_disk
from tiny_model import IMAGES, TEXTS, TinyModel, engine, provenance, rank, scores

from ranking import engine as engine_module
from ranking.matrix import Provenance, RankingError, read_ranking

pytestmark = pytest.mark.usefixtures("small_blocks")


def dies_after(calls: int) -> TinyModel:
    """A model whose process is killed when it scores for the n-th time."""
    model, left = TinyModel(), [calls]

    def count() -> None:
        left[0] -= 1
        if not left[0]:
            die()

    model.before_score = count
    return model


@pytest.mark.parametrize("before, after", [(1, 1), (1, 2), (2, 1), (3, 2)])
def test_killed_and_started_again(whole, tmp_path, capfd, before, after):
    """kill -9 of every process in the middle; then with as many processes or with other ones."""
    path = tmp_path / "ranking.h5"
    assert in_processes(before, lambda: rank(path, dies_after(75 if os.environ.get("RANK", "0") == "0" else 40))) == [-9] * before
    standing = len(list((tmp_path / "ranking.h5.part").glob("*.npy")))
    assert 0 < standing < 9
    with pytest.raises(RankingError, match=f"only half done .{standing} blocks stand"):
        read_ranking(path)
    assert in_processes(after, lambda: rank(path)) == [0] * after
    assert f"{standing} of 9 blocks stand already" in capfd.readouterr().out
    assert path.read_bytes() == whole.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["ranking.h5"]


def half_done(path: Path, blocks: int = 4) -> list[Path]:
    """Leave so many blocks, as a killed process does."""
    model, written = TinyModel(), []

    def count() -> None:
        written[:] = sorted(path.with_name(path.name + ".part").glob("*.npy"))
        if len(written) == blocks:
            raise KeyboardInterrupt

    model.before_score = count
    with pytest.raises(KeyboardInterrupt):
        rank(path, model)
    return written


def test_blocks_that_stand_are_not_scored_again(whole, tmp_path):
    path = tmp_path / "ranking.h5"
    half_done(path)
    model = TinyModel()
    rank(path, model)
    assert sum(count for kind, count in model.calls if kind == "text") == TEXTS - 4 * 16
    assert path.read_bytes() == whole.read_bytes()


def test_killed_when_all_blocks_stand(whole, tmp_path, monkeypatch):
    path = tmp_path / "ranking.h5"

    def assemble_and_die() -> None:
        monkeypatch.setattr(engine_module, "write_ranking", lambda *_: die())
        rank(path)

    assert in_processes(1, assemble_and_die) == [-9]
    model = TinyModel()
    rank(path, model)
    assert model.calls == [], "nothing had to be encoded or scored again"
    assert path.read_bytes() == whole.read_bytes()


def test_killed_when_the_file_stands(whole, tmp_path, monkeypatch):
    path = tmp_path / "ranking.h5"

    def write_and_die() -> None:
        monkeypatch.setattr(engine_module.shutil, "rmtree", lambda *_: die())
        rank(path)

    assert in_processes(1, write_and_die) == [-9]
    assert path.read_bytes() == whole.read_bytes()
    rank(path)
    assert [path.name for path in tmp_path.iterdir()] == ["ranking.h5"]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


HARMS = {
    "flipped": flip,
    "cut": lambda path: os.truncate(path, path.stat().st_size - 4),
    "empty": lambda path: os.truncate(path, 0),
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_block_is_scored_again(whole, tmp_path, capsys, harm):
    path = tmp_path / "ranking.h5"
    HARMS[harm](half_done(path)[2])
    rank(path)
    said = capsys.readouterr().out
    assert "000002-" in said and "damaged, it will be scored again" in said
    assert "3 of 9 blocks stand already" in said
    assert path.read_bytes() == whole.read_bytes()


def test_a_block_damaged_at_the_end(whole, tmp_path, monkeypatch):
    """Between its writing and the assembly: nothing wrong is written, and the next start mends it."""
    path = tmp_path / "ranking.h5"
    before = engine_module.Engine._assemble

    def harmed(self, path, part, *rest):
        flip(next(part.glob("000004-*.npy")))
        return before(self, path, part, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(engine_module.Engine, "_assemble", harmed)
        with pytest.raises(RankingError, match="1 blocks were damaged after they were written; run again"):
            rank(path)
    assert not path.exists()
    rank(path)
    assert path.read_bytes() == whole.read_bytes()


def test_blocks_of_another_model_are_discarded(whole, tmp_path, capsys):
    path = tmp_path / "ranking.h5"
    half_done(path)
    other = TinyModel(seed=1)
    ranking = rank(path, other)
    assert "blocks of another model, split or configuration are discarded" in capsys.readouterr().out
    np.testing.assert_array_equal(scores(ranking), scores(engine(other).rank_in_memory(provenance(other))))
    assert path.read_bytes() != whole.read_bytes()


def test_all_of_another_model_is_scored_anew(tmp_path):
    path, other = tmp_path / "ranking.h5", TinyModel(seed=1)
    half_done(path)
    rank(path, other)
    assert sum(count for kind, count in other.calls if kind == "text") == TEXTS


def test_a_newer_revision_goes_on(tmp_path):
    path, model = tmp_path / "ranking.h5", TinyModel()
    half_done(path)
    engine(model).rank_to_file(path, provenance(model, revision="a commit later"))
    assert sum(count for kind, count in model.calls if kind == "text") == TEXTS - 4 * 16


def test_a_finished_file_is_not_ranked_again(whole):
    model, before = TinyModel(), whole.stat()
    ranking = rank(whole, model)
    assert model.calls == []
    assert scores(ranking).shape == (IMAGES, TEXTS)
    assert whole.stat() == before


@pytest.mark.parametrize(
    "changes", [{"checkpoint": "other"}, {"weights": "0"}, {"digest": "0"}, {"config": "{}x", "split": "val"}]
)
def test_a_file_of_another_checkpoint_is_refused(whole, changes):
    other = replace(provenance(TinyModel()), **changes)
    named = ", ".join(sorted(changes, key=list(Provenance.__dataclass_fields__).index))
    with pytest.raises(RankingError, match=f"holds the ranking of another {named}; remove it or choose another --name"):
        engine().rank_to_file(whole, other)


@pytest.mark.parametrize("kilobytes, error", [(40, OSError), (300, RankingError)], ids=["blocks", "file"])
def test_full_disk(whole, tmp_path, kilobytes, error):
    """While blocks are written or when they are put together: one clear error, and the same command goes on."""
    with small_disk(tmp_path / "disk", 2) as disk:
        path, filler = disk / "ranking.h5", disk / "filler"
        filler.write_bytes(bytes((2 << 20) - kilobytes * 1024))
        with pytest.raises(error, match="No space left on device"):
            rank(path)
        assert not path.exists()
        filler.unlink()
        model = TinyModel()
        rank(path, model)
        assert sum(count for kind, count in model.calls if kind == "text") < TEXTS
        assert path.read_bytes() == whole.read_bytes()
