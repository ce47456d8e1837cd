"""Downloads from a real server on loopback."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from file_server import serving

from launch import download as module
from launch import part_file
from launch.download import download, shown
from launch.part_file import TransferError

MIB = 2**20


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(module, "FIRST_WAIT", 0.01)
    with serving() as server:
        server.files["/a.bin"] = random.Random(3).randbytes(5 * MIB + 123)
        yield server


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(part_file, "PIECE", MIB)
    monkeypatch.setattr(module, "PIECES_AT_ONCE", 2)


def test_a_file_comes_in_ranges(server, small_pieces, tmp_path):
    path = tmp_path / "new" / "a.bin"
    data = server.files["/a.bin"]
    digests = {"md5": hashlib.md5(data).hexdigest(), "sha256": hashlib.sha256(data).hexdigest()}
    assert download(f"{server.url}/a.bin", path, size=len(data), digests=digests)
    assert path.read_bytes() == data
    assert [name.name for name in path.parent.iterdir()] == ["a.bin"]
    assert len(server.asked) == 1 + 3 and server.bytes_asked() == len(data)
    assert not download(f"{server.url}/a.bin", path) and len(server.asked) == 4


def test_without_ranges_it_comes_in_one_go_and_starts_anew(server, small_pieces, tmp_path):
    server.ranges, server.cut = False, [2 * MIB]
    server.cut.insert(0, 65536)  # for the request that asks what there is
    assert download(f"{server.url}/a.bin", tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == server.files["/a.bin"]
    assert len(server.asked) == 3


def test_a_server_that_does_not_say_the_size(server, tmp_path):
    server.ranges = server.lengths = False
    assert download(f"{server.url}/a.bin", tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == server.files["/a.bin"]
    with pytest.raises(TransferError, match=r"4 bytes|cannot be reached"):
        download(f"{server.url}/a.bin", tmp_path / "b.bin", size=4)
    assert not (tmp_path / "b.bin").exists()


@pytest.mark.parametrize("size", [0, 1, MIB, 2 * MIB])
def test_sizes_at_the_edges_of_pieces(server, small_pieces, tmp_path, size):
    server.files["/edge"] = bytes(size)
    assert download(f"{server.url}/edge", tmp_path / "edge", size=size)
    assert (tmp_path / "edge").read_bytes() == bytes(size)


def test_passing_faults_are_retried_where_they_happened(server, small_pieces, tmp_path):
    server.failures, server.cut = [503, 500], [700_000, 65536, 65536]
    assert download(f"{server.url}/a.bin", tmp_path / "a.bin", threads=1)
    data = server.files["/a.bin"]
    assert (tmp_path / "a.bin").read_bytes() == data
    assert server.sent == 1 + len(data)  # nothing came twice


def test_after_kill_nine_only_the_rest_comes(server, tmp_path):
    data = server.files["/a.bin"] = random.Random(4).randbytes(20 * MIB)
    server.seconds = 0.004
    code = f"""
from pathlib import Path
from launch import part_file, download
part_file.PIECE, download.PIECES_AT_ONCE = {MIB}, 3
download.download("{server.url}/a.bin", Path("a.bin"), threads=2)
"""
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path) as process:
        state, pieces = tmp_path / "a.bin.part.json", []
        deadline = time.monotonic() + 60
        while len(pieces) < 6:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
            pieces = json.loads(state.read_text())["pieces"] if state.exists() else []
        process.send_signal(signal.SIGKILL)
    kept = json.loads(state.read_text())["pieces"]
    assert 6 <= len(kept) < 20 and not (tmp_path / "a.bin").exists()
    server.seconds = 0
    time.sleep(0.5)  # what the killed process had asked for is still counted
    server.asked.clear()
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert (tmp_path / "a.bin").read_bytes() == data
    assert server.bytes_asked() == (20 - len(kept)) * MIB
    assert "a.bin: 21.0 of 21.0 MB" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bin"]


@pytest.mark.parametrize("etags", [True, False])
def test_a_file_that_changed_on_the_server_is_fetched_anew(server, small_pieces, tmp_path, capsys, etags):
    server.etags = etags
    stopped = begin_and_stop(server, tmp_path)
    assert stopped == [0, 1]
    server.files["/a.bin"] = new = random.Random(5).randbytes(5 * MIB + (123 if etags else 124))
    assert download(f"{server.url}/a.bin", tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == new
    assert "fetched anew" in capsys.readouterr().out


def begin_and_stop(server, folder):
    """The pieces that are there after an error in the middle."""
    path = folder / "a.bin"
    fetched = module._range

    def two_pieces(remote, path, start, length):
        yield from fetched(remote, path, 0, 2 * MIB)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "_range", two_pieces)
        download(f"{server.url}/a.bin", path, threads=1)
    return json.loads((folder / "a.bin.part.json").read_text())["pieces"]


def test_a_file_that_changes_in_the_middle_is_fetched_anew(server, small_pieces, tmp_path, capsys):
    new = random.Random(6).randbytes(5 * MIB + 123)
    fetched = module._range

    def changing(remote, path, start, length):
        if start > 2 * MIB:
            server.files["/a.bin"] = new
        return fetched(remote, path, start, length)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_range", changing)
        assert download(f"{server.url}/a.bin", tmp_path / "a.bin", threads=1)
    assert (tmp_path / "a.bin").read_bytes() == new
    assert "changed on the server" in capsys.readouterr().out


def test_one_that_never_stands_still_is_given_up(server, small_pieces, tmp_path):
    fetched = module._range

    def changing(remote, path, start, length):
        server.files["/a.bin"] = random.randbytes(5 * MIB)
        return fetched(remote, path, start, length)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(TransferError, match="again and again"):
        patch.setattr(module, "_range", changing)
        download(f"{server.url}/a.bin", tmp_path / "a.bin", threads=1)


@pytest.mark.parametrize(
    ("code", "message"), [(404, "404 Not Found; no such file there"), (403, "the server refuses it"), (503, "try again later")]
)
def test_refusals_say_what_to_do(server, tmp_path, code, message):
    server.failures = [code] * 10
    with pytest.raises(TransferError, match=message) as error:
        download(f"{server.url}/a.bin?token=secret", tmp_path / "a.bin")
    assert "secret" not in str(error.value) and "/a.bin" in str(error.value)
    assert shown("http://h/x?sig=1#2") == "http://h/x"


def test_nobody_there(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "FIRST_WAIT", 0.001)
    with serving() as gone:
        pass
    with pytest.raises(TransferError, match=r"cannot be reached or read \(.*refused.*--cluster local"):
        download(f"{gone.url}/a.bin", tmp_path / "a.bin")
    with pytest.raises(TransferError, match="only http and https"):
        download("ftp://host/a.bin", tmp_path / "a.bin")


def test_a_wrong_size_is_told_before_anything_comes(server, tmp_path):
    with pytest.raises(TransferError, match=r"has 5,243,003 bytes on 127\.0\.0\.1.*expected 7"):
        download(f"{server.url}/a.bin", tmp_path / "a.bin", size=7)
    assert server.sent <= 1
    (tmp_path / "a.bin").write_bytes(b"other")
    with pytest.raises(TransferError, match="has 5 bytes, expected 7: remove"):
        download(f"{server.url}/a.bin", tmp_path / "a.bin", size=7)


def test_a_wrong_digest_is_told_and_nothing_takes_the_name(server, small_pieces, tmp_path):
    for _ in range(2):
        with pytest.raises(TransferError, match=r"md5 is .*, expected 0000.*remove .*a\.bin\.part"):
            download(f"{server.url}/a.bin", tmp_path / "a.bin", digests={"md5": "0" * 32})
        assert not (tmp_path / "a.bin").exists()
    assert server.bytes_asked() == 5 * MIB + 123  # not fetched again for nothing
    (tmp_path / "a.bin.part").unlink()
    assert download(f"{server.url}/a.bin", tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == server.files["/a.bin"]


def test_a_disk_that_is_too_small_is_told_before(server, tmp_path, monkeypatch):
    monkeypatch.setattr(part_file.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(TransferError, match=r"0\.01 GB are needed and 0\.00 GB are free"):
        download(f"{server.url}/a.bin", tmp_path / "a.bin")


def test_two_at_once_are_refused(server, tmp_path):
    with part_file.held(tmp_path / "a.bin"), pytest.raises(TransferError, match="another process"):
        download(f"{server.url}/a.bin", tmp_path / "a.bin")


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"identity": 1}', '{"identity": {}, "pieces": 5}'])
def test_a_damaged_state_is_no_state(server, small_pieces, tmp_path, damage):
    begin_and_stop(server, tmp_path)
    (tmp_path / "a.bin.part.json").write_text(damage)
    assert download(f"{server.url}/a.bin", tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == server.files["/a.bin"]
