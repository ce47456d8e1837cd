"""What the processes of a job tell each other; a job of one process needs no process group."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch.distributed as dist

T = TypeVar("T")


def rank() -> int:
    """This process's number."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """How many there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this process is the one that writes results and prints."""
    return rank() == 0


def barrier() -> None:
    """Go on when every process has come here."""
    if dist.is_initialized():
        dist.barrier()


def all_gather(value: T) -> list[T]:
    """Every process's value, by rank."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * size()
    dist.all_gather_object(values, value)
    return values


def on_main(action: Callable[[], T]) -> T:
    """What the main process's action gives, in every process; its error too, or the others would wait for it in vain."""
    value: T | None = None
    error: Exception | None = None
    if is_main():
        try:
            value = action()
        except Exception as caught:
            error = caught
    value, fault = all_gather((value, error))[0]
    if fault is not None:
        raise error or fault  # the main process's own has its traceback
    return cast(T, value)


SECONDS_TO_OUTLIVE = 120
"""A loader worker that was told to end goes on for so long."""


def outlive_sigterm(worker: int) -> None:
    """To be called in a loader worker: Slurm's SIGTERM goes to every process of a step, and the job cannot save without its workers.

    They do end, late, as Python's own clearing up waits for them.
    """
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(SECONDS_TO_OUTLIVE))
