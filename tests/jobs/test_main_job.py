"""The main job from end to end, as a user runs it: corpus, training, ranking, report; then everything once more."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from starting import TINY, start, start_alone

from ranking.matrix import read_ranking

STEPS = ["--steps", 4, "--evaluate-every", 2, "--name", "tiny"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("user")


@pytest.fixture(scope="module")
def said(folder) -> dict[str, str]:
    """What each job of the chain printed. Every one ran in a process of its own and ended with code 0."""
    said = {}
    images = ["--train", 60, "--val", 20, "--test", 20, "--size", 48]
    for key, job, arguments in (
        ("make_scenes", "make_scenes", [*images, "--name", "tiny"]),
        ("lxmert_finetune", "lxmert_finetune", [*TINY["lxmert_finetune"].split(), *STEPS]),
        ("lxmert_predict", "lxmert_predict", ["--checkpoint", best("lxmert_finetune"), "--name", "tiny"]),
        ("two", "lxmert_predict", ["--checkpoint", best("lxmert_finetune"), "--name", "two", "--gpus-per-node", 2]),
        ("clip_finetune", "clip_finetune", [*TINY["clip_finetune"].split(), *STEPS]),
        ("clip_zero_shot", "clip_zero_shot", ["--checkpoint", best("clip_finetune"), "--name", "tiny"]),
        ("error_report", "error_report", ["--rankings", *map(ranking, ("lxmert_predict", "clip_zero_shot")), "--name", "tiny"]),
    ):
        done = start_alone(job, *arguments, folder=folder)
        assert done.returncode == 0, f"{job}: {done.stdout}\n{done.stderr}"
        said[key] = done.stdout
    return said


def best(job: str) -> str:
    return f"runs/{job}/tiny/checkpoints/best"


def ranking(job: str, name: str = "tiny") -> str:
    return f"runs/{job}/{name}/ranking-test.h5"


def run_dir(folder: Path, job: str) -> Path:
    return folder / "runs" / job / "tiny"


def left(path: Path) -> set[str]:
    """What is in a run folder beside what every run has."""
    return {entry.name for entry in path.iterdir()} - {
        "config.yaml",
        "environment.json",
        "code.diff",
        "logs",
        "attempts",
        ".lock",
    }


def test_every_run_folder_says_what_ran(folder, said):
    for job in set(said) - {"two"}:
        assert f"run folder: {run_dir(folder, job)}\n" in said[job]
        assert yaml.safe_load((run_dir(folder, job) / "config.yaml").read_text())
        environment = json.loads((run_dir(folder, job) / "environment.json").read_text())
        assert environment["command"][0].endswith(f"jobs/{job}.py") and environment["resources"]["nodes"] == 1


@pytest.mark.parametrize("job", ["lxmert_finetune", "clip_finetune"])
def test_training_leaves_history_and_checkpoints(folder, said, job):
    assert left(run_dir(folder, job)) == {"checkpoints", "metrics.jsonl"}
    rows = [json.loads(line) for line in (run_dir(folder, job) / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "validation" in row] == [2, 4]
    checkpoints = run_dir(folder, job) / "checkpoints"
    assert (checkpoints / "last").resolve().name == "step-00000004"
    assert (checkpoints / "best" / "model.safetensors").exists()
    assert "best validation rsum" in said[job]


@pytest.mark.parametrize("job", ["lxmert_predict", "clip_zero_shot"])
def test_ranking_leaves_file_and_figures(folder, said, job):
    assert left(run_dir(folder, job)) == {"metrics.json", "ranking-test.h5"}
    ranked = read_ranking(folder / ranking(job))
    assert ranked.queries.kind == "image" and len(ranked.queries.ids) == 20 and len(ranked.T.queries.ids) == len(ranked.items.ids)
    figures = json.loads((run_dir(folder, job) / "metrics.json").read_text())["figures"]
    assert f"rsum{figures['rsum']:>34.2f}" in said[job] and "R@1" in said[job]


def test_what_was_trained_on_is_refused_and_with_leave_noted_everywhere(folder, said, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    rank = ("clip_zero_shot", "--checkpoint", best("clip_finetune"), "--split", "train")
    assert f"data/scenes: split train: 60 of the 60 images were trained on by {best('clip_finetune')}" in str(start(*rank))
    assert start(*rank, "--allow-leakage", "--name", "leak") == 0
    noted = "60 of the 60 images were trained on"
    assert f"leakage: {noted}\n" in capsys.readouterr().out
    assert json.loads((folder / "runs/clip_zero_shot/leak/metrics.json").read_text())["leakage"] == noted
    file = folder / "runs/clip_zero_shot/leak/ranking-train.h5"
    assert read_ranking(file).provenance.leakage == noted
    assert start("error_report", "--rankings", file, "--name", "leak") == 0
    assert noted in (folder / "runs/error_report/leak/report/index.html").read_text()
    assert read_ranking(folder / ranking("clip_zero_shot")).provenance.leakage == ""


def test_two_processes_write_the_same_ranking_file(folder, said):
    one, two = ((folder / ranking("lxmert_predict", name)).read_bytes() for name in ("tiny", "two"))
    assert one == two
    assert said["two"].count("image to text") == 1 and "submitit" not in said["two"]


def test_the_report_compares_both_models(folder, said):
    assert left(run_dir(folder, "error_report")) == {"metrics.json", "report"}
    assert said["error_report"].splitlines()[-1] == str(run_dir(folder, "error_report") / "report/index.html")
    assert list(json.loads((run_dir(folder, "error_report") / "metrics.json").read_text())) == ["LXMERT", "CLIP"]


# Once more


@pytest.fixture
def again(folder, said, monkeypatch, capsys):
    """again(job, *more): start a job of the chain once more from its own config.yaml; what it says."""
    monkeypatch.chdir(folder)

    def start_again(job: str) -> str:
        assert start(job, "--config", run_dir(folder, job) / "config.yaml", "--name", "tiny") == 0
        return capsys.readouterr().out

    return start_again


def written(path: Path) -> dict[str, int]:
    """When each file of a folder was written."""
    return {str(file): file.stat().st_mtime_ns for file in path.rglob("*") if file.is_file()}


def test_a_corpus_that_stands_is_left_alone(folder, again):
    before = written(folder / "data")
    assert "stands already: data/scenes" in again("make_scenes")
    assert written(folder / "data") == before


@pytest.mark.parametrize("job", ["lxmert_finetune", "clip_finetune"])
def test_training_that_is_over_goes_on_at_its_end(folder, again, job):
    checkpoints, history = run_dir(folder, job) / "checkpoints", run_dir(folder, job) / "metrics.jsonl"
    before, rows = written(checkpoints), history.read_text()
    assert "going on at step 4 of 4" in again(job)
    assert written(checkpoints) == before and history.read_text() == rows


@pytest.mark.parametrize("job", ["lxmert_predict", "clip_zero_shot"])
def test_a_ranking_that_stands_is_only_read(folder, again, said, job):
    before = (folder / ranking(job)).stat()
    table = again(job).partition("\n")[2]
    assert table and table in said[job]
    assert (folder / ranking(job)).stat().st_mtime_ns == before.st_mtime_ns


def test_a_report_is_written_again(folder, again, said):
    assert again("error_report").splitlines()[1:] == said["error_report"].splitlines()[1:]
