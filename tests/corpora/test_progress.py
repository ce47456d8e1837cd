"""Progress lines off a terminal."""

from __future__ import annotations

import itertools

import pytest

from corpora import progress as module
from corpora.progress import progress


def test_items_pass_through_with_one_last_line(capsys):
    assert list(progress([3, 1, 2], "files")) == [3, 1, 2]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("files: 3 of 3")


def test_a_line_at_most_every_30_seconds(capsys, monkeypatch):
    clock = itertools.count(0, 5)
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    list(progress(iter(range(40)), "files", 40))
    done = [int(line.split()[1]) for line in capsys.readouterr().err.splitlines()]
    assert done[-1] == 40
    assert 4 <= len(done) <= 9  # 40 items of 5 to 10 s: one line in 30 s, not one an item


def test_unknown_total(capsys):
    list(progress(iter("ab"), "rows"))
    assert capsys.readouterr().err.startswith("rows: 2, ")


def test_only_the_first_process_speaks(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert list(progress([1, 2], "files")) == [1, 2]
    assert capsys.readouterr().err == ""


def test_an_error_passes_through_without_a_last_line(capsys):
    def items():
        yield 1
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        list(progress(items(), "files"))
    assert "files: " not in capsys.readouterr().err
