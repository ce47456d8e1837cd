"""The report in a real browser: opened from disk, no network, nothing in a caption runs, no overflow; tables, queries, keys."""

from __future__ import annotations

import json
import time
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest

from error_analysis import report as report_module
from error_analysis.analysis import Options, analyse
from error_analysis.ranks import examples, queries, section
from error_analysis.report import write_report
from error_analysis.reports import write_reports
from error_analysis.section import Column, Section, Table

pytestmark = pytest.mark.browser

IMAGES = [*(f"photo {i} & <more>" for i in range(29)), "100%25 \u56fe/1?#", "evil"]
EVIL = [
    "<script>document.title = 'owned'</script>",
    "<img src=x onerror=\"document.title = 'owned'\">",
    "w" * 500,
    "\u0643\u0644\u0628 \u064a\u062c\u0631\u064a \u0641\u064a \u0627\u0644\u062d\u0642\u0644",
]
MIXED = Table(
    "mixed",
    "A table of every kind",
    tuple(
        Column(name, kind)
        for name, kind in {
            "Word": "text", "Group": "text", "n": "count", "Share": "share", "Rank": "rank", "p": "p", "Caption": "query",
        }.items()
    ),
    (
        *((f"word {i:02}", "odd" if i % 2 else "even", i * i, i / 40, i, i / 40, f"c{i}") for i in range(40)),
        ("none", "odd", None, None, None, None, "not of this split"),
    ),
    "A note with <b>marks</b>.",
    "t2i",
)  # fmt: skip
HARMLESS = Section("topic", "A topic <i>", tuple(f"Sentence {i} of 12 %." for i in range(6)), (MIXED,), ())


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, Path]:
    """Where the report lies, once it is made."""
    return {"folder": tmp_path_factory.mktemp("browser")}


@pytest.fixture
def page(browser, made, make_corpus, make_ranking, make_jpeg, monkeypatch) -> Path:
    if "index" not in made:
        captions = {key: [f"a plain caption {i}", f"another plain caption {i}"] for i, key in enumerate(IMAGES)}
        captions["evil"] = EVIL
        corpus = make_corpus(captions, picture=make_jpeg(400, 300))
        split = corpus.split("val")
        truth = np.zeros((len(split.image_ids), len(split.texts)))
        truth[tuple(split.pairs.T)] = 1
        noise = np.random.default_rng(0)
        rankings = {
            name: make_ranking(split, truth + noise.normal(0, spread, truth.shape)) for name, spread in (("a", 0.4), ("b", 1.5))
        }
        analysis = analyse(rankings, corpus, Options())
        parts = (section(analysis), HARMLESS, examples(analysis), queries(analysis))
        monkeypatch.setattr(report_module, "all_sections", lambda *_: parts)
        made["index"] = write_report(analysis, corpus, made["folder"] / "run" / "report", others="../../reports.html")
        write_reports(made["folder"])
    go(browser, made["index"].as_uri())
    return made["index"]


def go(browser, url: str) -> None:
    """Open a page anew, in a window as wide as a desk's, with no log of earlier ones."""
    browser.get("about:blank")
    resize(browser, 1280)
    browser.get_log("performance")
    browser.get_log("browser")
    browser.get(url)


def resize(browser, width: int) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    )


def requests(browser, index: Path) -> set[str]:
    """Addresses that the page asked for; a browser just started may still be asking for pages of its own."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
    return {request["request"]["url"] for request in sent if request["documentURL"].split("#")[0] == index.as_uri()}


def show_all(browser) -> None:
    """Open what is folded, and let pictures load that are not near yet."""
    browser.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
    for _ in range(3):
        browser.execute_script("for (const image of document.images) image.loading = 'eager'")
        time.sleep(0.2)


def rows(browser, table: str) -> list[list[str]]:
    """What a table shows."""
    script = "return [...document.querySelectorAll(`#table-${arguments[0]} tbody tr`)].map(row => [...row.cells].map(cell => cell.innerText))"
    return browser.execute_script(script, table)


def find(browser, selector: str):
    return browser.find_element("css selector", selector)


def soon(browser, true) -> bool:
    """Whether this comes true: the page turns to another query after a key or a click, not during it."""
    from selenium.common.exceptions import StaleElementReferenceException
    from selenium.webdriver.support.wait import WebDriverWait

    return WebDriverWait(browser, 10, 0.05, [StaleElementReferenceException]).until(lambda _: true(), "it never came true")


def becomes(browser, selector: str, text: str) -> bool:
    """Whether an element comes to say this."""
    return soon(browser, lambda: find(browser, selector).text == text)


def complaints(browser) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def wide(browser) -> int:
    return browser.execute_script("return Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)")


def test_it_opens_from_disk_without_a_network_or_an_error(browser, page):
    show_all(browser)
    assert browser.title == "Error report: a, b on corpus val"
    assert find(browser, "h1").get_attribute("textContent") == "a, b"
    assert browser.execute_script("return [...document.images].length") > 20
    assert browser.execute_script("return [...document.images].every(image => image.complete && image.naturalWidth > 0)")
    asked = requests(browser, page)
    assert page.as_uri() in asked
    assert [url for url in asked if not url.startswith(("file://", "data:"))] == []
    assert complaints(browser) == []


def test_every_link_to_a_file_leads_to_one(browser, page):
    script = (
        "return [...document.querySelectorAll('a')].map(link => link.getAttribute('href')).filter(link => !link.startsWith('#'))"
    )
    links = browser.execute_script(script)
    assert "../../reports.html" in links and "tables/mixed.csv" in links and "plots/recall-i2t.svg" in links
    assert all((page.parent / link).exists() for link in links)
    script = "return [...document.querySelectorAll('a[href^=\"#\"]')].filter(link => !link.hash.startsWith('#query=') && !document.querySelector(link.hash)).length"
    assert browser.execute_script(script) == 0


def test_a_script_in_a_caption_is_inert(browser, page):
    scripts = browser.execute_script("return document.scripts.length")
    for place in range(60, 64):
        browser.get(f"{page.as_uri()}#query=t2i/c{place}")
        assert becomes(browser, "#query h1", EVIL[place - 60])
    browser.get(f"{page.as_uri()}#query=i2t/evil")
    assert soon(browser, lambda: EVIL[0] in find(browser, "#query .about").text)
    assert "owned" not in browser.title and browser.execute_script("return document.scripts.length") == scripts
    assert [
        image for image in browser.find_elements("css selector", "img") if "thumbnails/" not in image.get_attribute("src")
    ] == []


def test_only_its_own_scripts_may_run(browser, page):
    browser.execute_script(
        "const added = document.createElement('script'); added.textContent = \"document.title = 'owned'\"; document.body.append(added)"
    )
    assert "owned" not in browser.title


@pytest.mark.parametrize("width", [1280, 390, 360])
def test_nothing_overflows(browser, page, width):
    resize(browser, width)
    assert wide(browser) <= width
    show_all(browser)
    assert wide(browser) <= width
    for query in ("i2t/evil", "t2i/c62", "t2i/c0", "i2t/none"):
        browser.get(f"{page.as_uri()}#query={query}")
        assert wide(browser) <= width
    browser.get((page.parents[2] / "reports.html").as_uri())
    assert wide(browser) <= width


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_lies_over_anything(browser, page, width):
    """Blocks of the page that follow each other do not overlap; the contents, which stick to the window, are left out."""
    resize(browser, width)
    show_all(browser)
    script = """
      const over = [];
      for (const parent of document.querySelectorAll("#report section, .plots, figure, .table, .tools, .pager, tr, .findings, header")) {
        const boxes = [...parent.children].map((child) => [child, child.getBoundingClientRect()]).filter(([child, box]) => box.width && box.height && getComputedStyle(child).position === "static");
        boxes.forEach(([child, a], at) => boxes.slice(at + 1).forEach(([other, b]) => {
          if (Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1) over.push([child.outerHTML.slice(0, 90), other.outerHTML.slice(0, 90)]);
        }));
      }
      return over"""
    assert browser.execute_script(script) == []


def test_words_of_a_plot_do_not_lie_over_each_other(browser, page):
    script = """
      const over = [];
      for (const svg of document.querySelectorAll("figure svg")) {
        const texts = [...svg.querySelectorAll("text")].map((text) => [text.textContent, text.getBoundingClientRect()]);
        texts.forEach(([one, a], at) => texts.slice(at + 1).forEach(([other, b]) => {
          if (Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 3) over.push([one, other]);
        }));
      }
      return over"""
    show_all(browser)
    assert browser.execute_script(script) == []


def test_cells_are_shown_in_their_units(browser, page):
    shown = rows(browser, "mixed")
    assert len(shown) == 10 and find(browser, "#table-mixed .pager output").text == "1\u201310 of 41"
    assert shown[3] == ["word 03", "odd", "9", "7.5\u2009%", "4", "0.075", "another plain caption 1"]
    assert find(browser, "#table-mixed summary").text.split("\n")[0].startswith("A table of every kind")
    assert "A note with <b>marks</b>." in find(browser, "#table-mixed").text


@pytest.mark.parametrize(
    ("column", "clicks", "first"),
    [
        (0, 1, "none"),
        (0, 2, "word 39"),
        (2, 1, "word 39"),  # a number: the largest first
        (2, 2, "word 00"),
        (4, 1, "word 00"),  # a rank: the best first
        (6, 1, "word 00"),
    ],
)
def test_sorting(browser, page, column, clicks, first):
    for _ in range(clicks):
        browser.find_elements("css selector", "#table-mixed thead button")[column].click()
    assert rows(browser, "mixed")[0][0] == first
    heads = [head.get_attribute("aria-sort") for head in browser.find_elements("css selector", "#table-mixed th[scope=col]")]
    assert [at for at, sort in enumerate(heads) if sort != "none"] == [column]


def test_what_has_no_figure_stands_last_either_way(browser, page):
    for _ in range(2):
        browser.find_elements("css selector", "#table-mixed thead button")[2].click()
        browser.execute_script(
            "const size = document.querySelector('#table-mixed .pager select'); size.value = 100; size.onchange()"
        )
        shown = rows(browser, "mixed")
        assert len(shown) == 41 and shown[-1] == ["none", "odd", *["\u2013"] * 4, "not of this split"]


def test_search_filters_and_pages(browser, page):
    output = find(browser, "#table-mixed .pager output")
    find(browser, "#table-mixed [type=search]").send_keys("PLAIN CAPTION 1")  # a caption's words: c2, c3, c20, ...
    time.sleep(0.3)
    assert output.text == "1\u201310 of 22 (of 41)"
    later, earlier = (find(browser, f"#table-mixed [aria-label='{label} rows']") for label in ("Later", "Earlier"))
    assert not earlier.is_enabled()
    later.click()
    later.click()
    assert output.text == "21\u201322 of 22 (of 41)" and not later.is_enabled() and earlier.is_enabled()
    choose(browser, "Group", "even")
    assert output.text == "1\u201310 of 11 (of 41)"  # from the first page again
    choose(browser, "Filter by a number", "Rank")
    limit(browser, "Rank from", "21")  # ranks are shown from 1
    assert [row[0] for row in rows(browser, "mixed")] == [f"word {i}" for i in range(20, 40, 2)]
    choose(browser, "Filter by a number", "Share")
    limit(browser, "Share to", "60")  # percent, as shown
    assert [row[0] for row in rows(browser, "mixed")] == ["word 20", "word 22", "word 24"]
    find(browser, "#table-mixed [type=search]").send_keys("no such thing")
    time.sleep(0.3)
    assert rows(browser, "mixed") == [["No row matches."]] and output.text == "0 (of 41)"
    find(browser, "#table-mixed [aria-label='Remove the filter Rank']").click()
    find(browser, "#table-mixed [type=search]").clear()
    find(browser, "#table-mixed [type=search]").send_keys(" ")
    choose(browser, "Group", "Group: all")
    time.sleep(0.3)
    assert output.text == "1\u201310 of 25 (of 41)"


def choose(browser, label: str, option: str) -> None:
    from selenium.webdriver.support.select import Select

    Select(find(browser, f"#table-mixed select[aria-label='{label}']")).select_by_visible_text(option)


def limit(browser, label: str, value: str) -> None:
    find(browser, f"#table-mixed input[aria-label='{label}']").send_keys(value)


def test_a_query_has_every_models_first_items_side_by_side(browser, page):
    go(browser, f"{page.as_uri()}#query=t2i/c6")  # a shared link
    content = json.loads((page.parent / "report.json").read_text())
    table = next(table for part in content["sections"] for table in part["tables"] if table["name"] == "queries-t2i")
    row = next(row for row in table["rows"] if row[0] == "c6")
    assert becomes(browser, "#query h1", "a plain caption 3") and not find(browser, "#report").is_displayed()
    assert [name.text for name in browser.find_elements("css selector", ".models h2")] == ["a", "b"]
    for number, model in enumerate(browser.find_elements("css selector", ".models > section")):
        assert f"Truth at rank {row[1 + number]} of 31" in model.text
        places = model.find_elements("css selector", "li")
        assert len(places) == 10
        right = [at for at, place in enumerate(places, 1) if "truth:" in place.get_attribute("textContent")]
        assert right == ([row[1 + number]] if row[1 + number] <= 10 else [])
        assert f"image {row[3 + number]}" in {places[0].find_element("css selector", "img").get_attribute("alt")}
        scores = [float(place.find_element("css selector", ".score").text.removeprefix("score\n")) for place in places]
        assert scores == sorted(scores, reverse=True)
    said = find(browser, "#query .told").text
    assert "A table of every kind" in said and "word 06" in said and "every caption" not in said


def test_from_a_table_to_its_queries_and_back(browser, page):
    browser.find_elements("css selector", "#table-mixed thead button")[4].click()
    browser.find_elements("css selector", "#table-mixed thead button")[4].click()  # the worst first
    scrolled = browser.execute_script("document.querySelector('#table-mixed').scrollIntoView(); return scrollY")
    browser.find_elements("css selector", "#table-mixed tbody a")[1].click()
    assert becomes(browser, "#query .id", "c38") and becomes(browser, ".bar .count", "2 of 40")
    assert soon(browser, lambda: browser.title.startswith("c38 \u00b7 Error report"))
    assert soon(browser, lambda: browser.execute_script("return scrollY") == 0)
    find(browser, "#query h1").send_keys("\ue014")  # right
    assert becomes(browser, "#query .id", "c37")
    for key in ("c38", "c39"):
        find(browser, "#query h1").send_keys("\ue012")  # left
        assert becomes(browser, "#query .id", key)
    find(browser, "#query h1").send_keys("\ue00c")  # escape
    assert becomes(browser, "#query h1", "")  # hidden
    assert soon(browser, lambda: find(browser, "#report").is_displayed() and not find(browser, "#query").is_displayed())
    assert soon(browser, lambda: abs(browser.execute_script("return scrollY") - scrolled) < 60)
    assert complaints(browser) == []


def test_ids_of_any_letters_have_an_address(browser, page):
    for place, key in ((28, IMAGES[28]), (29, IMAGES[29])):
        go(browser, f"{page.as_uri()}#query=i2t/{quote(key, safe='')}")
        assert becomes(browser, "#query .id", key)
        find(browser, ".models .text a").click()
        assert soon(browser, lambda: "#query=t2i/c" in browser.current_url), place
        go(browser, f"{page.as_uri()}#query=t2i/c{2 * place}")
        find(browser, ".about .image a").click()
        assert becomes(browser, "#query .id", key)
    go(browser, f"{page.as_uri()}#query=i2t/100%")  # not an address at all
    assert becomes(browser, "#query h1", "No image with this id") and complaints(browser) == []


def test_a_link_to_a_folded_table_opens_it(browser, page):
    assert not browser.execute_script("return document.querySelector('#table-examples-t2i').open")
    go(browser, f"{page.as_uri()}#table-examples-t2i")
    assert browser.execute_script("return document.querySelector('#table-examples-t2i').open")
    time.sleep(0.2)
    assert abs(browser.execute_script("return document.querySelector('#table-examples-t2i').getBoundingClientRect().top")) < 60


def test_it_works_by_keyboard(browser, page):
    browser.execute_script("document.querySelector('#table-examples-t2i summary').focus()")
    focused = browser.switch_to.active_element
    assert focused.tag_name == "summary"
    focused.send_keys("\ue007")  # Enter
    assert browser.execute_script("return document.activeElement.parentElement.open")
    focused.send_keys("\ue004")  # Tab
    assert browser.switch_to.active_element.tag_name in ("input", "button", "div")
    assert browser.switch_to.active_element.value_of_css_property("outline-style") == "solid"
    browser.execute_script("document.querySelector('#table-mixed thead button').focus()")
    browser.switch_to.active_element.send_keys("\ue00d")  # space
    assert rows(browser, "mixed")[0][0] == "none"


def test_every_control_has_a_name(browser, page):
    show_all(browser)
    script = "return [...document.querySelectorAll('input, select, button, a')].filter(one => !(one.ariaLabel || one.innerText.trim() || one.querySelector('[alt]:not([alt=\"\"])'))).map(one => one.outerHTML)"
    assert browser.execute_script(script) == []


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_light_and_dark_are_readable(browser, page, scheme, dark):
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
    script = "return ['color', 'backgroundColor'].map(key => getComputedStyle(document.body)[key].match(/\\d+/g).slice(0, 3).map(Number))"
    ink, paper = (np.mean(colour) for colour in browser.execute_script(script))
    assert (paper < 60) == dark and abs(ink - paper) > 150
    drawn = browser.execute_script(
        "return getComputedStyle(document.querySelector('figure svg text')).fill.match(/\\d+/g).map(Number)"
    )
    assert abs(np.mean(drawn[:3]) - paper) > 150  # a plot's words are in the page's ink


def test_the_page_over_the_reports(browser, page):
    go(browser, (page.parents[2] / "reports.html").as_uri())
    assert [link.text for link in browser.find_elements("css selector", "h2 a")] == ["run"] and complaints(browser) == []
    find(browser, "h2 a").click()
    assert browser.title.startswith("Error report: a, b")
