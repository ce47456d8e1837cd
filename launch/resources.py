"""What a job asks of the machine. No part of a run's identity: the same Config on more GPUs resumes the same run folder."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Resources:
    """Machine of one job; the flags of the same names override it."""

    nodes: int = 1
    """Number of nodes."""
    gpus_per_node: int = 1
    """GPUs, and so processes, on each node; 0 for a job that needs none."""
    minutes: int = 240
    """Time limit on Slurm. A job that reaches it is queued again and goes on where it was, as long as it gets on."""
    cpus_per_gpu: int = 4
    """CPU cores for each process."""
    memory_per_gpu_gb: int = 32
    """Memory for each process, in GiB."""
    partition: str = ""
    """Slurm partition; empty means the cluster's default."""
    account: str = ""
    """Slurm account."""
    qos: str = ""
    """Slurm quality of service."""
    constraint: str = ""
    """Node features to require, as Slurm's --constraint."""
    exclude: str = ""
    """Nodes to leave out, as Slurm's --exclude."""

    stalled_minutes: float = 30.0
    """Minutes without a finished step (or ranked block) after which a job counts as stuck and is ended; Slurm queues it again."""

    def __post_init__(self) -> None:
        for name in ("nodes", "minutes", "cpus_per_gpu", "memory_per_gpu_gb"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be at least 1")
        if self.gpus_per_node < 0:
            raise ValueError(f"--gpus-per-node {self.gpus_per_node}: must be 0 or more")

        if not self.stalled_minutes > 0:
            raise ValueError(f"--stalled-minutes {self.stalled_minutes}: must be above 0")

    @property
    def seconds_to_stop(self) -> int:
        """How long before the time limit Slurm sends the signal to stop: two minutes, less where the limit itself is short."""
        return min(120, max(15, self.minutes * 60 // 5))

    @property
    def processes_per_node(self) -> int:
        """One process a GPU, and one where no GPU is asked for."""
        return max(1, self.gpus_per_node)
