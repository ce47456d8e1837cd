"""Stages that need each other: read from a YAML file, compared with what is done, handed to Slurm at once or run here in turn.

scenes:
  job: make_scenes
  options: {folder: data/scenes}
lxmert:
  job: lxmert_finetune
  config: jobs/demo/lxmert.yaml             # a file of options; those below win over it
  options: {corpus: data/scenes, steps: 500}
  resources: {minutes: 60}
  after: [scenes]
lxmert_rank:
  job: lxmert_predict
  options: {checkpoint: "{lxmert}/checkpoints/best"}   # {lxmert}: the run folder of that stage, which must have ended well
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from launch import slurm
from launch.options import as_flags
from launch.planning import Plan, load_job, plan
from launch.resources import Resources
from launch.status import Status
from launch.submission import Submission, submit

KEYS = ("job", "config", "options", "resources", "after")
REFERENCE = re.compile(r"\{([^{}]*)\}")


class PipelineError(ValueError):
    """A file that describes no pipeline, or a stage that cannot be handed on."""


@dataclass(frozen=True)
class Stage:
    """One stage with all that it needs decided."""

    name: str
    plan: Plan
    after: tuple[str, ...]
    """Stages that must have ended well before it begins."""


def read_pipeline(path: Path, name: str, resources: Mapping[str, Any]) -> list[Stage]:
    """The stages of a file, each behind those it needs. Their run folders are runs/<job>/<name>-<stage>.

    `resources` hold for every stage and win over the file. PipelineError, PlanError or OptionError name file, stage and value.
    """
    described = _load(path)
    after = {stage: _needed(described, stage, f"{path}: stage {stage}") for stage in described}
    stages: dict[str, Stage] = {}
    for stage in _in_order(path, after):
        content, where = described[stage], f"{path}: stage {stage}"
        folders = {other: stages[other].plan.folder for other in after[stage]}
        options = {key: _filled_in(value, folders) for key, value in content.get("options", {}).items()}
        flags = [f"--config={content['config']}"] if "config" in content else []
        flags += as_flags(load_job(content["job"], where).Config, options, where)
        flags += as_flags(Resources, content.get("resources", {}), f"{where}, resources")
        stages[stage] = Stage(stage, plan(content["job"], flags, where, f"{name}-{stage}", resources), after[stage])
    return list(stages.values())


def _load(path: Path) -> dict[str, dict[str, Any]]:
    try:
        tree = yaml.compose(path.read_text(encoding="utf-8"), yaml.BaseLoader)
    except OSError as error:
        raise PipelineError(f"{path}: cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise PipelineError(f"{path}: not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(tree, yaml.MappingNode) or not tree.value:
        raise PipelineError(f"{path}: expected stages, each a name with job, options and so on below it")
    names = [key.value for key, _ in tree.value]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise PipelineError(f"{path}: two stages are named {twice[0]}")
    described = yaml.BaseLoader("").construct_document(tree)  # scalars stay text, as the flags they become
    for name, content in described.items():
        _check(content, name, f"{path}: stage {name}")
    return dict(described)


def _check(content: Any, name: str, where: str) -> None:
    if not re.fullmatch(r"[\w.+-]+", str(name)):
        raise PipelineError(f"{where}: its name becomes a folder's; use letters, digits, and . _ + - only")
    if not isinstance(content, dict) or not isinstance(content.get("job"), str):
        raise PipelineError(f"{where}: needs a job, as job: make_scenes")
    unknown = [key for key in content if key not in KEYS]
    if unknown:
        raise PipelineError(f"{where}: {unknown[0]!r} means nothing here; allowed: {', '.join(KEYS)}")
    for key in ("options", "resources"):
        if not isinstance(content.get(key, {}), dict):
            raise PipelineError(f"{where}: {key}: expected lines of 'option: value', not {content[key]!r}")


def _needed(described: Mapping[str, Any], stage: str, where: str) -> tuple[str, ...]:
    """The stages that one names, in `after` or in its options."""
    content = described[stage]
    asked = content.get("after", [])
    named = [("after", name) for name in ([asked] if isinstance(asked, str) else asked)]
    named += [(key, name) for key, value in content.get("options", {}).items() for name in _references(value)]
    for key, name in named:
        if name not in described:
            near = difflib.get_close_matches(str(name), described, 1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise PipelineError(f"{where}: {key}: no stage {name!r}{hint}; stages: {', '.join(described)}")
    return tuple(dict.fromkeys(name for _, name in named))


def _references(value: Any) -> Iterator[str]:
    for text in value if isinstance(value, list) else [value]:
        yield from REFERENCE.findall(text) if isinstance(text, str) else ()


def _filled_in(value: Any, folders: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return [_filled_in(item, folders) for item in value]
    return REFERENCE.sub(lambda found: folders[found[1]], value) if isinstance(value, str) else value


def _in_order(path: Path, after: Mapping[str, Sequence[str]]) -> list[str]:
    """Every stage behind those it needs, and else as in the file."""
    order: list[str] = []

    def place(stage: str, above: tuple[str, ...]) -> None:
        if stage in above:
            circle = [*above[above.index(stage) :], stage]
            raise PipelineError(f"{path}: stages that wait for each other: {' after '.join(circle)}")
        for other in after[stage]:
            place(other, (*above, stage))
        if stage not in order:
            order.append(stage)

    for stage in after:
        place(stage, ())
    return order


def finished(stages: Sequence[Stage], found: Mapping[str, Status]) -> set[str]:
    """The stages that need not run again: they ended well, after all that they need ended well."""
    done: dict[str, str] = {}
    for stage in stages:
        attempt = found[stage.name].attempt
        if (
            found[stage.name].state == "finished"
            and attempt
            and all(done.get(name, "~") <= attempt.ended for name in stage.after)
        ):
            done[stage.name] = attempt.ended
    return set(done)


def hand_on(stages: Sequence[Stage], found: Mapping[str, Status], done: set[str]) -> Iterator[tuple[Stage, str, tuple[str, ...]]]:
    """Submit what is neither finished nor at work. Gives for each stage in turn its job, if it has one, and the jobs that it awaits."""
    jobs: dict[str, str] = {}
    for stage in stages:
        status = found[stage.name]
        needed = tuple(jobs[name] for name in stage.after if name in jobs)
        if stage.name not in done:
            jobs[stage.name] = status.job if _goes_on(stage, status, needed) else _submit(stage, needed).job
        yield stage, jobs.get(stage.name, ""), needed


def _goes_on(stage: Stage, status: Status, needed: Sequence[str]) -> bool:
    """Whether a job has the stage already. One that waits for other jobs than those needed now can never begin: it is cancelled."""
    if status.at_work and not status.job:
        raise PipelineError(f"stage {stage.name}: {status.why} is at work in {stage.plan.folder}; wait for it or end it")
    if status.state == "pending" and not set(needed) <= set(status.submission.after if status.submission else ()):
        slurm.cancel(status.job)
        return False
    return status.at_work


def _submit(stage: Stage, needed: Sequence[str]) -> Submission:
    try:
        return submit(stage.plan.task, stage.plan.resources, after=needed)
    except ValueError as error:
        raise PipelineError(f"stage {stage.name}: {error}") from None
