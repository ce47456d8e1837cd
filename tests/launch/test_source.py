"""The code that a waiting job will run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from launch import source
from launch.source import take_snapshot

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """A small checkout of the project's launcher, which can be edited."""
    folder = tmp_path / "checkout"
    for package in ("launch", "jobs"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "launch/__pycache__").mkdir()
    (folder / "launch/__pycache__/old.pyc").touch()
    (folder / "runs").mkdir()
    (folder / "pyproject.toml").write_text('[tool.setuptools]\npackages = ["launch", "jobs"]\n')
    (folder / "jobs/answer.py").write_text("ANSWER = 42\n")
    monkeypatch.setattr(source, "REPOSITORY", folder)
    return folder


def answer(code: Path, program: str = "from jobs.answer import ANSWER; print(ANSWER)") -> str:
    """What a job prints that runs this code, from a folder with a `jobs` of its own."""
    environment = os.environ | {"PYTHONPATH": str(code), "PYTHONSAFEPATH": "1"}
    user = code.parent / "user"
    (user / "jobs").mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-B", "-c", program]
    return subprocess.run(command, env=environment, cwd=user, capture_output=True, text=True, check=True).stdout.strip()


def test_the_job_runs_the_code_as_it_was(checkout, tmp_path):
    code = take_snapshot(tmp_path / "code")
    (checkout / "jobs/answer.py").write_text("ANSWER = 43\n")
    (checkout / "launch/slurm.py").unlink()
    assert answer(code) == "42" and answer(code, "import launch.slurm as s; print(s.__file__)") == str(code / "launch/slurm.py")


def test_the_same_code_is_copied_once_and_other_code_beside_it(checkout, tmp_path):
    first = take_snapshot(tmp_path / "code")
    before = (first / "jobs/answer.py").stat()
    assert take_snapshot(tmp_path / "code") == first and (first / "jobs/answer.py").stat() == before
    (checkout / "jobs/answer.py").write_text("ANSWER = 43\n")
    second = take_snapshot(tmp_path / "code")
    assert second != first and (answer(first), answer(second)) == ("42", "43")
    (checkout / "jobs/answer.py").rename(checkout / "jobs/answers.py")
    assert take_snapshot(tmp_path / "code") not in (first, second), "names count"
    assert len(list((tmp_path / "code").glob("[!u]*"))) == 3 and not list((tmp_path / "code").glob(".*"))


def test_what_is_copied(checkout, tmp_path):
    (checkout / "jobs/deep").mkdir()
    (checkout / "jobs/deep/page.html").write_text("<p>")
    code = take_snapshot(tmp_path / "code")
    found = {str(path.relative_to(code)) for path in code.rglob("*") if path.is_file()}
    here = {str(path.relative_to(checkout)) for path in (*checkout.glob("launch/*.py"), *checkout.glob("jobs/**/*.*"))}
    assert found == here | {"REVISION"} and "jobs/deep/page.html" in found


def test_the_whole_project_is_small_and_starts(tmp_path):
    code = take_snapshot(tmp_path / "code")
    assert sum(path.stat().st_size for path in code.rglob("*") if path.is_file()) < 5_000_000
    program = "import jobs.make_scenes as job, launch.source as s; print(job.__file__, s.revision())"
    assert answer(code, program).startswith(f"{code}/jobs/make_scenes.py ")


def test_the_revision_goes_along(checkout, tmp_path, monkeypatch):
    monkeypatch.setattr(source, "revision", lambda: "abc+changes")
    code = take_snapshot(tmp_path / "code")
    assert answer(code, "import launch.source as s; print(s.revision(), repr(s.edits()))") == "abc+changes ''"
    monkeypatch.setattr(source, "revision", lambda: "abd")  # a commit of documents, say
    assert take_snapshot(tmp_path / "code") != code


def test_a_job_that_runs_in_one_takes_no_other(checkout, tmp_path):
    code = take_snapshot(tmp_path / "code")
    program = "from pathlib import Path; from launch.source import take_snapshot; print(take_snapshot(Path('../again')))"
    assert answer(code, program) == str(code) and not (tmp_path / "code/again").exists()


def test_two_at_the_same_moment(checkout, tmp_path, monkeypatch):
    """Without a lock, both copy; one gives way."""
    numbers = iter(range(100))
    monkeypatch.setattr(source.os, "getpid", lambda: next(numbers))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: take_snapshot(tmp_path / "code"), range(4)))
    assert len(set(found)) == 1 and answer(found[0]) == "42"
    assert [path.name for path in (tmp_path / "code").iterdir() if path.name != "user"] == [found[0].name]


def test_another_one_was_faster(checkout, tmp_path, monkeypatch):
    numbers, faster, copy = iter(range(100)), [], shutil.copyfile
    monkeypatch.setattr(source.os, "getpid", lambda: next(numbers))

    def slowly(*paths: Path) -> None:
        if not faster:
            faster.append(None)
            faster[0] = take_snapshot(tmp_path / "code")
        copy(*paths)

    monkeypatch.setattr(source.shutil, "copyfile", slowly)
    assert take_snapshot(tmp_path / "code") == faster[0]
    assert [path.name for path in (tmp_path / "code").iterdir()] == [faster[0].name]


def test_one_that_was_cut_short_is_not_taken_for_whole(checkout, tmp_path, monkeypatch):
    copy, left = shutil.copyfile, [5]

    def failing(*paths: Path) -> None:
        left[0] -= 1
        if not left[0]:
            raise OSError(28, "No space left on device")
        copy(*paths)

    monkeypatch.setattr(source.shutil, "copyfile", failing)
    with pytest.raises(OSError, match="No space"):
        take_snapshot(tmp_path / "code")
    assert answer(take_snapshot(tmp_path / "code")) == "42"


def test_revision_of_a_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "REPOSITORY", tmp_path)
    assert source.revision() == ""  # no checkout
    for command in ("init -q", "add .", "-c user.name=a -c user.email=a@b commit -q --allow-empty -m x"):
        subprocess.run(["git", "-C", str(tmp_path), *command.split()], check=True)
    clean = source.revision()
    assert len(clean) == 40
    assert source.edits() == ""
    (tmp_path / "edited.py").write_text("x = 1")
    assert source.revision() == f"{clean}+changes"
    monkeypatch.setenv("PATH", "")
    assert source.revision() == ""  # no git
