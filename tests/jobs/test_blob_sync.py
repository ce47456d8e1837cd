"""The job against a real Azurite: what it does, and that no secret is left anywhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote, unquote

import pytest
from real_azurite import proxy_before

JOB = Path(__file__).resolve().parents[2] / "jobs" / "blob_sync.py"


@pytest.fixture
def proxy(azurite):
    with proxy_before(azurite) as proxy:
        yield proxy


@pytest.fixture
def sync(azurite, tmp_path):
    """Start the job as a user does; neither what it says nor a file that it leaves in the run folder may hold a secret."""

    def start(*arguments, secret, code=0):
        environment = os.environ | {"AZURE_SECRET": secret, "PYTHONPATH": str(JOB.parents[1]), "AZURE_LOG_LEVEL": "debug"}
        command = [sys.executable, str(JOB), "--cluster", "local", "--name", "sync", *map(str, arguments)]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        files = [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
        assert {"config.yaml", "environment.json"} <= {path.name for path in files}
        texts = {str(path): path.read_text(errors="replace") for path in files} | {"output": done.stdout + done.stderr}
        for hidden in {azurite.key, secret.rpartition("sig=")[2]} - {""}:
            for form in (hidden, unquote(hidden), quote(hidden, safe="")):
                assert not [where for where, text in texts.items() if form in text]
        assert done.returncode == code, texts["output"]
        return texts["output"]

    return start


CREDENTIAL = ("--credential", "env:AZURE_SECRET")


def test_down_with_a_sas_and_again(azurite, proxy, sync, tmp_path):
    container, sas = azurite.container("corpora"), azurite.sas("corpora")
    container.upload_blob("coco_ir/test_captions.pt", b"captions")
    container.upload_blob("coco_ir/features/f.tsv", b"features")
    options = (
        "--remote",
        f"{azurite.url(proxy.port)}/corpora/coco_ir",
        "--folder",
        "d",
        "--exclude-pattern",
        "*.tsv",
        *CREDENTIAL,
    )
    assert "d: 1 files fetched, 0.0 MB; 0 stood already" in sync(*options, secret=sas)
    assert "0 files fetched, 0.0 MB; 1 stood already" in sync(*options, secret=sas)
    assert [path.name for path in (tmp_path / "d").rglob("*.*")] == ["test_captions.pt"]
    assert (tmp_path / "d" / "coco_ir" / "test_captions.pt").read_bytes() == b"captions"


def test_up_with_a_connection_string(azurite, proxy, sync, tmp_path):
    container = azurite.container("corpora")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a").write_bytes(b"a")
    options = ("--direction", "up", "--remote", "corpora/x", "--folder", "set", "--no-keep-last-part", *CREDENTIAL)
    assert "set: 1 files sent" in sync(*options, secret=azurite.connection_string(proxy.port))
    assert container.download_blob("x/a").readall() == b"a"


def test_errors_of_every_kind_keep_the_secret(azurite, proxy, sync, tmp_path):
    """Refused, not there, not reached, broken off: each is one line for the user and a traceback in the run folder."""
    azurite.container("corpora").upload_blob("a/b", b"b" * 1000)
    remote = ("--folder", "d", *CREDENTIAL, "--remote", f"{azurite.url(proxy.port)}/corpora")
    trace, sas = tmp_path / "runs/blob_sync/sync/logs/error-0.txt", azurite.sas("corpora")
    sync(*remote, secret=sas)
    for secret, refuse, message in (
        (azurite.sas("corpora", hours=-1), {}, "listing corpora: 403 "),
        (sas, {"corpora": 503}, "listing corpora: 503"),
        (sas, {"a/b": 403}, "fetching a/b: 403"),
        (sas, {"a/b": 404}, "fetching a/b: 404"),
    ):
        proxy.refuse = refuse
        (tmp_path / "d" / "a" / "b").unlink(missing_ok=True)
        assert f"error: {message}" in sync(*remote, secret=secret, code=1)
        assert message in trace.read_text()


def test_a_service_that_is_not_there_keeps_the_secret(azurite, sync, tmp_path):
    trace = tmp_path / "runs/blob_sync/sync/logs/error-0.txt"
    trace.parent.mkdir(parents=True)
    (tmp_path / "runs/blob_sync/sync/manifest.jsonl").touch()  # a folder in which something was made stays after an error
    said = sync("--remote", f"{azurite.url(1)}/corpora", "--folder", "d", *CREDENTIAL, secret=azurite.sas("corpora"), code=1)
    assert "listing corpora: cannot be reached ([Errno 111] Connection refused)" in said
    assert "cannot be reached" in trace.read_text()


@pytest.mark.parametrize(
    "arguments",
    [("--remote", "https://a.blob.core.windows.net/c?sv=1&sig=GEHEIM"), ("--remote", "c", "--credential", "sig=GEHEIM")],
)
def test_a_secret_among_the_options_is_refused_before_anything_is_written(arguments, tmp_path):
    done = subprocess.run(
        [sys.executable, JOB, "--cluster", "local", *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode and "--credential" in done.stderr and "GEHEIM" not in done.stdout + done.stderr
    assert not list(tmp_path.iterdir())
