"""A run's folder: runs/<job>/<name>/ with its config, its environment and, later, its results."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import socket
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from launch.options import plain
from launch.source import edits, revision

PACKAGES = ("torch", "transformers", "accelerate", "submitit", "numpy", "h5py")


class RunFolderError(ValueError):
    """A run folder that belongs to another configuration or to a running process, or that cannot be written."""


def identity(config: Any) -> dict[str, Any]:
    """The options that say which run this is; fields with metadata identity=False (tracking, say) do not."""
    values = plain(config)
    return {field.name: values[field.name] for field in dataclasses.fields(config) if field.metadata.get("identity", True)}


def run_name(config: Any, without: Collection[str] = ()) -> str:
    """What differs from the defaults, short and readable: "epochs-3_learning_rate-0.001"; "default" if nothing does."""
    default = identity(type(config)())
    differ = {name: value for name, value in identity(config).items() if value != default[name] and name not in without}
    parts = [f"{name}-{_short(value)}" for name, value in differ.items()]
    name = "_".join(parts) or "default"
    if len(name) > 100:
        digest = hashlib.sha256(json.dumps(identity(config), sort_keys=True).encode()).hexdigest()[:8]
        name = f"{name[:90]}-{digest}"
    return name


def _short(value: Any) -> str:
    text = "+".join(map(str, value)) if isinstance(value, list) else f"{value:g}" if isinstance(value, float) else str(value)
    text = re.sub(r"^(data|runs)/|/checkpoints\b", "", text)
    return re.sub(r"[^A-Za-z0-9.+-]+", ".", text).strip(".")[-48:] or "none"


def find_run_folder(job: str, config: Any, name: str) -> Path:
    """Where this configuration runs; nothing is made yet. A folder of another configuration raises RunFolderError."""
    check_name(name)
    run_dir = Path("runs", job, name or run_name(config)).absolute()
    changes = changed_options(run_dir, config)
    if changes:
        raise RunFolderError(
            f"{run_dir}: made with other options ({', '.join(changes)}); choose another --name or remove the folder"
        )
    return run_dir


def check_name(name: str) -> None:
    """RunFolderError if a folder should not have this name; empty is fine, and means another one."""
    if name and (re.search(r"[^\w.+-]", name) or not name.strip(".")):
        raise RunFolderError(f"--name {name!r}: use letters, digits, and . _ + - only")


def changed_options(run_dir: Path, config: Any) -> list[str]:
    """How the options that a run folder was made with differ from these: "steps was 3 and is 4". None for a new folder."""
    before, now = _saved(run_dir / "config.yaml"), identity(config)
    default = identity(type(config)())
    # An option that the folder's config does not know came into the code later: then it had its default.
    differ = [key for key in now if before.get(key, default[key]) != now[key]]
    return [f"{key} was {before.get(key, default[key])} and is {now[key]}" for key in differ] if before else []


def _saved(path: Path) -> dict[str, Any]:
    try:
        saved = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, yaml.YAMLError):
        saved = None
    if not isinstance(saved, dict):
        raise RunFolderError(f"{path}: cannot be read; choose another --name or remove the folder")
    return saved


def make_run_folder(run_dir: Path, values: dict[str, Any]) -> None:
    """Make the folder if need be, and keep the options in its config.yaml."""
    with making(run_dir):
        (run_dir / "logs").mkdir(parents=True, exist_ok=True)
        write_text(run_dir / "config.yaml", yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


@contextmanager
def making(folder: Path) -> Iterator[None]:
    """Tells in one line that a folder cannot be made or written."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise
        raise RunFolderError(f"{folder}: cannot be made or written ({error.strerror}: {error.filename})") from None


@contextmanager
def lock(run_dir: Path) -> Iterator[Callable[[], bool]]:
    """Gives a function that takes the run folder's lock, if need be, and says whether it is ours.

    The kernel lets go of the lock when the process dies, however it dies.
    """
    with (run_dir / ".lock").open("w") as file:

        def locked() -> bool:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                return False
            except OSError:  # a file system without locks
                pass
            return True

        yield locked


def is_locked(run_dir: Path) -> bool:
    """Whether another process holds the run folder's lock. Where it is free, to look takes it for an instant."""
    try:
        with (run_dir / ".lock").open() as file:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return True
    except OSError:  # no such file, or a file system without locks
        return False
    return False


def remove_unused(run_dir: Path) -> None:
    """Remove a run folder in which nothing was made, by the first attempt at it."""
    made = {path.name for path in run_dir.glob("*")} - {
        "config.yaml",
        "environment.json",
        "code.diff",
        ".lock",
        "logs",
        "attempts",
    }
    attempts = list((run_dir / "attempts").glob("[0-9]*.json"))
    if not made and not any((run_dir / "logs").glob("*")) and len(attempts) < 2:
        shutil.rmtree(run_dir, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write aside and rename, so that no reader ever sees half a file."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def remember_job(run_dir: Path, job: str) -> None:
    """Note which run a Slurm job is at work on: `runs/.jobs/<job id>`."""
    path = run_dir.parents[1] / ".jobs" / job
    path.parent.mkdir(exist_ok=True)
    write_text(path, str(run_dir))


def run_folder_of(job: str) -> Path | None:
    """The run that a Slurm job of this folder is, or was, at work on."""
    path = Path("runs", ".jobs", job)
    return Path(path.read_text()) if path.is_file() else None


def save_environment(run_dir: Path, started: dict[str, Any]) -> None:
    """environment.json: versions, code revision, host and Slurm ids of the last start, and what is given in `started`.

    Beside it, code.diff, if the checkout was edited. Code that has changed since the start before is told on the terminal.
    """
    path, changes = run_dir / "environment.json", edits()
    before, now = json.loads(path.read_text()).get("revision", "") if path.exists() else "", revision()
    if before and before != now:
        print(
            f"warning: this run was started by code of revision {before or 'unknown'} and goes on with {now or 'unknown'}",
            flush=True,
        )
    if changes:
        write_text(run_dir / "code.diff", changes + "\n")
    environment = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        **started,
        "revision": now,
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "host": socket.gethostname(),
        "cpus": len(os.sched_getaffinity(0)),
        "slurm": {
            key: os.environ[key] for key in sorted(os.environ) if re.match(r"SLURM_(JOB|ARRAY|RESTART|NNODES|NTASKS)", key)
        },
    }
    write_text(path, json.dumps(environment, indent=1) + "\n")
