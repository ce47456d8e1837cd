"""The attempts at a run, as files."""

from __future__ import annotations

import json

import pytest

from launch import history
from launch.history import Record, begin, futile_attempts, is_replaced, latest, records, update


def attempts(run_dir, *ends: str) -> None:
    """A history: "crashed", or "crashed+10" where 10 steps were saved; "7:crashed" by job 7, else by job 1."""
    for end in ends:
        job, _, rest = end.rpartition(":")
        how, _, steps = rest.partition("+")
        record = update(run_dir, begin(run_dir, run_dir / "logs"), job=job or "1", how=how)
        update(run_dir, record, progress=record.began_at + int(steps or 0))


def test_numbers_and_progress_go_on(tmp_path, monkeypatch):
    assert latest(tmp_path) is None and records(tmp_path) == []
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    first = begin(tmp_path, tmp_path / "logs")
    assert (first.number, first.job, first.restarts, first.began_at, first.logs) == (1, "7", 2, 0, str(tmp_path / "logs"))
    first = update(tmp_path, first, progress=40, how="crashed", message="why")
    second = begin(tmp_path, tmp_path / "logs")
    assert (second.number, second.began_at, second.progress, second.how) == (2, 40, 40, "")
    assert records(tmp_path) == [first, second] and latest(tmp_path) == second
    assert sorted(path.name for path in (tmp_path / "attempts").iterdir()) == ["0001.json", "0002.json", "newest"]


def test_the_tenth_comes_after_the_ninth(tmp_path):
    attempts(tmp_path, *["preempted"] * 11)
    assert [record.number for record in records(tmp_path)] == list(range(1, 12))


def test_of_two_at_the_same_moment_one_gets_the_number(tmp_path, monkeypatch):
    """Also where the file system knows no locks."""
    monkeypatch.setattr(history, "latest", lambda run_dir: None)
    mine = begin(tmp_path, tmp_path)
    with pytest.raises(FileExistsError):
        begin(tmp_path, tmp_path / "another")
    monkeypatch.undo()
    assert records(tmp_path) == [mine]


def test_replaced(tmp_path):
    attempts(tmp_path, "", "")
    assert is_replaced(tmp_path, 1) and not is_replaced(tmp_path, 2)
    assert not is_replaced(tmp_path, 0), "0 stands for a process that knows no number"
    begin(tmp_path, tmp_path)
    assert is_replaced(tmp_path, 1) and is_replaced(tmp_path, 2)


@pytest.mark.parametrize("content", ["", '{"number": 2', '{"number": 2, "unknown": 1}'])
def test_a_record_of_another_version_or_half_written_still_counts(tmp_path, content):
    attempts(tmp_path, "crashed+5")
    (tmp_path / "attempts" / "0002.json").write_text(content)
    assert [record.number for record in records(tmp_path)] == [1, 2]
    assert latest(tmp_path).job == "" and begin(tmp_path, tmp_path).number == 3


def test_other_files_are_no_attempts(tmp_path):
    attempts(tmp_path, "crashed")
    for name in ("meeting-1234.json", "0002.json.77.part", ".0002.json"):
        (tmp_path / "attempts" / name).write_text("{}")
    assert latest(tmp_path).number == 1


@pytest.mark.parametrize(
    ("ends", "count"),
    [
        ((), 0),
        (("crashed",), 1),
        (("crashed", "stalled", "time limit"), 3),
        (("crashed", "crashed+10"), 0),
        (("crashed+10", "crashed"), 1),
        (("crashed", "time limit+1", "stalled", "crashed"), 2),
        (("crashed", "preempted", "preempted", "crashed"), 2),  # a preemption between does not count,
        (("crashed", "preempted+3", "crashed"), 1),  # but what it saved does
        (("preempted", "preempted", "preempted"), 0),
        (("crashed", "", "crashed"), 2),  # a lost node
        (("crashed", "crashed", ""), 2),
        (("", "", ""), 0),
        (("6:crashed", "6:crashed", "6:crashed", "7:crashed"), 1),  # the user has mended something and tries again
        (("6:crashed", "7:preempted"), 0),
    ],
)
def test_futile_attempts(tmp_path, ends, count):
    attempts(tmp_path, *ends)
    assert futile_attempts(tmp_path) == count


def test_replaced_also_where_a_new_file_is_not_seen_yet(tmp_path):
    """A network disk keeps for a minute that a name is not there."""
    attempts(tmp_path, "", "")
    (tmp_path / "attempts" / "0002.json").unlink()
    assert is_replaced(tmp_path, 1) and not is_replaced(tmp_path, 2)
    (tmp_path / "attempts" / "newest").write_text("")  # in the moment of being written
    assert not is_replaced(tmp_path, 1)


def test_what_a_record_says_of_its_process():
    assert str(Record(1, "12_3", 0, "n1", 5, started="today")) == "job 12_3 on n1, since today"
    assert str(Record(1, "", 0, "laptop", 5, started="today")) == "process 5 on laptop, since today"


def test_a_record_is_whole_or_not_at_all(tmp_path, monkeypatch):
    record = begin(tmp_path, tmp_path)
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        update(tmp_path, record, progress=9)
    assert json.loads((tmp_path / "attempts" / "0001.json").read_text())["progress"] == 0
