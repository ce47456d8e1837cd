"""Archives, good and bad ones."""

from __future__ import annotations

import io
import random
import stat
import struct
import tarfile
import zipfile
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from launch import part_file
from launch.archives import ArchiveError, _zip_members, unpack
from launch.part_file import TransferError
from launch.safe_paths import UnsafePathError, refuse_clashes, relative_path

FILES = {
    "photos/one.jpg": b"first " * 300,
    "photos/deep/two.jpg": random.Random(0).randbytes(3000),
    "photos/leer.txt": b"",
    "photos/naïve.txt": b"x",
}
KINDS = ["zip", "stored.zip", "tar", "tar.gz"]


def pack(path, files=FILES):
    if path.name.endswith("zip"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED if "stored" in path.name else zipfile.ZIP_DEFLATED) as file:
            for name, data in files.items():
                file.writestr(name, data)
    else:
        with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as file:
            for name, data in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                file.addfile(entry, io.BytesIO(data))
    return path


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_single_folder_becomes_the_folder(tmp_path, kind):
    archive = pack(tmp_path / f"a.{kind}")
    assert unpack(archive, tmp_path / "out")
    assert content(tmp_path / "out") == {name.removeprefix("photos/"): data for name, data in FILES.items()}
    assert not unpack(archive, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == [archive.name, "out"]


@pytest.mark.parametrize("kind", KINDS)
def test_several_things_at_the_top_stay_there(tmp_path, kind):
    files = {"./a/x": b"1", "b": b"2"}
    assert unpack(pack(tmp_path / f"a.{kind}", files), tmp_path / "new" / "out")
    assert content(tmp_path / "new" / "out") == {"a/x": b"1", "b": b"2"}


def test_what_macos_adds_is_left_out(tmp_path):
    assert unpack(pack(tmp_path / "a.zip", {"top/a": b"1", "__MACOSX/top/._a": b"2"}), tmp_path / "out")
    assert content(tmp_path / "out") == {"a": b"1"}


def test_what_other_programs_pack(tmp_path):
    """Entries for folders, and GNU's and pax's ways to write long names."""
    source = tmp_path / "source" / "top"
    for name in ("a" * 120, "ü" * 60):
        (source / "sub").mkdir(parents=True, exist_ok=True)
        (source / "sub" / name).write_text(name)
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open(tmp_path / f"{form}.tar", "w", format=form) as file:
            file.add(source, ".")
        assert unpack(tmp_path / f"{form}.tar", tmp_path / f"{form}")
        assert content(tmp_path / f"{form}") == {"a" * 120: b"a" * 120, "ü" * 60: ("ü" * 60).encode()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../out.txt", "leads out"),
        ("a/../../out.txt", "leads out"),
        ("/etc/out.txt", "absolute"),
        ("C:/out.txt", "absolute"),
        ("a\\..\\out.txt", "backslash"),
        ("a/" + "n" * 256, "too long"),
    ],
)
def test_names_that_lead_out_are_refused(tmp_path, kind, name, message):
    archive = pack(tmp_path / f"a.{kind}", {"good": b"1", name: b"2"})
    with pytest.raises(ArchiveError, match=message):
        unpack(archive, tmp_path / "deep" / "out")
    assert not (tmp_path / "deep").exists() or not list((tmp_path / "deep").iterdir())
    assert not list(tmp_path.rglob("out.txt"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path, kind):
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        entry = tarfile.TarInfo("link")
        entry.type, entry.linkname = kind, "../../outside"
        file.addfile(entry)
    with pytest.raises(ArchiveError, match="link, a device"):
        unpack(tmp_path / "a.tar", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_links_in_a_zip_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        entry = zipfile.ZipInfo("link")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(entry, "/etc/passwd")
    with pytest.raises(ArchiveError, match="link or a device"):
        unpack(tmp_path / "a.zip", tmp_path / "out")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", KINDS)
def test_names_that_are_there_twice_are_refused(tmp_path, kind):
    archive = tmp_path / f"a.{kind}"
    with zipfile.ZipFile(archive, "w") if "zip" in kind else tarfile.open(archive, "w:gz" if "gz" in kind else "w") as file:
        for name in ("a/b", "./a//b"):
            file.writestr(name, "1") if "zip" in kind else file.addfile(tarfile.TarInfo(name))
    with pytest.raises(ArchiveError, match="'a/b' is there twice"):
        unpack(archive, tmp_path / "out")
    with pytest.raises(ArchiveError, match="'a' is a file and a folder"):
        unpack(pack(tmp_path / f"b.{kind}", {"a/b": b"1", "a": b"2"}), tmp_path / "out")


@pytest.mark.parametrize("kind", KINDS)
def test_a_bomb_is_refused_by_what_it_announces(tmp_path, kind, monkeypatch):
    archive = pack(tmp_path / f"a.{kind}", {f"zeros{i}": bytes(10**6) for i in range(5)})
    monkeypatch.setattr(part_file.shutil, "disk_usage", lambda _: SimpleNamespace(free=3 * 10**6))
    with pytest.raises(TransferError, match="are free"):
        unpack(archive, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == [archive.name]


def test_very_many_small_files_are_measured_by_their_blocks(tmp_path, monkeypatch):
    archive = pack(tmp_path / "a.tar", {str(i): b"" for i in range(300)})
    monkeypatch.setattr(part_file.shutil, "disk_usage", lambda _: SimpleNamespace(free=10**6))
    with pytest.raises(TransferError, match="are free"):
        unpack(archive, tmp_path / "out")


def test_a_zip_that_lies_about_sizes_is_refused(tmp_path):
    archive = pack(tmp_path / "a.zip", {"a": bytes(100_000)})
    data = archive.read_bytes()
    for lie in (10, 10**9):
        archive.write_bytes(data.replace(struct.pack("<L", 100_000), struct.pack("<L", lie)))
        with pytest.raises(ArchiveError):
            unpack(archive, tmp_path / "out")


@pytest.mark.parametrize("data", [b"", b"PK", b"\x1f\x8b", b"text" * 500, bytes(10240)])
def test_what_is_no_archive_is_told(tmp_path, data):
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(ArchiveError, match=r"a\.zip: (damaged|holds no file)"):
        unpack(tmp_path / "a.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_a_killed_job_left_is_no_obstacle(tmp_path):
    (tmp_path / ".out.unpacking" / "half").mkdir(parents=True)
    assert unpack(pack(tmp_path / "a.tar"), tmp_path / "out")
    assert "half" not in content(tmp_path / "out") and len(content(tmp_path / "out")) == 4


@pytest.mark.parametrize("name", ["", ".", "/", "a/..", "x:/y", "a\0b"])
def test_names_no_file_can_have(name):
    with pytest.raises(UnsafePathError):
        relative_path(name)


def test_usual_names_are_kept():
    for name in ("a", "a/b.jpg", "..a/b..", "a b/c:d", "...", "ä/…"):
        assert str(relative_path(name)) == name
    refuse_clashes(map(relative_path, ("a/b", "a/c", "d")))


def test_more_files_than_a_zip_of_the_old_kind_can_count(tmp_path):
    archive = pack(tmp_path / "a.zip", {str(i): b"" for i in range(66_000)})
    data = archive.read_bytes()
    assert len(list(_zip_members(archive))) == 66_000
    for announced, whole in ((66_000 % 2**16, True), (66_001 % 2**16, False)):  # without zip64
        end = data.rindex(b"PK\5\6") + 10
        archive.write_bytes(
            data[: data.rindex(b"PK\6\6")] + data[end - 10 : end] + struct.pack("<H", announced) + data[end + 2 :]
        )
        with nullcontext() if whole else pytest.raises(zipfile.BadZipFile):
            list(_zip_members(archive))


# Mutants


def mutate(data: bytes, rng: random.Random, headers: list[int]) -> bytes:
    """Cut, flip, overwrite, repeat or drop; half of the time near a header."""
    place = rng.choice(headers) + rng.randrange(80) if headers and rng.random() < 0.5 else rng.randrange(len(data))
    place = min(place, len(data) - 1)
    length = rng.choice((1, 2, 4, 30, 512, 1024))
    kind = rng.randrange(6)
    if kind == 0:
        return data[:place]
    if kind == 1:
        return data[:place] + data[place + length :]
    if kind == 2:
        return data[:place] + data[place : place + length] + data[place:]
    if kind == 3:
        return data[:place] + rng.randbytes(length) + data[place + length :]
    if kind == 4:
        return data[:place] + rng.choice((b"\0", b"\xff", b"7")) * min(length, 8) + data[place + min(length, 8) :]
    return data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]


def headers_of(kind: str, data: bytes) -> list[int]:
    if "zip" in kind:
        return [i for i in range(len(data) - 4) if data[i : i + 4] in (b"PK\3\4", b"PK\1\2", b"PK\5\6")]
    return list(range(0, len(data), 512)) if kind == "tar" else [0]


@pytest.mark.parametrize("kind", KINDS)
def test_mutants_are_refused_or_right(tmp_path, kind):
    """zip and gzip carry checksums of the content, tar of its headers alone: there content may differ, but no file may be missing."""
    files = {f"photos/{i}.jpg": random.Random(i).randbytes(600 + 700 * i) for i in range(4)}
    archive = pack(tmp_path / f"a.{kind}", files)
    data, rng = archive.read_bytes(), random.Random(kind)
    data = data.rstrip(b"\0") + bytes(1024) if kind == "tar" else data
    headers = headers_of(kind, data)
    right = {name.removeprefix("photos/"): value for name, value in files.items()}
    refused = 0
    for number in range(200):
        archive.write_bytes(mutate(data, rng, headers))
        out = tmp_path / f"out{number}"
        try:
            unpack(archive, out)
        except ArchiveError:
            refused += 1
            assert not out.exists()
            continue
        found = content(out)
        if kind == "tar":
            assert {name: len(value) for name, value in found.items()} == {name: len(value) for name, value in right.items()}
        else:
            assert found == right
    assert refused > 60 and sorted(tmp_path.glob(".*")) == []
