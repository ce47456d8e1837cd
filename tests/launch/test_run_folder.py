"""Names, identity and contents of run folders."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from launch import run_folder, source
from launch.options import plain
from launch.run_folder import (
    RunFolderError,
    find_run_folder,
    is_locked,
    lock,
    make_run_folder,
    remember_job,
    run_folder_of,
    run_name,
    save_environment,
    write_text,
)

VALUES = {"epochs": 3.0}


@dataclass(frozen=True)
class Config:
    epochs: float = 10
    learning_rate: float = 1e-5
    corpus: Path = Path("data/scenes")
    checkpoint: str = ""
    images: tuple[str, ...] = ()
    image_ids: Path | None = None
    npz: bool = False
    wandb: bool = field(default=False, metadata={"identity": False})


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run_dir(tmp_path):
    make_run_folder(tmp_path / "runs/job/x", VALUES)
    return tmp_path / "runs/job/x"


def opened(config: Config, name: str = "") -> Path:
    folder = find_run_folder("job", config, name)
    make_run_folder(folder, plain(config))
    return folder


# Names


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (Config(), "default"),
        (Config(epochs=10.0), "default"),  # as the command line reads "10"
        (Config(epochs=3.0, learning_rate=1e-3), "epochs-3_learning_rate-0.001"),
        (Config(corpus=Path("data/coco"), npz=True), "corpus-coco_npz-True"),
        (Config(corpus=Path("/data/my corpora/coco")), "corpus-data.my.corpora.coco"),
        (Config(checkpoint="runs/lxmert_finetune/a/checkpoints/best"), "checkpoint-lxmert.finetune.a.best"),
        (Config(checkpoint="///"), "checkpoint-none"),
        (Config(images=("a", "b")), "images-a+b"),
        (Config(image_ids=Path("ids.txt")), "image_ids-ids.txt"),
        (Config(wandb=True), "default"),
    ],
)
def test_names_say_what_differs_from_the_defaults(config, name):
    assert run_name(config) == name


def test_long_names_are_cut_and_stay_apart():
    one, other = (Config(corpus=Path("c" * 60), checkpoint="d" * 60, images=("e" * 60, end)) for end in "xy")
    assert len(run_name(one)) <= 100 and run_name(one)[:90] == run_name(other)[:90] and run_name(one) != run_name(other)


@pytest.mark.parametrize("name", ["a/b", "..", ".", "a b", "ü*", "$x"])
def test_a_name_that_is_no_folder_name(name):
    with pytest.raises(RunFolderError, match="use letters, digits"):
        find_run_folder("job", Config(), name)
    assert not Path("runs").exists()


# Identity


def test_finding_makes_nothing(tmp_path):
    assert find_run_folder("job", Config(), "mine") == tmp_path / "runs/job/mine"
    assert not Path("runs").exists()


def test_the_same_options_find_the_same_folder():
    config = Config(epochs=3, images=("a",), image_ids=Path("x"))
    assert opened(config) == opened(config) == opened(Config(epochs=3.0, images=("a",), image_ids=Path("x"), wandb=True))


def test_config_yaml_is_what_the_job_had(tmp_path):
    saved = yaml.safe_load((opened(Config(epochs=3, corpus=Path("ü"))) / "config.yaml").read_text(encoding="utf-8"))
    assert saved == plain(Config(epochs=3, corpus=Path("ü"))) and list(saved)[:2] == ["epochs", "learning_rate"]


def test_another_configuration_of_the_same_name_is_refused():
    opened(Config(epochs=3), "mine")
    with pytest.raises(
        RunFolderError, match=r"runs/job/mine: made with other options \(epochs was 3 and is 4, npz was False and is True\)"
    ) as error:
        find_run_folder("job", Config(epochs=4, npz=True), "mine")
    assert "choose another --name" in str(error.value)


def test_configurations_whose_short_names_collide_are_refused():
    assert run_name(Config(corpus=Path("data/a/b"))) == run_name(Config(corpus=Path("data/a.b")))
    opened(Config(corpus=Path("data/a/b")))
    with pytest.raises(RunFolderError, match=r"corpus was data/a/b and is data/a\.b"):
        find_run_folder("job", Config(corpus=Path("data/a.b")), "")


def test_an_option_that_came_later_had_its_default():
    folder = opened(Config(epochs=3), "old")
    saved = yaml.safe_load((folder / "config.yaml").read_text())
    del saved["npz"]
    (folder / "config.yaml").write_text(yaml.safe_dump(saved))
    assert find_run_folder("job", Config(epochs=3), "old") == folder
    with pytest.raises(RunFolderError, match="npz was False and is True"):
        find_run_folder("job", Config(epochs=3, npz=True), "old")


@pytest.mark.parametrize("content", [b"", b"- a", b"a: [", b"\xff\xfe\x00"])
def test_a_damaged_config_is_one_error(run_dir, content):
    (run_dir / "config.yaml").write_bytes(content)
    with pytest.raises(RunFolderError, match=r"config.yaml: cannot be read; choose another --name or remove the folder"):
        find_run_folder("job", Config(), "x")


def test_a_folder_that_cannot_be_made():
    Path("runs").write_text("a file")
    with pytest.raises(RunFolderError, match=r"cannot be made or written \(Not a directory: .*runs"):
        opened(Config())


# The lock; launch.attempt's tests show what it is for


def in_another_process(run_dir: Path, then: str = "") -> str:
    """Whether another process gets the lock."""
    code = f"""import os
from pathlib import Path
from launch.run_folder import is_locked, lock
print("seen" if is_locked(Path({str(run_dir)!r})) else "free", end=" ")
with lock(Path({str(run_dir)!r})) as locked:
    print(locked(), flush=True)
    {then}"""
    environment = os.environ | {"PYTHONPATH": str(source.REPOSITORY)}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment).stdout


def test_one_process_holds_it(run_dir):
    with lock(run_dir) as locked:
        assert in_another_process(run_dir) == "free True\n", "it is taken only when asked for"
        assert locked() and locked()
        assert in_another_process(run_dir) == "seen False\n"
    assert in_another_process(run_dir) == "free True\n" and not is_locked(run_dir)


def test_a_killed_process_leaves_no_lock(run_dir):
    assert in_another_process(run_dir, "os.kill(os.getpid(), 9)") == "free True\n"
    with lock(run_dir) as locked:
        assert locked()


def test_a_file_system_without_locks_is_no_error(run_dir, monkeypatch):
    monkeypatch.setattr(run_folder.fcntl, "lockf", lambda *_: (_ for _ in ()).throw(OSError(95, "Operation not supported")))
    with lock(run_dir) as locked:
        assert locked()
    assert not is_locked(run_dir)


def test_the_run_of_a_job(run_dir):
    assert run_folder_of("7") is None
    remember_job(run_dir, "7")
    remember_job(run_dir, "8_1")
    assert run_folder_of("7") == run_folder_of("8_1") == run_dir and run_folder_of("8") is None


# Files


def test_write_text_is_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_text(path, "old")

    def full(self: Path, text: str, encoding: str) -> None:
        self.write_bytes(text[:2].encode())
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        write_text(path, "new text")
    assert path.read_text() == "old"


def test_environment(run_dir, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    monkeypatch.setenv("SLURM_CPU_BIND", "quiet")
    save_environment(run_dir, {"command": ["jobs/x.py", "--a"], "resources": {"nodes": 1}})
    found = json.loads((run_dir / "environment.json").read_text())
    assert found["command"] == ["jobs/x.py", "--a"] and found["resources"] == {"nodes": 1}
    assert found["slurm"] == {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "1"}
    assert found["packages"]["torch"] and found["python"].count(".") == 2 and found["cpus"] >= 1 and found["host"]
    assert found["started"].endswith("+00:00")


def test_code_that_changes_between_two_starts_is_told(run_dir, monkeypatch, capsys):
    monkeypatch.setattr(run_folder, "revision", lambda: "abc+changes")
    monkeypatch.setattr(run_folder, "edits", lambda: "+x = 1")
    save_environment(run_dir, {})
    assert (run_dir / "code.diff").read_text() == "+x = 1\n" and not capsys.readouterr().out
    monkeypatch.setattr(run_folder, "revision", lambda: "abd")
    save_environment(run_dir, {})
    assert capsys.readouterr().out == "warning: this run was started by code of revision abc+changes and goes on with abd\n"
