from __future__ import annotations

import os
from pathlib import Path

import pytest
from real_processes import in_processes

from training import processes
from training.loop import TrainingError, process_group


def test_alone():
    assert (processes.rank(), processes.size(), processes.is_main()) == (0, 1, True)
    assert processes.all_gather("a") == ["a"]
    assert processes.on_main(lambda: 3) == 3
    with pytest.raises(KeyError, match="gone"):
        processes.on_main(lambda: {}["gone"])
    processes.barrier()


def test_three(tmp_path):
    def talk() -> None:
        process_group("no")
        rank = int(os.environ["RANK"])
        assert (processes.rank(), processes.size(), processes.is_main()) == (rank, 3, rank == 0)
        assert processes.all_gather(f"from {rank}") == ["from 0", "from 1", "from 2"]
        assert processes.on_main(lambda: Path(f"of-{rank}")) == Path("of-0")
        (tmp_path / str(rank)).touch()
        processes.barrier()
        assert len(list(tmp_path.iterdir())) == 3

    assert in_processes(3, talk) == [0, 0, 0]


def test_an_error_of_the_main_process_is_everybodys():
    def fail() -> None:
        process_group("no")
        with pytest.raises(OSError, match="No space left on device: 'x'"):
            processes.on_main(lambda: (_ for _ in ()).throw(OSError(28, "No space left on device", "x")))
        assert processes.all_gather(1) == [1, 1]  # and all are still together

    assert in_processes(2, fail) == [0, 0]


def test_processes_that_do_not_find_each_other_are_refused(monkeypatch):
    """Each would train alone on its share, and all would write one folder."""
    process_group("no")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TrainingError, match="2 processes were started and accelerate joined 1"):
        process_group("no")
