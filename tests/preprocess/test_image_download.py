"""Pictures from a real server that does everything wrong that servers do."""

from __future__ import annotations

import socket
import time

import pytest
from drawing import jpeg
from picture_server import picture_server

from preprocess import image_download
from preprocess.http_fetch import Fetcher, FetchError, Limits
from preprocess.image_download import download_images, host_of

QUICK = Limits(threads=8, seconds=1.0, megabytes=0.1, tries=1)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(image_download, "PAUSE", 0.01)


@pytest.fixture
def server():
    with picture_server() as running:
        yield running


def fetched(server, tmp_path, paths, limits=QUICK):
    """path -> fault of each, "" where the file is there."""
    wanted = {f"{server.url}/{path}": tmp_path / path.replace("/", "-") for path in paths}
    outcomes = list(download_images(wanted.items(), limits))
    assert {outcome.url for outcome in outcomes} == set(wanted)
    for outcome in outcomes:
        assert wanted[outcome.url].exists() == (not outcome.fault)
        assert not outcome.fault or outcome.size == 0
    return {outcome.url.removeprefix(f"{server.url}/"): outcome.fault for outcome in outcomes}


def test_whole_pictures(server, tmp_path):
    paths = ["ok/1", "ok/2", "moved", "unlengthy"]
    assert set(fetched(server, tmp_path, paths).values()) == {""}
    assert (tmp_path / "ok-2").read_bytes() == jpeg(2)
    assert (tmp_path / "moved").read_bytes() == jpeg(5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["moved", "ok-1", "ok-2", "unlengthy"]
    assert server.agents == {QUICK.user_agent}


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("gone", "HTTP 404"),
        ("busy", "HTTP 503"),
        ("html", "not an image (not a whole image"),
        ("truncated", "the answer was cut short"),
        ("torn", "not an image (truncated"),
        ("empty", "not an image (empty file)"),
        ("huge", "larger than 0.1 MB"),
        ("endless", "larger than 0.1 MB"),
        ("bomb", "larger than 0.1 MB"),
        ("drip", "took longer than 1 s"),
        ("dripping_header", "took longer than 1 s"),
        ("silent", "took longer than 1 s"),
        ("hangup", "no usable answer (ProtocolError"),
        ("nonsense", "no usable answer (ProtocolError"),
        ("round", "more than 5 redirects"),
        ("away", "no usable answer ("),
    ],
)
def test_what_servers_do(server, tmp_path, path, reason):
    start = time.monotonic()
    assert fetched(server, tmp_path, [path])[path].startswith(reason)
    assert time.monotonic() - start < 2.5
    assert not list(tmp_path.iterdir())


def test_faults_that_pass_are_tried_again(server, tmp_path):
    limits = Limits(threads=2, tries=3)
    assert fetched(server, tmp_path, ["busy", "gone"], limits) == {"busy": "", "gone": "HTTP 404"}
    assert server.asked == {"/busy": 2, "/gone": 1}


def test_no_server_at_all(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens
        (outcome,) = download_images([(f"http://127.0.0.1:{taken.getsockname()[1]}/a", tmp_path / "a")], QUICK)
    assert (outcome.fault, outcome.reached) == ("no connection (NewConnectionError)", False)


@pytest.mark.parametrize(
    "url",
    ["http://[abc/x", "http:///x", "http://a b/x", "http://\u2024.\u2024/x", "ftp://127.0.0.1/x", "http://127.0.0.1:99999/x"],
)
def test_texts_that_are_no_url(url):
    with pytest.raises(FetchError):
        Fetcher(QUICK).get(url)
    assert isinstance(host_of(url), str)


def test_a_host_is_asked_for_few_at_once_and_slow_ones_keep_nobody_waiting(server, tmp_path):
    with picture_server() as quick:
        server.pause = 0.1
        wanted = [(f"{server.url}/ok/{k}", tmp_path / f"slow-{k}") for k in range(20)]
        wanted += [(f"{quick.url}/ok/{k}", tmp_path / f"quick-{k}") for k in range(20)]
        order = [outcome.url.startswith(quick.url) for outcome in download_images(wanted, Limits(threads=8, per_host=2))]
    assert len(order) == 40
    assert server.most_at_once == 2
    assert sum(order[:30]) == 20  # of the other host, which stands last in the list


def test_a_full_disk_ends_the_work(server, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OSError, match="file"):
        list(download_images([(f"{server.url}/ok/1", tmp_path / "file" / "1")], QUICK))


def test_proxies_of_the_environment(server, tmp_path, monkeypatch):
    """The server answers as a proxy would: it is asked for whole URLs of another host."""
    monkeypatch.setenv("http_proxy", server.url)
    (outcome,) = download_images([("http://pictures.invalid/ok/3", tmp_path / "a")], QUICK)
    assert list(server.asked) == ["http://pictures.invalid/ok/3"]
    assert (tmp_path / "a").read_bytes() == jpeg(3)
    assert outcome.fault == ""


def test_a_proxy_that_is_not_there_is_no_fault_of_the_url(tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    (outcome,) = download_images([("http://pictures.invalid/ok/3", tmp_path / "a")], QUICK)
    assert (outcome.fault, outcome.reached) == ("no connection (ProxyError)", False)
