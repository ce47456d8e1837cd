"""Pipelines: what a file may say, in which order it is done, and what is left to do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from launch import pipeline
from launch.history import Record
from launch.options import OptionError
from launch.pipeline import PipelineError, finished, hand_on, read_pipeline
from launch.planning import PlanError
from launch.resources import Resources
from launch.run_folder import make_run_folder
from launch.status import Status
from launch.submission import Submission, SubmissionError

CHAIN = """
report:
  job: error_report
  options: {rankings: ["{rank}/ranking-test.h5", other.h5]}
scenes:
  job: make_scenes
  options: {seed: 3}
rank:
  job: clip_zero_shot
  options: {checkpoint: "{clip}/checkpoints/best"}
  resources: {minutes: 7}
clip:
  job: clip_finetune
  config: clip.yaml
  options: {learning_rate: 3e-4}
  after: [scenes]
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("clip.yaml").write_text("steps: 10\nlearning_rate: 1\n")


def read(text: str, **resources: int) -> list[pipeline.Stage]:
    Path("p.yaml").write_text(text)
    return read_pipeline(Path("p.yaml"), "p", resources)


# Files


def test_stages_come_behind_those_they_need_with_everything_decided():
    stages = {stage.name: stage for stage in read(CHAIN, cpus_per_gpu=2)}
    assert list(stages) == ["scenes", "clip", "rank", "report"]
    assert [stage.after for stage in stages.values()] == [(), ("scenes",), ("clip",), ("rank",)]
    assert stages["clip"].plan.folder == "runs/clip_finetune/p-clip"
    assert (stages["clip"].plan.config.steps, stages["clip"].plan.config.learning_rate) == (10, 3e-4)
    assert stages["rank"].plan.config.checkpoint == "runs/clip_finetune/p-clip/checkpoints/best"
    assert stages["report"].plan.config.rankings == (Path("runs/clip_zero_shot/p-rank/ranking-test.h5"), Path("other.h5"))
    assert [stage.plan.resources.cpus_per_gpu for stage in stages.values()] == [2] * 4
    assert stages["rank"].plan.resources.minutes == 7 and stages["clip"].plan.resources.minutes > 7
    assert not Path("runs").exists()


def test_the_command_line_wins_over_the_file():
    assert read(CHAIN, minutes=9)[2].plan.resources.minutes == 9


def test_independent_stages_keep_the_order_of_the_file():
    assert [stage.name for stage in read("b: {job: make_scenes}\na: {job: make_scenes}\nc: {job: make_scenes, after: b}")] == [
        "b",
        "a",
        "c",
    ]


def test_other_options_take_another_folder_and_so_does_what_depends_on_them():
    for stage in read(CHAIN):
        make_run_folder(stage.plan.run_dir, stage.plan.task.values)
    assert [stage.plan.folder for stage in read(CHAIN)][1:3] == ["runs/clip_finetune/p-clip", "runs/clip_zero_shot/p-rank"]
    changed = read(CHAIN.replace("3e-4", "1e-4"))
    assert [stage.plan.run_dir.name for stage in changed] == ["p-scenes", "p-clip-2", "p-rank-2", "p-report-2"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected stages"),
        ("- a", "expected stages"),
        ("a: [x", "not YAML"),
        ("a: 3", "stage a: needs a job"),
        ("a: {options: {}}", "stage a: needs a job"),
        ("a b: {job: make_scenes}", "stage a b: its name becomes a folder's"),
        ("a: {job: make_scenes}\na: {job: make_scenes}", "two stages are named a"),
        (
            "a: {job: make_scenes, opts: {}}",
            "stage a: 'opts' means nothing here; allowed: job, config, options, resources, after",
        ),
        ("a: {job: make_scenes, options: [1]}", "stage a: options: expected lines of 'option: value'"),
        ("a: {job: make_scense}", "stage a: no job 'make_scense'"),
        ("a: {job: make_scenes, options: {sed: 1}}", r"stage a: unknown option 'sed' \(did you mean 'seed'\?\)"),
        ("a: {job: make_scenes, options: {seed: x}}", "stage a: Error parsing --seed: .*'x'"),
        ("a: {job: make_scenes, resources: {minute: 1}}", "stage a, resources: unknown option 'minute'"),
        ("a: {job: make_scenes, resources: {minutes: 0}}", "stage a: --minutes 0"),
        ("a: {job: make_scenes, config: no.yaml}", "stage a: --config no.yaml: cannot be read"),
        ("a: {job: make_scenes, after: [b]}", "stage a: after: no stage 'b'; stages: a"),
        ("abc: {job: make_scenes, options: {folder: '{abd}/x'}}", r"stage abc: folder: no stage 'abd' \(did you mean 'abc'\?\)"),
        ("a: {job: make_scenes, after: [a]}", "wait for each other: a after a"),
        (
            "a: {job: make_scenes, after: b}\nb: {job: make_scenes, options: {folder: '{c}'}}\nc: {job: make_scenes, after: [b]}",
            "wait for each other: b after c after b",
        ),
    ],
)
def test_a_mistake_names_file_stage_and_value(text, message):
    with pytest.raises((PipelineError, PlanError, OptionError), match=rf"^p\.yaml: .*{message}"):
        read(text)
    assert not Path("runs").exists()


def test_a_file_that_is_not_there():
    with pytest.raises(PipelineError, match=r"q\.yaml: cannot be read"):
        read_pipeline(Path("q.yaml"), "q", {})


# What is left to do


def stand(stage: pipeline.Stage, state: str, ended: str = "", job: str = "", after: tuple[str, ...] = ()) -> Status:
    attempt = Record(1, job=job, ended=ended, how="finished" if ended else "")
    return Status(stage.plan.run_dir, (attempt,), Submission(job, "", "", after) if job else None, job, state, "process 3 on n1")  # type: ignore[arg-type]


@pytest.fixture
def chain() -> list[pipeline.Stage]:
    return read(CHAIN)


@pytest.mark.parametrize(
    ("ends", "done"),
    [
        (("1", "2", "3", "4"), {"scenes", "clip", "rank", "report"}),
        (("1", "1", "1", "1"), {"scenes", "clip", "rank", "report"}),
        (("5", "2", "3", "4"), {"scenes"}),
        (("1", "2", "", "4"), {"scenes", "clip"}),
        (("", "", "", ""), set()),
    ],
)
def test_a_stage_is_finished_if_it_ended_after_all_that_it_needs(chain, ends, done):
    found = {stage.name: stand(stage, "finished" if end else "failed", end) for stage, end in zip(chain, ends, strict=True)}
    assert finished(chain, found) == done


@pytest.fixture
def submitted(monkeypatch) -> list[tuple[str, tuple[str, ...]]]:
    """The stages that were submitted, with the jobs they wait for; job ids count from 100."""
    taken: list[tuple[str, tuple[str, ...]]] = []

    def submit(task, resources, after) -> Submission:
        assert isinstance(resources, Resources)
        taken.append((Path(task.run_dir).name, tuple(after)))
        return Submission(str(99 + len(taken)), "", "", tuple(after))

    monkeypatch.setattr(pipeline, "submit", submit)
    return taken


def test_all_is_submitted_at_once(chain, submitted):
    found = {stage.name: stand(stage, "not begun") for stage in chain}
    handed = [(stage.name, job, awaited) for stage, job, awaited in hand_on(chain, found, set())]
    assert handed == [("scenes", "100", ()), ("clip", "101", ("100",)), ("rank", "102", ("101",)), ("report", "103", ("102",))]
    assert submitted == [("p-scenes", ()), ("p-clip", ("100",)), ("p-rank", ("101",)), ("p-report", ("102",))]


def test_what_is_finished_is_skipped_and_what_is_at_work_is_awaited(chain, submitted):
    found = {
        stage.name: stand(stage, state) for stage, state in zip(chain, ("finished", "x", "failed", "cancelled"), strict=True)
    }
    found["clip"] = stand(chain[1], "running", job="7", after=("5",))
    handed = [job for _, job, _ in hand_on(chain, found, {"scenes"})]
    assert handed == ["", "7", "100", "101"] and submitted == [("p-rank", ("7",)), ("p-report", ("100",))]


def test_a_job_that_waits_for_what_failed_is_cancelled_and_submitted_anew(chain, submitted, monkeypatch):
    cancelled: list[str] = []
    monkeypatch.setattr("launch.slurm.cancel", cancelled.append)
    found = {stage.name: stand(stage, "finished") for stage in chain}
    found |= {"clip": stand(chain[1], "failed"), "rank": stand(chain[2], "pending", job="8", after=("7",))}
    found["report"] = stand(chain[3], "pending", job="9", after=("8",))
    assert [job for _, job, _ in hand_on(chain, found, {"scenes"})] == ["", "100", "101", "102"]
    assert cancelled == ["8", "9"]


def test_a_stage_at_work_outside_slurm_cannot_be_awaited(chain, submitted):
    found = {stage.name: stand(stage, "running") for stage in chain}
    with pytest.raises(PipelineError, match=r"stage scenes: process 3 on n1 is at work in runs/make_scenes/p-scenes"):
        list(hand_on(chain, found, set()))


def test_a_stage_that_slurm_refuses_is_named(chain, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise SubmissionError("sbatch refused the job")

    monkeypatch.setattr(pipeline, "submit", refuse)
    with pytest.raises(PipelineError, match="stage scenes: sbatch refused the job"):
        list(hand_on([replace(chain[0])], {"scenes": stand(chain[0], "not begun")}, set()))


def test_the_text_above_the_module_is_a_pipeline():
    """As far as a reader would copy it."""
    assert pipeline.__doc__
    content = yaml.safe_load(pipeline.__doc__.partition("\n")[2])
    assert {key for stage in content.values() for key in stage} == set(pipeline.KEYS)
