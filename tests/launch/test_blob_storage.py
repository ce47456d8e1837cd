"""Blobs from and to a real Azurite."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from real_azurite import proxy_before

from launch import blob_access, blob_storage, blob_upload, part_file
from launch.blob_access import Address, open_container, read_credential
from launch.blob_manifest import Manifest
from launch.blob_storage import Place, fetch_blobs
from launch.blob_upload import send_blobs
from launch.part_file import TransferError

KIB = 1024
ROOT = Path(__file__).resolve().parents[2]
BLOBS = {
    "sets/coco/train/a.tsv": b"a" * 1000,
    "sets/coco/train/b.tsv": b"",
    "sets/coco/key.pt": b"key",
    "sets/coco": b"a blob beside the folder",
    "sets/coco_ir/x": b"another folder",
    "ünïcode & more/1 %20.txt": b"odd",
}


@pytest.fixture
def proxy(azurite):
    with proxy_before(azurite) as proxy:
        yield proxy


@pytest.fixture
def blobs(azurite):
    container = azurite.container("corpora", public=True)
    for name, data in BLOBS.items():
        container.upload_blob(name, data)
    return container


@pytest.fixture
def small_pieces(monkeypatch):
    for module in (part_file, blob_storage, blob_upload):
        monkeypatch.setattr(module, "PIECE", 256 * KIB)


def place_of(azurite, proxy, path="", credential="public", container="corpora"):
    secret = {"public": "", "sas": azurite.sas(container), "connection": azurite.connection_string(proxy.port)}[credential]
    text = f"{container}/{path}" if credential == "connection" else f"{azurite.url(proxy.port)}/{container}/{path}"
    address = Address.parse(text)
    return Place(open_container(address, secret), address.path, not secret)


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("credential", ["public", "sas", "connection"])
def test_down_as_azcopy_does_it(azurite, proxy, blobs, tmp_path, credential):
    place, manifest = place_of(azurite, proxy, "sets/coco/train", credential), Manifest(tmp_path / "m.jsonl")
    done = fetch_blobs(place, tmp_path / "out", manifest)
    assert content(tmp_path / "out") == {"train/a.tsv": b"a" * 1000, "train/b.tsv": b""}
    assert (done.files, done.stood, done.bytes) == (2, 0, 1000)
    proxy.asked.clear()
    assert fetch_blobs(place, tmp_path / "out", Manifest(tmp_path / "m.jsonl")).stood == 2
    assert len(proxy.asked) == 1  # the list
    fetch_blobs(place, tmp_path / "bare", Manifest(tmp_path / "m2.jsonl"), keep_last_part=False)
    assert set(content(tmp_path / "bare")) == {"a.tsv", "b.tsv"}


def test_down_a_whole_container_a_single_blob_and_with_exclusions(azurite, proxy, blobs, tmp_path):
    def names(number, path, **options):
        fetch_blobs(place_of(azurite, proxy, path), tmp_path / f"{number}", Manifest(tmp_path / f"{number}.jsonl"), **options)
        return set(content(tmp_path / f"{number}"))

    blobs.delete_blob("sets/coco")
    assert names(0, "") == BLOBS.keys() - {"sets/coco"}
    assert names(1, "sets/coco/key.pt") == {"key.pt"}
    assert names(2, "sets", exclude=["*.pt", "sets/coco_ir/*"]) == {"sets/coco/train/a.tsv", "sets/coco/train/b.tsv"}
    assert names(3, "sets/coco/", exclude=["train/*"], keep_last_part=False) == {"key.pt"}
    with pytest.raises(TransferError, match="no blob there that is not excluded"):
        names(4, "sets", exclude=["*"])
    with pytest.raises(TransferError, match="corpora/set: no blob there; look at --remote"):
        names(5, "set")


def test_blobs_that_no_folder_can_hold_are_refused_before_anything_comes(azurite, proxy, blobs, tmp_path):
    place, manifest = place_of(azurite, proxy, "sets"), Manifest(tmp_path / "m.jsonl")
    with pytest.raises(TransferError, match=r"'sets/coco' is a file and a folder.*--exclude"):
        fetch_blobs(place, tmp_path / "out", manifest)
    blobs.delete_blob("sets/coco")
    blobs.upload_blob("sets/" + "n" * 256, b"1")
    with pytest.raises(TransferError, match="too long for a file name"):
        fetch_blobs(place, tmp_path / "out", manifest)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/x", "x/../../../y", "a\\..\\..\\x"])
def test_names_that_lead_out_are_refused(azurite, proxy, tmp_path, name, monkeypatch):
    """A server may list whatever it likes."""
    container = azurite.container("corpora", public=True)
    container.upload_blob("good", b"1")
    [blob] = container.list_blobs()
    blob.name = name
    monkeypatch.setattr(Place, "blobs", lambda self: [blob])
    with pytest.raises(TransferError, match="so it cannot be a file"):
        fetch_blobs(place_of(azurite, proxy), tmp_path / "out", Manifest(tmp_path / "m.jsonl"))
    assert not (tmp_path / "x").exists()


def test_folder_marks_are_left_out(azurite, proxy, blobs, tmp_path):
    blobs.upload_blob("marks/dir", b"", metadata={"hdi_isfolder": "true"})
    blobs.upload_blob("marks/dir/file", b"1")
    fetch_blobs(place_of(azurite, proxy, "marks"), tmp_path, Manifest(tmp_path / "m.jsonl"), keep_last_part=False)
    assert (tmp_path / "dir" / "file").read_bytes() == b"1"


def test_a_large_blob_comes_in_pieces_and_its_md5_is_checked(azurite, proxy, blobs, tmp_path, small_pieces):
    data = random.Random(0).randbytes(1000 * KIB)
    blobs.upload_blob("large", data)
    place = place_of(azurite, proxy, "large")
    assert fetch_blobs(place, tmp_path, Manifest(tmp_path / "m.jsonl")).unchecked == 0
    assert (tmp_path / "large").read_bytes() == data
    assert len(proxy.content("GET")) == 4
    wrong = hashlib.md5(b"other").digest()
    blobs.get_blob_client("large").set_http_headers(blob_storage_settings(wrong))
    with pytest.raises(TransferError, match=r"its md5 is .*, expected .*remove"):
        fetch_blobs(place, tmp_path / "again", Manifest(tmp_path / "m2.jsonl"))
    assert not (tmp_path / "again" / "large").exists()


def blob_storage_settings(md5):
    from azure.storage.blob import ContentSettings

    return ContentSettings(content_md5=bytearray(md5))


def test_a_blob_without_an_md5_is_counted(azurite, proxy, blobs, tmp_path, small_pieces):
    client = blobs.get_blob_client("blocks")
    client.stage_block("1", b"x" * 300 * KIB)
    client.commit_block_list(["1"])
    assert fetch_blobs(place_of(azurite, proxy, "blocks"), tmp_path, Manifest(tmp_path / "m.jsonl")).unchecked == 1


def test_a_changed_blob_is_fetched_again_and_a_changed_file_too(azurite, proxy, blobs, tmp_path):
    place, path = place_of(azurite, proxy, "sets/coco/train"), tmp_path / "train" / "a.tsv"
    fetch_blobs(place, tmp_path, Manifest(tmp_path / "m.jsonl"))
    blobs.upload_blob("sets/coco/train/a.tsv", b"b" * 1000, overwrite=True)  # the same size
    assert fetch_blobs(place, tmp_path, Manifest(tmp_path / "m.jsonl")).files == 1
    assert path.read_bytes() == b"b" * 1000
    path.touch()
    assert fetch_blobs(place, tmp_path, Manifest(tmp_path / "m.jsonl")).files == 0
    path.write_bytes(b"c" * 1000)
    assert fetch_blobs(place, tmp_path, Manifest(tmp_path / "m.jsonl")).files == 1
    assert path.read_bytes() == b"b" * 1000


def test_a_blob_that_changes_in_the_middle_is_fetched_anew(azurite, proxy, blobs, tmp_path, small_pieces, monkeypatch, capsys):
    old, new = random.Random(1).randbytes(900 * KIB), random.Random(2).randbytes(800 * KIB)
    blobs.upload_blob("large", old)
    read, count = blob_storage._read, []

    def changing(place, blob, start, length):
        count.append(start)
        if len(count) == 3:
            blobs.upload_blob("large", new, overwrite=True)
        return read(place, blob, start, length)

    monkeypatch.setattr(blob_storage, "_read", changing)
    fetch_blobs(place_of(azurite, proxy, "large"), tmp_path, Manifest(tmp_path / "m.jsonl"), threads=1)
    assert (tmp_path / "large").read_bytes() == new
    assert "large: changed while it was fetched" in capsys.readouterr().out


# Up


def source(folder):
    for name, data in {"a.txt": b"a", "sub/b.bin": b"b" * 5000, "sub/leer": b"", "sub/deep/ü &%.txt": b"c"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def stored(container):
    return {blob.name: container.download_blob(blob.name).readall() for blob in container.list_blobs()}


@pytest.mark.parametrize("credential", ["sas", "connection"])
def test_up_as_azcopy_does_it(azurite, proxy, tmp_path, credential, monkeypatch):
    container, folder = azurite.container("uploads"), source(tmp_path / "set")
    monkeypatch.setattr(azurite.__class__, "sas", lambda self, name, sas=azurite.sas: sas(name, "racwl"))
    place = place_of(azurite, proxy, "deep/er", credential, "uploads")
    done = send_blobs(place, folder, Manifest(tmp_path / "m.jsonl"), exclude=["leer"])
    assert (done.files, done.bytes) == (3, 5002)
    assert stored(container) == {f"deep/er/set/{name}": data for name, data in content(folder).items() if "leer" not in name}
    proxy.asked.clear()
    assert send_blobs(place, folder, Manifest(tmp_path / "m.jsonl"), exclude=["leer"]).stood == 3 and len(proxy.asked) == 1
    assert send_blobs(place, folder, Manifest(tmp_path / "other.jsonl"), exclude=["leer"]).stood == 3  # by their MD5
    assert not proxy.content("PUT")
    send_blobs(place_of(azurite, proxy, "", credential, "uploads"), folder / "a.txt", Manifest(tmp_path / "3.jsonl"))
    send_blobs(place_of(azurite, proxy, "n", credential, "uploads"), folder, Manifest(tmp_path / "4.jsonl"), keep_last_part=False)
    assert {"a.txt", "n/a.txt", "n/sub/leer"} <= stored(container).keys()


def test_up_and_down_give_the_same_files(azurite, proxy, tmp_path, small_pieces):
    container, folder = azurite.container("uploads"), source(tmp_path / "set")
    (folder / "large").write_bytes(random.Random(3).randbytes(1000 * KIB))
    place = place_of(azurite, proxy, "", "connection", "uploads")
    send_blobs(place, folder, Manifest(tmp_path / "m.jsonl"))
    assert len(proxy.content("PUT")) == 4 + 4
    assert all(blob.content_settings.content_md5 for blob in container.list_blobs())
    assert fetch_blobs(place, tmp_path / "back", Manifest(tmp_path / "n.jsonl")).unchecked == 0
    assert content(tmp_path / "back" / "set") == content(folder)


def test_a_changed_file_replaces_its_blob_but_not_one_that_someone_else_changed(azurite, proxy, tmp_path, monkeypatch):
    container, folder = azurite.container("uploads"), source(tmp_path / "set")
    place = place_of(azurite, proxy, "", "connection", "uploads")
    send_blobs(place, folder, Manifest(tmp_path / "m.jsonl"))
    (folder / "a.txt").write_bytes(b"A")
    assert send_blobs(place, folder, Manifest(tmp_path / "m.jsonl")).files == 1
    assert stored(container)["set/a.txt"] == b"A"
    listed = Place.blobs
    for name, data in (("set/a.txt", b"theirs"), ("set/new.txt", b"theirs")):
        (folder / name.removeprefix("set/")).write_bytes(b"mine")

        def list_then_change(self, name=name, data=data):
            found = listed(self)
            container.upload_blob(name, data, overwrite=True)
            return found

        with monkeypatch.context() as patch, pytest.raises(TransferError, match=f"{name}: was changed there by someone else"):
            patch.setattr(Place, "blobs", list_then_change)
            send_blobs(place, folder, Manifest(tmp_path / "m.jsonl"))
        assert stored(container)[name] == data
        send_blobs(place, folder, Manifest(tmp_path / "m.jsonl"))
        assert stored(container)[name] == b"mine"


def test_a_file_that_changes_while_it_is_sent_is_refused(azurite, proxy, tmp_path, small_pieces, monkeypatch):
    container = azurite.container("uploads")
    path = tmp_path / "large"
    path.write_bytes(bytes(600 * KIB))
    stage = blob_upload._stage
    monkeypatch.setattr(blob_upload, "_stage", lambda *arguments: (stage(*arguments), path.write_bytes(bytes(700 * KIB))))
    with pytest.raises(TransferError, match="was changed while it was sent"):
        send_blobs(place_of(azurite, proxy, "", "connection", "uploads"), path, Manifest(tmp_path / "m.jsonl"))
    assert stored(container) == {}


# kill -9

CODE = """
import sys
from pathlib import Path
from launch import blob_storage, blob_upload
from launch.blob_access import Address, open_container, read_credential
from launch.blob_manifest import Manifest
work = {"down": blob_storage.fetch_blobs, "up": blob_upload.send_blobs}[sys.argv[1]]
address = Address.parse(sys.argv[2])
place = blob_storage.Place(open_container(address, read_credential("env:SECRET")), address.path)
print(work(place, Path(sys.argv[3]), Manifest(Path("manifest.jsonl")), threads=2))
"""


def start(azurite, proxy, folder, *arguments):
    environment = os.environ | {"SECRET": azurite.connection_string(proxy.port), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", CODE, *arguments], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    )


def kill_when(process, enough):
    deadline = time.monotonic() + 90
    while not enough():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_after_kill_nine_only_the_rest_comes_down(azurite, proxy, tmp_path):
    """Ten ranges of 8 MiB and two small blobs."""
    container, data = azurite.container("large"), random.Random(5).randbytes(76 * KIB * KIB)
    container.upload_blob("set/features.tsv", data, max_concurrency=1)
    container.upload_blob("set/a", b"a")
    container.upload_blob("set/b", b"b")
    proxy.seconds = 0.15
    state = tmp_path / "out" / "set" / "features.tsv.part.json"

    def pieces():
        return len(json.loads(state.read_text())["pieces"]) if state.exists() else 0

    with start(azurite, proxy, tmp_path, "down", "large/set", "out") as process:
        kill_when(process, lambda: pieces() >= 4)
    kept = pieces()
    assert 4 <= kept < 10 and not (tmp_path / "out" / "set" / "features.tsv").exists()
    time.sleep(0.5)  # what the killed process had asked for is still counted
    proxy.asked.clear()
    proxy.seconds = 0
    with start(azurite, proxy, tmp_path, "down", "large/set", "out") as process:
        said = process.communicate()[0]
    assert "files=1, stood=2" in said
    assert len(proxy.content("GET")) == 10 - kept
    assert content(tmp_path / "out" / "set") == {"features.tsv": data, "a": b"a", "b": b"b"}


def test_after_kill_nine_only_the_rest_goes_up(azurite, proxy, tmp_path):
    container, data = azurite.container("large"), random.Random(6).randbytes(76 * KIB * KIB)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "features.tsv").write_bytes(data)
    proxy.seconds = 0.15
    with start(azurite, proxy, tmp_path, "up", "large/x", "set") as process:
        kill_when(process, lambda: len(proxy.content("PUT")) >= 5)
    time.sleep(0.5)
    assert stored(container) == {}
    kept = len(container.get_blob_client("x/set/features.tsv").get_block_list("uncommitted")[1])
    assert 3 <= kept < 10
    proxy.asked.clear()
    proxy.seconds = 0
    with start(azurite, proxy, tmp_path, "up", "large/x", "set") as process:
        assert "files=1" in process.communicate()[0]
    assert len(proxy.content("PUT")) == 10 - kept
    assert stored(container) == {"x/set/features.tsv": data}


# Addresses, credentials, errors


def test_addresses():
    assert Address.parse("https://acc.blob.core.windows.net/con/a%20b/c/") == Address(
        "https://acc.blob.core.windows.net", "con", "a b/c"
    )
    assert Address.parse("http://127.0.0.1:10000/acc/con") == Address("http://127.0.0.1:10000/acc", "con", "")
    assert Address.parse("con/a/b") == Address("", "con", "a/b")
    for wrong in ("https://acc.blob.core.windows.net/", "ftp://x/y", ""):
        with pytest.raises(TransferError, match="--remote"):
            Address.parse(wrong)


@pytest.mark.parametrize("remote", ["https://a.b/c?sv=1&sig=GEHEIM", "c/AccountKey=GEHEIM", "c?GEHEIM"])
def test_a_secret_in_the_address_is_refused_unsaid(remote):
    with pytest.raises(TransferError, match="--credential env:") as error:
        Address.parse(remote)
    assert "GEHEIM" not in str(error.value)


def test_credentials_come_from_variables_and_files(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_SAS", " ?sv=1&sig=GEHEIM\n")
    (tmp_path / "sas").write_text("sv=1&sig=GEHEIM\n")
    assert read_credential("") == ""
    assert read_credential("env:MY_SAS") == "?sv=1&sig=GEHEIM" and read_credential(f"file:{tmp_path}/sas") == "sv=1&sig=GEHEIM"
    monkeypatch.setenv("EMPTY", "")
    for wrong in ("sv=1&sig=GEHEIM", "file:sig=GEHEIM", "env:NOT_THERE", "env:EMPTY", "file:nowhere", "https://a/b?sig=GEHEIM"):
        with pytest.raises(TransferError, match="--credential") as error:
            read_credential(wrong)
        assert "GEHEIM" not in str(error.value)


def test_a_whole_sas_url_is_a_credential(azurite, proxy, blobs):
    address = Address.parse(f"{azurite.url(proxy.port)}/corpora/sets/coco/key.pt")
    client = open_container(address, f"{azurite.url()}/corpora?{azurite.sas('corpora')}")
    assert [blob.name for blob in Place(client, address.path).blobs()] == ["sets/coco/key.pt"]


def test_wrong_pairs_of_address_and_credential_are_told(azurite):
    with pytest.raises(TransferError, match=r"with a connection string.*CONTAINER/PATH"):
        open_container(Address.parse("https://acc.blob.core.windows.net/con"), azurite.connection_string())
    with pytest.raises(TransferError, match="without a connection string"):
        open_container(Address.parse("con/path"), "sv=1&sig=GEHEIM")
    with pytest.raises(TransferError, match="neither a connection string nor a SAS") as error:
        open_container(Address.parse("con/path"), "AccountName=x;sig=GEHEIM;AccountKey")
    assert "GEHEIM" not in str(error.value)


def test_errors_of_the_service_say_what_to_do_and_no_secret(azurite, proxy, blobs, tmp_path, monkeypatch):
    monkeypatch.setattr(blob_access, "FIRST_WAIT", 0)
    azurite.container("closed").upload_blob("a", b"1")

    def error(path, secret, container="closed", port=proxy.port):
        address = Address.parse(f"{azurite.url(port)}/{container}/{path}")
        with pytest.raises(TransferError) as raised:
            place = Place(open_container(address, secret), address.path, not secret)
            fetch_blobs(place, tmp_path, Manifest(tmp_path / "m.jsonl"))
        signature = secret.rpartition("sig=")[2]
        assert not signature or signature not in str(raised.value)
        assert raised.value.__suppress_context__
        return str(raised.value)

    assert "it gives nothing without a credential: ask its owner" in error("", "")
    assert "the credential does not allow it, or has expired" in error("", azurite.sas("closed", hours=-1))
    assert "the credential does not allow it" in error("", azurite.sas("closed", permission="r"))
    assert "the credential does not allow it" in error("", azurite.sas("closed").replace("sig=", "sig=AAAA"))
    assert "cannot be reached ([Errno 111] Connection refused)" in error("", azurite.sas("closed"), port=1)
    proxy.refuse = {"closed/a": 503}
    assert "503" in (message := error("", azurite.sas("closed"))) and "what is done is kept" in message
    proxy.refuse = {"comp=list": 409}
    assert "it gives nothing without a credential" in error("", "", "corpora")
