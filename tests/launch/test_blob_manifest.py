"""The manifest of blobs and files that are the same."""

from __future__ import annotations

import hashlib
import os

from launch.blob_manifest import Manifest


def test_what_was_added_is_known_until_file_or_blob_change(tmp_path):
    file = tmp_path / "a"
    file.write_bytes(b"abc")
    manifest = Manifest(tmp_path / "m")
    assert not manifest.holds("x/a", "e1", file)
    manifest.add("x/a", "e1", file, hashlib.sha256(b"abc").hexdigest())
    for known in (manifest, Manifest(tmp_path / "m")):
        assert known.holds("x/a", "e1", file)
        assert not known.holds("x/a", "e2", file) and not known.holds("x/b", "e1", file)
        assert not known.holds("x/a", "e1", tmp_path / "gone")
    os.utime(file, ns=(1, 1))  # a new date alone: read again
    assert manifest.holds("x/a", "e1", file)
    file.write_bytes(b"abd")
    assert not manifest.holds("x/a", "e1", file)
    file.write_bytes(b"abcd")
    assert not manifest.holds("x/a", "e1", file)


def test_a_line_that_was_cut_short_costs_itself_alone(tmp_path):
    file, path = tmp_path / "a", tmp_path / "m"
    file.write_bytes(b"1")
    for name in ("one", "two"):
        Manifest(path).add(name, "e", file, "0")
    path.write_bytes(path.read_bytes()[:-9])
    manifest = Manifest(path)
    assert manifest.holds("one", "e", file) and not manifest.holds("two", "e", file)
    manifest.add("three", "e", file, "0")
    assert Manifest(path).holds("three", "e", file)
