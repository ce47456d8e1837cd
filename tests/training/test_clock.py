from __future__ import annotations

import pytest

from training import clock
from training.clock import Clock


@pytest.fixture
def now(monkeypatch) -> list[float]:
    """The time; tests move it on."""
    time = [100.0]
    monkeypatch.setattr(clock.time, "monotonic", lambda: time[0])
    return time


def test_speed_leaves_validations_out(now):
    with Clock(0, 10, shown=False) as watch:
        for done in (1, 2):
            now[0] += 0.5
            watch.step(done, 1.0)
            now[0] += 60.0  # a validation
            watch.go_on()
        assert watch.speed() == pytest.approx(2.0)
        now[0] += 4.0
        watch.step(3, 1.0)
        assert watch.speed() == pytest.approx(0.25)


def test_plain_lines_off_a_terminal(now, capsys):
    with Clock(100, 200, shown=True) as watch:
        for done in range(101, 201):
            now[0] += 1.0
            watch.step(done, 0.25)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "step 101 of 200, loss 0.2500, 1.00 steps/s, 2 min left"
    assert [line.split(",")[0] for line in lines] == [f"step {step} of 200" for step in (101, 132, 163, 194, 200)]


def test_other_processes_are_silent(now, capfd):
    with Clock(0, 1, shown=False) as watch:
        watch.step(1, 0.5)
    assert capfd.readouterr() == ("", "")
