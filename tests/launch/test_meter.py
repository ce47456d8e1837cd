"""What a log and an attempt learn of a transfer."""

from __future__ import annotations

import re

from launch import attempt, meter


def test_a_log_gets_a_few_lines_and_the_attempt_all_that_is_done(monkeypatch, capsys):
    saved = []
    monkeypatch.setattr(attempt.current().__class__, "saved", lambda self, progress: saved.append(progress))
    monkeypatch.setattr(meter, "SECONDS_BETWEEN_LINES", 0.0)
    with meter.meter("a.zip", 10 * meter.MIB, 2 * meter.MIB, before=5 * meter.MIB) as advance:
        advance(4 * meter.MIB)
    assert saved == [11, 11]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all(re.fullmatch(r"a\.zip: 6\.3 of 10\.5 MB, [\d,.]+ MB/s", line) for line in lines)


def test_lines_are_rare_and_the_last_one_is_always_there(capsys):
    with meter.meter("a.zip", None) as advance:
        for _ in range(1000):
            advance(1000)
    assert len(capsys.readouterr().err.splitlines()) == 1
