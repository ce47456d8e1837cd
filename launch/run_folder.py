"""A run's folder: runs/<job>/<name>/ with its config, its environment and, later, its results."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import socket
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from launch.options import plain

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "transformers", "accelerate", "submitit", "numpy", "h5py")


class RunFolderError(ValueError):
    """A run folder that belongs to another configuration."""


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
    text = "+".join(map(str, value)) if isinstance(value, list) else str(value)
    text = re.sub(r"^(data|runs)/|/checkpoints\b", "", text)
    return re.sub(r"[^A-Za-z0-9.+-]+", ".", text).strip(".")[-48:] or "none"


def open_run_folder(job: str, config: Any, name: str) -> Path:
    """Make or find the run folder and keep config.yaml in it. A folder of another configuration raises RunFolderError."""
    if name and re.search(r"[^\w.+-]", name):
        raise RunFolderError(f"--name {name!r}: use letters, digits, and . _ + - only")
    run_dir = Path("runs", job, name or run_name(config)).absolute()
    saved = run_dir / "config.yaml"
    if saved.exists():
        # Compare as text: that is how YAML's own types are avoided on the way back in.
        before = yaml.load(saved.read_text(), yaml.BaseLoader)
        now = yaml.load(yaml.safe_dump(plain(config)), yaml.BaseLoader)
        differ = [key for key in identity(config) if before.get(key) != now[key]]
        if differ:
            changes = ", ".join(f"{key} was {before.get(key)!r} and is {now[key]!r}" for key in differ)
            raise RunFolderError(f"{run_dir}: made with other options ({changes}); choose another --name or remove the folder")
    (run_dir / "logs").mkdir(parents=True, exist_ok=True)
    write_text(saved, yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True))
    return run_dir


def write_text(path: Path, text: str) -> None:
    """Write aside and rename, so that no reader ever sees half a file."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(text)
    part.replace(path)


def save_environment(run_dir: Path, resources: dict[str, Any]) -> None:
    """environment.json: versions, code revision, host, command and Slurm ids of the last start."""
    environment = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "revision": revision(),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "host": socket.gethostname(),
        "cpus": len(os.sched_getaffinity(0)),
        "resources": resources,
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
