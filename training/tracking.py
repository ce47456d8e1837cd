"""metrics.jsonl always, Weights & Biases on request; one history across restarts."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from pathlib import Path
from typing import Any


class Tracker:
    """Appends rows to metrics.jsonl. On a restart at `step`, later rows are dropped: they will be made again."""

    def __init__(self, run_dir: Path, step: int, wandb: bool, config: dict[str, Any]) -> None:
        run_dir.mkdir(parents=True, exist_ok=True)
        path = run_dir / "metrics.jsonl"
        rows = [row for row in read_history(path) if row["step"] <= step]
        part = path.with_suffix(".jsonl.part")
        self._file = part.open("w")
        self._file.writelines(json.dumps(row) + "\n" for row in rows)
        self.flush()
        part.replace(path)
        self._run = _wandb_run(run_dir, config, rows) if wandb else None

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._file.close()
        if self._run is not None:
            self._run.finish(exit_code=int(kind is not None))

    def log(self, row: dict[str, Any]) -> None:
        """One row; it must hold `step`."""
        self._file.write(json.dumps(row, allow_nan=False) + "\n")
        self._file.flush()
        if self._run is not None:
            self._run.log(_flat(row), step=row["step"])

    def flush(self) -> None:
        """Have the rows on the disk, before a checkpoint that follows them."""
        self._file.flush()
        os.fsync(self._file.fileno())


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
    """Start or go on with this run folder's W&B run. What it keeps stays in the run folder."""
    folder = run_dir / "wandb"
    folder.mkdir(exist_ok=True)
    os.environ |= {f"WANDB_{name}_DIR": str(folder) for name in ("DATA", "CACHE", "CONFIG")}
    import wandb

    offline = os.environ.get("WANDB_MODE") == "offline"
    if offline:  # wandb does not append to an offline run: replay the history into one new folder instead
        for old in folder.glob("offline-run-*"):
            shutil.rmtree(old)
    job, name = run_dir.parts[-2:]
    run = wandb.init(
        project="misrank",
        group=job,
        name=name,
        id=_run_id(folder, job, name),
        resume=None if offline else "allow",
        dir=run_dir,
        config=config,
    )
    for row in rows if offline else ():
        run.log(_flat(row), step=row["step"])
    return run


def _run_id(folder: Path, job: str, name: str) -> str:
    """This run folder's own id: a folder of the same name made anew is another run, whose steps W&B would else ignore."""
    path = folder / "run-id.txt"
    if not path.exists():
        path.write_text(f"{job}-{name}"[-90:] + f"-{secrets.token_hex(4)}")
    return path.read_text()


def _flat(row: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in row.items():
        flat |= _flat(value, f"{prefix}{key}/") if isinstance(value, dict) else {prefix + key: value}
    return flat
