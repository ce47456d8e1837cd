"""The report in a real browser: opened from disk, no network, nothing in a caption runs, no overflow."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from error_analysis.analysis import Options, analyse
from error_analysis.report import write_report

pytestmark = pytest.mark.browser

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if not (CHROMIUM and DRIVER):
        pytest.skip("no Chromium or no chromedriver on the path")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in [*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, make_corpus, make_ranking, make_jpeg, tmp_path) -> Path:
    captions = {f"photo {i} & <more>": [f"a plain caption {i}", f"another plain caption {i}"] for i in range(30)}
    captions["evil"] = [
        "<script>document.title = 'owned'</script>",
        "<img src=x onerror=\"document.title = 'owned'\">",
        "w" * 500,
    ]
    corpus = make_corpus(captions, picture=make_jpeg(400, 300))
    split = corpus.split("val")
    truth = np.zeros((len(split.image_ids), len(split.texts)))
    truth[tuple(split.pairs.T)] = 1
    noise = np.random.default_rng(0)
    rankings = {
        name: make_ranking(split, truth + noise.normal(0, spread, truth.shape)) for name, spread in (("a", 0.4), ("b", 1.5))
    }
    options = Options(images=("evil",), captions=("c60", "c61", "c62"))
    index = write_report(analyse(rankings, corpus, options), corpus.images, tmp_path / "report")
    browser.get_log("performance")  # forget earlier pages
    browser.get_log("browser")
    browser.get(index.as_uri())
    return index


def resize(browser, width: int) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    )


def requests(browser, index: Path) -> set[str]:
    """Addresses that the page asked for; a browser just started may still be asking for pages of its own."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
    return {request["request"]["url"] for request in sent if request["documentURL"].split("#")[0] == index.as_uri()}


def open_all(browser) -> None:
    browser.find_element("id", "open").click()
    for _ in range(3):  # lazy pictures load as they come near
        browser.execute_script("for (const image of document.images) image.loading = 'eager'")
        time.sleep(0.2)


def test_it_opens_from_disk_without_a_network_or_an_error(browser, page):
    open_all(browser)
    assert browser.title == "Error report: a, b on corpus val"
    assert browser.find_element("tag name", "h1").text == "a and b"
    assert len(browser.find_elements("css selector", ".figures tbody tr")) == 18
    loaded = browser.execute_script("return [...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert loaded
    asked = requests(browser, page)
    assert page.as_uri() in asked
    assert [url for url in asked if not url.startswith(("file://", "data:"))] == []
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []


def test_a_script_in_a_caption_is_inert(browser, page):
    open_all(browser)
    assert "owned" not in browser.title
    assert browser.execute_script("return document.scripts.length") == 1
    shown = browser.find_element("css selector", "#model-1").text
    assert "<script>document.title = 'owned'</script>" in shown


def test_only_its_own_script_may_run(browser, page):
    browser.execute_script(
        "const added = document.createElement('script'); added.textContent = \"document.title = 'owned'\"; document.body.append(added)"
    )
    assert "owned" not in browser.title


@pytest.mark.parametrize("width", [1280, 375, 360])
def test_nothing_overflows(browser, page, width):
    resize(browser, width)
    for opened in (False, True):
        if opened:
            open_all(browser)
        wide = browser.execute_script(
            "return [document.documentElement.scrollWidth, document.body.scrollWidth, innerWidth, document.documentElement.clientWidth]"
        )
        assert max(wide) <= width


def test_the_filter_shows_what_matches(browser, page):
    browser.find_element("id", "filter").send_keys("OWNED")
    time.sleep(0.4)
    found = browser.find_element("id", "found").text
    shown = browser.execute_script("return document.querySelectorAll('.example:not([hidden])').length")
    total = browser.execute_script("return document.querySelectorAll('.example').length")
    assert 0 < shown < total and found == f"{shown} of {total} examples"
    browser.find_element("id", "filter").clear()
    browser.find_element("id", "filter").send_keys(" ")
    time.sleep(0.4)
    assert browser.execute_script("return document.querySelectorAll('.example[hidden]').length") == 0


def test_lists_open_by_keyboard(browser, page):
    browser.execute_script("document.getElementById('close').focus()")
    browser.switch_to.active_element.send_keys("\ue004")  # Tab
    focused = browser.switch_to.active_element
    assert focused.tag_name == "summary" and focused.value_of_css_property("outline-style") == "solid"
    focused.send_keys("\ue007")  # Enter
    assert browser.execute_script("return document.activeElement.parentElement.open")


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_light_and_dark_are_readable(browser, page, scheme, dark):
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
    script = "return ['color', 'backgroundColor'].map(key => getComputedStyle(document.body)[key].match(/\\d+/g).slice(0, 3).map(Number))"
    ink, paper = (np.mean(colour) for colour in browser.execute_script(script))
    assert (paper < 60) == dark and abs(ink - paper) > 150
