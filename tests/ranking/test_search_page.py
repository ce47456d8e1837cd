"""The search page in a real browser: text and picture, models and re-ranking, nothing in a caption or an id runs, no overflow."""

from __future__ import annotations

import io
import json
import time
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
import torch
from PIL import Image

from corpora.corpus import Caption, CorpusWriter, ImageRecord
from corpora.images import write_images
from models import clip
from models.tokenizer import learn_tokenizer
from ranking.search import Hit, Query, Searched, Searcher, search
from ranking.search_page import listed, serving

EVIL = "<img src=x onerror=\"document.title='owned'\">"
SECONDS = 60


@pytest.fixture(scope="module")
def searcher(tmp_path_factory) -> Searcher:
    """A tiny CLIP over pictures of one colour each; an id and captions are HTML."""
    folder = tmp_path_factory.mktemp("corpora") / "odd & even"
    ids = [EVIL, "<b>bold</b>", *(f"p{i}" for i in range(6))]
    with CorpusWriter(folder) as writer:
        write_images(writer.part / "images.h5", [(key, picture(30 * i)) for i, key in enumerate(ids)])
        for i, key in enumerate(ids):
            writer.images.append(ImageRecord(key, "test", 60, 40))
            writer.captions.append(Caption(f"c{i}", ("<script>document.title='owned'</script>", "w" * 500)[i % 2], (key,)))
    corpus = Searched(folder)
    torch.manual_seed(0)
    split = corpus.split("test")
    shape = clip.ClipShape(image_size=24, patch=8, width=16, layers=1, heads=2, projection=16)
    model, inputs = clip.from_scratch(shape, corpus.images, learn_tokenizer(["a red dog", "a blue cat"]))
    cache = tmp_path_factory.mktemp("encoded")
    return Searcher(model, inputs, split, name="CLIP", checkpoint="one", corpus=corpus, cache=cache)


def picture(red: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (60, 40), (red, 120, 40)).save(file, "PNG")
    return file.getvalue()


def test_what_is_found_is_escaped(searcher):
    found = search(searcher, Query(text="a red dog"), 3)["images"]
    page = listed(searcher.corpus, "<i>images</i>", [*found, Hit("t", EVIL, "", 1.0, 2.0)])
    assert "<i>" not in page and "<script" not in page and "<img src=x" not in page
    assert page.count("data:image/jpeg;base64,") == 3 and "2.0000 (before 1.0000)" in page


def test_without_gradio_it_says_what_to_install(searcher):
    with (
        mock.patch.dict("sys.modules", {"gradio": None}),
        pytest.raises(ValueError, match="--serve needs gradio"),
        serving([searcher], None, 5, 5, "127.0.0.1", 0),
    ):
        pass


# In a browser


@pytest.fixture(scope="module")
def address(searcher):
    pytest.importorskip("gradio")
    other = replace(searcher, name="DE", checkpoint="<i>two</i>")
    with serving([searcher, other], replace(searcher, name="SIAM"), 5, 3, "127.0.0.1", 0) as address:
        yield address


@pytest.fixture
def page(browser, address):
    browser.get_log("performance")  # forget earlier pages
    browser.get_log("browser")
    browser.get(address)
    until(lambda: browser.find_elements("css selector", "#text textarea"))
    return browser


def until(holds, seconds: float = SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "the page did not come so far"
        time.sleep(0.1)


def headings(page) -> list[str]:
    return [heading.text for heading in page.find_elements("css selector", "#results h2")]


def search_text(page, text: str) -> None:
    box = page.find_element("css selector", "#text textarea")
    box.clear()
    box.send_keys(text)
    page.find_element("id", "by-text").click()


def choose_tab(page, name: str) -> None:
    next(tab for tab in page.find_elements("css selector", "button[role=tab]") if name in tab.text).click()
    until(lambda: page.find_element("css selector", "#picture input[type=file]"))


@pytest.mark.browser
def test_a_text_finds_images_and_nothing_in_them_runs(page, address, searcher):
    search_text(page, "a red dog")
    until(lambda: headings(page))
    assert headings(page) == ["Images by CLIP (logit scale x cosine), the best again by SIAM (logit scale x cosine)"]
    found = search(searcher, Query(text="a red dog"), 5, searcher, 3)["images"]
    shown = page.find_elements("css selector", "#results li")
    assert [item.find_elements("tag name", "small")[0].text for item in shown] == [hit.id for hit in found]
    script = "return [...document.querySelectorAll('#results img')].map(image => image.naturalWidth)"
    assert page.execute_script(script) == [60] * 5
    page.find_element("css selector", "#top input").send_keys("\ue009a\ue0008\ue007")  # all of the field; 8
    page.find_element("id", "by-text").click()
    until(lambda: len(page.find_elements("css selector", "#results li")) == 8)
    assert EVIL in page.find_element("id", "results").text and page.title == "Search odd & even"
    assert not page.find_elements("css selector", "#results script, #results b b, #results i, #results small *")
    assert [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"] == []
    assert [url for url in requests(page, address) if not url.startswith((address, "data:", "blob:"))] == []


def requests(page, address: str) -> set[str]:
    """Addresses that the page asked for; a browser just started may still be asking for pages of its own."""
    events = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
    asked = {request["request"]["url"] for request in sent if request["documentURL"].startswith(address)}
    assert address in asked
    return asked


@pytest.mark.browser
def test_another_model_and_no_second(page):
    page.find_element("css selector", "#rerank input").click()
    page.find_element("css selector", "#model input").click()
    until(lambda: page.find_elements("css selector", "[role=option]"))
    options = page.find_elements("css selector", "[role=option]")
    assert options[1].text.endswith("DE: <i>two</i>")
    options[1].click()
    search_text(page, "a red dog\n")
    until(lambda: headings(page) == ["Images by DE (logit scale x cosine)"])


@pytest.mark.browser
def test_a_picture_finds_texts_and_images(page, tmp_path: Path):
    choose_tab(page, "By picture")
    (tmp_path / "<b>my photo.png").write_bytes(picture(60))
    page.find_element("css selector", "#picture input[type=file]").send_keys(str(tmp_path / "<b>my photo.png"))
    until(lambda: page.find_elements("css selector", "#picture img"))
    page.find_element("id", "by-picture").click()
    until(lambda: len(headings(page)) == 2)
    assert headings(page)[1].startswith("Images by CLIP (cosine)")
    assert page.find_elements("css selector", "#results ol")[1].find_elements("tag name", "small")[0].text == "p0"


@pytest.mark.browser
def test_what_is_wrong_is_told_and_does_not_run(page):
    search_text(page, "   ")
    until(lambda: page.find_elements("css selector", "#results [role=alert]"))
    assert "give a text or a picture" in page.find_element("id", "results").text
    choose_tab(page, "By picture")
    page.find_element("css selector", "#image textarea").send_keys("<script>1</script>")
    page.find_element("id", "by-picture").click()
    until(lambda: "no image '<script>1</script>' in odd & even" in page.find_element("id", "results").text)


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_overflows(page, width):
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    )
    search_text(page, "a red dog")
    until(lambda: headings(page))
    wide = page.execute_script("return [document.documentElement.scrollWidth, document.body.scrollWidth, innerWidth]")
    assert max(wide) <= width


@pytest.mark.browser
def test_no_file_of_the_machine_is_served(address, searcher):
    for path in ("/etc/passwd", searcher.corpus.folder / "corpus.json"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{address}gradio_api/file={urllib.request.quote(str(path))}")
        assert refused.value.code in (403, 404)


@pytest.mark.browser
def test_it_listens_on_loopback_and_a_taken_port_is_told(address, searcher):
    port = int(address.rstrip("/").rpartition(":")[2])
    assert address == f"http://127.0.0.1:{port}/"
    with (
        pytest.raises(ValueError, match=f"--port {port}: the page cannot listen there"),
        serving([searcher], None, 5, 5, "127.0.0.1", port),
    ):
        pass
