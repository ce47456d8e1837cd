"""A run's folder: runs/<job>/<name>/ with its config, its environment and, later, its results."""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from launch.options import plain

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "transformers", "accelerate", "submitit", "numpy", "h5py")


class RunFolderError(ValueError):
    """A run folder that belongs to another configuration or to a running process, or that cannot be written."""


def identity(config: Any) -> dict[str, Any]:
    """The options that say which run this is; fields with metadata identity=False (tracking, say) do not."""
    values = plain(config)
    return {field.name: values[field.name] for field in dataclasses.fields(config) if field.metadata.get("identity", True)}


def run_name(config: Any) -> str:
    """What differs from the defaults, short and readable: "epochs-3_learning_rate-0.001"; "default" if nothing does."""
    default = identity(type(config)())
    parts = [f"{name}-{_short(value)}" for name, value in identity(config).items() if value != default[name]]
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
    if name and (re.search(r"[^\w.+-]", name) or not name.strip(".")):
        raise RunFolderError(f"--name {name!r}: use letters, digits, and . _ + - only")
    run_dir = Path("runs", job, name or run_name(config)).absolute()
    before, now = _saved(run_dir / "config.yaml"), identity(config)
    default = identity(type(config)())
    # An option that the folder's config does not know came into the code later: then it had its default.
    differ = [key for key in now if before.get(key, default[key]) != now[key]]
    if before and differ:
        changes = ", ".join(f"{key} was {before.get(key, default[key])} and is {now[key]}" for key in differ)
        raise RunFolderError(f"{run_dir}: made with other options ({changes}); choose another --name or remove the folder")
    return run_dir


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
    try:
        (run_dir / "logs").mkdir(parents=True, exist_ok=True)
        write_text(run_dir / "config.yaml", yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise RunFolderError(f"{run_dir}: the run folder cannot be made here ({error.strerror}: {error.filename})") from None


@contextmanager
def held(run_dir: Path) -> Iterator[None]:
    """Hold the run folder against a second process; RunFolderError if one is at work in it. Left unused by an error, it is removed.

    The kernel lets go of the lock when the process dies, however it dies.
    """
    with (run_dir / ".lock").open("w") as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise RunFolderError(f"{run_dir}: another process is at work here; wait for it or choose another --name") from None
        except OSError:  # a file system without locks
            pass
        try:
            yield
        except BaseException:
            if _unused(run_dir):
                shutil.rmtree(run_dir, ignore_errors=True)
            raise


def _unused(run_dir: Path) -> bool:
    made = {path.name for path in run_dir.glob("*")} - {"config.yaml", "environment.json", ".lock", "logs"}
    return not made and not any((run_dir / "logs").glob("*"))


def write_text(path: Path, text: str) -> None:
    """Write aside and rename, so that no reader ever sees half a file."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def save_environment(run_dir: Path, started: dict[str, Any]) -> None:
    """environment.json: versions, code revision, host and Slurm ids of the last start, and what is given in `started`."""
    environment = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        **started,
        "revision": revision(),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "host": socket.gethostname(),
        "cpus": len(os.sched_getaffinity(0)),
        "slurm": {
            key: os.environ[key] for key in sorted(os.environ) if re.match(r"SLURM_(JOB|ARRAY|RESTART|NNODES|NTASKS)", key)
        },
    }
    write_text(run_dir / "environment.json", json.dumps(environment, indent=1) + "\n")


def revision() -> str:
    """git revision of the code, with "+changes" if the checkout was edited; empty outside a checkout."""
    git = ["git", "-C", str(REPOSITORY)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        edited = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head + ("+changes" if edited else "")
