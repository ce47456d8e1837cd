"""Runs that are planned: a job, its options, its machine and its folder, all checked before anything starts."""

from __future__ import annotations

import difflib
import importlib
import io
import itertools
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from launch.options import Command, OptionError, as_flags, parse, plain
from launch.resources import Resources
from launch.run_folder import changed_options, check_name, find_run_folder
from launch.source import REPOSITORY
from launch.task import Task


class PlanError(ValueError):
    """A plan with a job, an option or a value that cannot be."""


@dataclass(frozen=True)
class Plan:
    """One run, ready to be started."""

    task: Task
    resources: Resources
    config: Any

    @property
    def run_dir(self) -> Path:
        return Path(self.task.run_dir)

    @property
    def folder(self) -> str:
        """The run folder as one would type it: runs/<job>/<name>."""
        return "/".join(self.run_dir.parts[-3:])


def plan(job: str, flags: Sequence[str], where: str, name: str = "", resources: Mapping[str, Any] | None = None) -> Plan:
    """A run of a job with these flags; a mistake raises PlanError or OptionError, with the place `where` it stands.

    Without a name the run folder is named as the job itself would name it; a name that other options took gets a number.
    `resources` were asked for many runs: a job that needs no GPU is one process and gets no more GPUs and nodes of them.
    """
    module = load_job(job, where)
    needless = () if module.RESOURCES.gpus_per_node else ("nodes", "gpus_per_node")
    asked = {key: value for key, value in (resources or {}).items() if key not in needless}
    command = _parsed(module, [*flags, *as_flags(Resources, asked, where)], where)
    run_dir = find_run_folder(job, command.config, name and _free_name(job, command.config, name))
    started = {"command": sys.argv, "resources": asdict(command.resources)}
    return Plan(Task(f"jobs.{job}", plain(command.config), str(run_dir), started), command.resources, command.config)


def load_job(job: str, where: str) -> ModuleType:
    """The module of a job. The tools beside the jobs, which have no RESOURCES, are none."""
    names = sorted(path.stem for path in (REPOSITORY / "jobs").glob("[a-z]*.py"))
    if job in names and hasattr(module := importlib.import_module(f"jobs.{job}"), "RESOURCES"):
        return module
    jobs = [name for name in names if hasattr(importlib.import_module(f"jobs.{name}"), "RESOURCES")]
    near = difflib.get_close_matches(job, jobs, 1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise PlanError(f"{where}: no job {job!r}{hint}; jobs: {', '.join(jobs)}")


def _parsed(module: ModuleType, flags: Sequence[str], where: str) -> Command[Any]:
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            return parse(module.Config, module.RESOURCES, flags, f"jobs/{module.__name__.split('.')[-1]}.py", "")
    except OptionError as error:  # in a file that --config names
        raise PlanError(f"{where}: {error}") from None
    except SystemExit:
        raise PlanError(f"{where}: {_message(said.getvalue())}") from None


def _message(box: str) -> str:
    """What tyro says of a wrong flag, without the frame that it draws around."""
    lines = [line.strip("│╭╮╰╯ ") for line in box.splitlines()[1:]]
    told = itertools.takewhile(lambda line: not line.startswith(("For full helptext", "Argument helptext")), lines)
    return re.sub(r"^Error parsing (config|resources): ", "", " ".join(line for line in told if line.strip("─ ")))


def _free_name(job: str, config: Any, name: str) -> str:
    """This name, or the first of name-2, name-3 ... whose folder is new or was made with the same options."""
    check_name(name)
    names = (name if number == 1 else f"{name}-{number}" for number in itertools.count(1))
    return next(name for name in names if not changed_options(Path("runs", job, name), config))


def run_here(plan: Plan) -> int:
    """Run it on this machine, in a process of its own; its exit code, when it has ended."""
    flags = [*as_flags(type(plan.config), plan.task.values, ""), *as_flags(Resources, asdict(plan.resources), "")]
    job = REPOSITORY / "jobs" / f"{plan.task.name}.py"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.stdout.flush()
    with subprocess.Popen([sys.executable, str(job), "--cluster=local", f"--name={plan.run_dir.name}", *flags]) as process:
        try:
            code = process.wait()
        except BaseException as end:
            if not isinstance(end, KeyboardInterrupt):  # which the process has heard itself
                process.terminate()
            process.wait()
            raise
    return code if code >= 0 else 128 - code
