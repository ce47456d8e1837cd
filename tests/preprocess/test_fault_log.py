"""The log of faults outlives a kill at any byte, and is read over all parts."""

from __future__ import annotations

from corpora.pieces import Part
from preprocess.fault_log import FaultLog, forget_faults, read_faults


def test_a_log_cut_at_any_byte_goes_on(tmp_path):
    with FaultLog(tmp_path, Part()) as log:
        log.add("http://a/1", "HTTP 404")
        log.add("http://a/ö", "no\nanswer")
    path = tmp_path / "faults-1-of-1.jsonl"
    data = path.read_bytes()
    for size in range(len(data) + 1):
        path.write_bytes(data[:size])
        kept = read_faults(tmp_path)
        assert len(kept) == data[:size].count(b"\n")
        with FaultLog(tmp_path, Part()) as log:
            log.add("http://a/3", "x")
        assert read_faults(tmp_path) == {**kept, "http://a/3": "x"}


def test_parts_and_forgetting(tmp_path):
    for number in (1, 2):
        with FaultLog(tmp_path, Part(number, 2)) as log:
            log.add(f"http://a/{number}", "gone")
    assert list(read_faults(tmp_path)) == ["http://a/1", "http://a/2"]
    forget_faults(tmp_path, Part(1, 2))
    assert list(read_faults(tmp_path)) == ["http://a/2"]
    forget_faults(tmp_path, Part())
    assert read_faults(tmp_path) == {}


def test_what_was_added_can_be_taken_back(tmp_path):
    with FaultLog(tmp_path, Part()) as log:
        log.add("http://a/1", "kept")
    with FaultLog(tmp_path, Part()) as log:
        log.add("http://a/2", "taken back")
        log.discard()
        log.add("http://a/3", "kept too")
    assert list(read_faults(tmp_path)) == ["http://a/1", "http://a/3"]
