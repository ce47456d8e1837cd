"""metrics.jsonl always, Weights & Biases on request; one history across restarts."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any


class Tracker:
    """Appends rows to metrics.jsonl. On a restart at `step`, later rows are dropped: they will be made again."""

    def __init__(self, run_dir: Path, step: int, wandb: bool, config: dict[str, Any]) -> None:
        self._path = run_dir / "metrics.jsonl"
        rows = [row for row in read_history(self._path) if row["step"] <= step]
        part = self._path.with_suffix(".jsonl.part")
        part.write_text("".join(json.dumps(row) + "\n" for row in rows))
        part.replace(self._path)
        self._file = self._path.open("a")
        self._run = _wandb_run(run_dir, config, rows) if wandb else None

    def log(self, row: dict[str, Any]) -> None:
        """One row; it must hold `step`."""
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        if self._run is not None:
            self._run.log(_flat(row), step=row["step"])

    def close(self) -> None:
        self._file.close()
        if self._run is not None:
            self._run.finish()


def read_history(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl; a last line cut short by a kill is left out."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def _wandb_run(run_dir: Path, config: dict[str, Any], rows: list[dict[str, Any]]) -> Any:
    """Start or go on with this run folder's W&B run. Everything it writes stays in the run folder."""
    folder = run_dir / "wandb"
    folder.mkdir(exist_ok=True)
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR"):
        os.environ[name] = str(folder)
    import wandb

    job, name = run_dir.parts[-2:]
    run_id = "-".join([job, name])[-100:]
    offline = os.environ.get("WANDB_MODE") == "offline"
    if offline:  # wandb does not append to an offline run: replay the history into one new folder instead
        for old in folder.glob("wandb/offline-run-*"):
            shutil.rmtree(old)
    run = wandb.init(
        project="misrank", group=job, name=name, id=run_id, resume=None if offline else "allow", dir=folder, config=config
    )
    if offline:
        for row in rows:
            run.log(_flat(row), step=row["step"])
    return run


def _flat(row: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in row.items():
        flat |= _flat(value, f"{prefix}{key}/") if isinstance(value, dict) else {prefix + key: value}
    return flat
