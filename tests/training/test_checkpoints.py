from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from real_processes import die, killed, small_disk
from safetensors.torch import save_file

from launch.failure import leave
from training.checkpoints import damage, newest, point, prune, save_checkpoint


def writer(content: str = "weights", size: int = 1000) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "model").write_text(content * size)
        (folder / "tokenizer").mkdir()
        (folder / "tokenizer" / "vocabulary").write_text("words")

    return write


def saved(folder: Path, step: int, best: int | None = None, keep: int = 2) -> None:
    """Save as the training loop does."""
    save_checkpoint(folder, step, writer(f"step {step}"))
    point(folder, step, best)
    prune(folder, step, best, keep)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_is_committed_whole(tmp_path):
    folder = tmp_path / "checkpoints"
    path = save_checkpoint(folder, 7, writer())
    assert path == folder / "step-00000007"
    assert names(folder) == ["step-00000007"]
    assert sorted(json.loads((path / "manifest.json").read_text())) == ["model", "tokenizer/vocabulary"]
    assert damage(path) is None
    assert newest(folder) == path


def test_nothing_yet(tmp_path):
    assert newest(tmp_path / "checkpoints") is None


def test_the_oldest_go_and_the_best_stays(tmp_path):
    for step, best in ((1, None), (2, 2), (3, 2), (4, 2), (5, 5), (6, 5)):
        saved(tmp_path, step, best)
        kept = {f"step-{kept:08d}" for kept in (step - 1, step, best) if kept}
        assert set(names(tmp_path)) == {*kept, "last", *(["best"] if best else [])}
        assert (tmp_path / "last" / "model").read_text().startswith(f"step {step}")
        if best:
            assert (tmp_path / "best" / "model").read_text().startswith(f"step {best}")
    assert (tmp_path / "last").readlink() == Path("step-00000006")  # relative: the run folder can be moved


def test_the_old_one_is_deleted_only_after_the_new_one_stands(tmp_path):
    saved(tmp_path, 1, keep=1)
    seen = []

    def write(folder: Path) -> None:
        seen.append(names(tmp_path))
        writer()(folder)

    save_checkpoint(tmp_path, 2, write)
    assert seen == [[f".step-00000002.{os.uname().nodename}.{os.getpid()}.part", "last", "step-00000001"]]
    assert names(tmp_path) == ["last", "step-00000001", "step-00000002"]


def test_killed_while_saving(tmp_path):
    """A process of its own, slow in writing, killed from outside: the checkpoint before stays, the next start tidies up."""
    saved(tmp_path, 1)
    program = """
import sys, time
from pathlib import Path
from launch.failure import leave
from training.checkpoints import save_checkpoint
def write(folder):
    with (folder / "model").open("w") as file:
        while True:
            file.write("half a checkpoint"); file.flush(); time.sleep(0.01)
save_checkpoint(Path(sys.argv[1]), 2, write)
"""
    child = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)])
    half = tmp_path / f".step-00000002.{os.uname().nodename}.{child.pid}.part" / "model"
    deadline = time.monotonic() + 30
    while not (half.exists() and half.stat().st_size):
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    child.kill()
    child.wait()
    assert newest(tmp_path) == tmp_path / "step-00000001"
    saved(tmp_path, 3)
    assert names(tmp_path) == ["last", "step-00000001", "step-00000003"]


@pytest.mark.parametrize("moment", ["training.checkpoints._write_manifest", "pathlib.Path.rename", "pathlib.Path.symlink_to"])
def test_killed_at_any_moment_of_a_save(tmp_path, moment, monkeypatch):
    saved(tmp_path, 1, 1)

    def save() -> None:
        monkeypatch.setattr(moment, lambda *_: die())
        saved(tmp_path, 2, 2)

    killed(save)
    found = newest(tmp_path)
    assert found == tmp_path / ("step-00000002" if moment.endswith("symlink_to") else "step-00000001")
    assert damage(tmp_path / "last") is None and damage(tmp_path / "best") is None
    saved(tmp_path, 2, 2)
    assert (tmp_path / "best" / "model").read_text().startswith("step 2")
    assert names(tmp_path) == ["best", "last", "step-00000001", "step-00000002"]


BIG = {"weights": torch.zeros(1 << 19)}  # 2 MiB


def python_writes(folder: Path) -> None:
    (folder / "model").write_bytes(bytes(2 << 20))


def safetensors_writes(folder: Path) -> None:
    save_file(BIG, folder / "model")


def torch_writes(folder: Path) -> None:
    with (folder / "model").open("wb") as file:
        torch.save(BIG, file)


WRITERS = [python_writes, safetensors_writes, torch_writes]


@pytest.mark.parametrize("write", WRITERS)
def test_full_disk(tmp_path, write):
    with small_disk(tmp_path / "disk", 1) as disk:
        saved(disk, 1, 1)
        with pytest.raises(OSError, match="No space left on device") as caught:
            save_checkpoint(disk, 2, write)
        with pytest.raises(SystemExit, match="what was finished before is whole: free some space and run the same command again"):
            leave(caught.value)
        assert caught.value.filename == str(disk / "step-00000002")
        assert newest(disk) == disk / "step-00000001"
        assert names(disk) == ["best", "last", "step-00000001"]
        saved(disk, 2)  # there is room again
        assert newest(disk) == disk / "step-00000002"


@pytest.mark.parametrize("write", WRITERS)
def test_file_size_limit(tmp_path, write):
    saved(tmp_path, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(OSError, match=r"File too large: .*step-00000002"):
            save_checkpoint(tmp_path, 2, write)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path) == ["last", "step-00000001"]


def test_another_error_of_the_writer_is_its_own(tmp_path):
    def write(folder: Path) -> None:
        raise RuntimeError("no such tokenizer")

    with pytest.raises(RuntimeError, match="no such tokenizer"):
        save_checkpoint(tmp_path, 1, write)
    assert names(tmp_path) == []


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["model", "tokenizer/vocabulary", "manifest.json"])
@pytest.mark.parametrize("harm", [flip, lambda path: os.truncate(path, path.stat().st_size - 1), Path.unlink])
def test_a_damaged_checkpoint_is_passed_over(tmp_path, name, harm, capsys):
    saved(tmp_path, 1)
    saved(tmp_path, 2)
    harm(tmp_path / "step-00000002" / name)
    assert newest(tmp_path) == tmp_path / "step-00000001"
    assert f"checkpoint {tmp_path / 'step-00000002'} is damaged" in capsys.readouterr().out


def test_going_on_after_damaged_ones_never_loses_the_whole_one(tmp_path):
    """Two damaged checkpoints are newer than what the run goes on with: they must not count among the newest that are kept."""
    for step in (10, 20, 30):
        saved(tmp_path, step, 20, keep=3)
    for step in (20, 30):
        flip(tmp_path / f"step-000000{step}" / "model")
    assert newest(tmp_path) == tmp_path / "step-00000010"
    saved(tmp_path, 15)
    assert names(tmp_path) == ["best", "last", "step-00000010", "step-00000015"]
    assert newest(tmp_path) == tmp_path / "step-00000015"
    saved(tmp_path, 20)
    assert newest(tmp_path) == tmp_path / "step-00000020"


def test_a_damaged_checkpoint_is_replaced_by_the_same_step_made_again(tmp_path):
    saved(tmp_path, 1)
    saved(tmp_path, 2)
    flip(tmp_path / "step-00000002" / "model")
    saved(tmp_path, 2)
    assert newest(tmp_path) == tmp_path / "step-00000002"


def test_no_whole_checkpoint_is_an_error(tmp_path):
    saved(tmp_path, 1)
    flip(tmp_path / "step-00000001" / "model")
    with pytest.raises(ValueError, match="no whole checkpoint among step-00000001; remove the folder to start anew"):
        newest(tmp_path)
