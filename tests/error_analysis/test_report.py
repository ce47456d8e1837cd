from __future__ import annotations

import base64
import csv
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from corpora.store import StoreError
from error_analysis import report as report_module
from error_analysis.analysis import Options, analyse
from error_analysis.ranks import examples, queries, section
from error_analysis.report import write_report
from error_analysis.section import Column, Plot, Section, Series, Table

NASTY = {
    "../../etc/<b>.jpg": ["<script>document.title = 'owned'</script> & \"quotes\" 'single'"],
    'a"onerror="alert(1)': ["</script><img src=x onerror=alert(1)>", "{{ 7 * 7 }} {% raw %}"],
    "图片 1": ["一只狗在草地上奔跑", "كلب يجري في الحقل", "w" * 400],
}


class Page(HTMLParser):
    """The elements and the text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


@pytest.fixture(autouse=True)
def few_sections(monkeypatch):
    """The report's own sections only: the other topics have tests of their own, and cost a second each."""
    monkeypatch.setattr(
        report_module, "all_sections", lambda analysis, corpus, judged: (section(analysis), examples(analysis), queries(analysis))
    )


@pytest.fixture
def report(tmp_path, make_ranking):
    """report(corpus, scores by model, options): the written page."""

    def make(corpus, scores, **options):
        split = corpus.split("val")
        rankings = {name: make_ranking(split, array) for name, array in scores.items()}
        index = write_report(analyse(rankings, corpus, Options(**options)), corpus, tmp_path / "report")
        return index, Page(index.read_text(encoding="utf-8"))

    return make


def right(corpus):
    split = corpus.split("val")
    scores = np.zeros((len(split.image_ids), len(split.texts)))
    scores[split.pairs[:, 0], split.pairs[:, 1]] = 1
    return scores


def wrong(corpus):
    return -right(corpus)


def data(index, name):
    """What a data file adds."""
    text = (index.parent / "data" / f"{name}.js").read_text(encoding="utf-8")
    added, value = re.fullmatch(r'"use strict";\nmisrank.add\("(\w+)", JSON.parse\((".*")\)\);\n', text).groups()
    assert added == name
    return json.loads(json.loads(value))


def numbers(text, kind):
    return np.frombuffer(base64.b64decode(text), kind).tolist()


def test_the_folder(report, numbered_corpus):
    index, page = report(numbered_corpus, {"clip": right(numbered_corpus), "lxmert": wrong(numbered_corpus)})
    assert sorted(path.name for path in index.parent.iterdir()) == [
        "data", "index.html", "overview.json", "page", "plots", "report.json", "tables", "thumbnails",
    ]  # fmt: skip
    content = json.loads((index.parent / "report.json").read_text())
    assert content["models"][0]["metrics"]["figures"]["rsum"] == 600
    assert [section["name"] for section in content["sections"]] == ["ranks", "examples", "queries"]
    plots = [plot["name"] for section in content["sections"] for plot in section["plots"]]
    assert sorted(path.name for path in (index.parent / "plots").iterdir()) == sorted(
        f"{name}.{kind}" for name in plots for kind in ("png", "svg")
    )
    tables = [table["name"] for section in content["sections"] for table in section["tables"]]
    assert sorted(path.name for path in (index.parent / "tables").iterdir()) == sorted(
        f"{name}.{kind}" for name in tables for kind in ("csv", "tex")
    )
    assert (
        len(page.all("svg")) == len(plots)
        and [attrs["data-table"] for attrs in page.all("div") if "data-table" in attrs] == tables
    )
    links = [attrs.get(key) for _, attrs in page.elements for key in ("src", "href") if attrs.get(key)]
    assert all((index.parent / link).exists() for link in links if not link.startswith(("#", "data:")))


def test_nothing_comes_from_a_network(report, numbered_corpus):
    index, page = report(numbered_corpus, {"clip": right(numbered_corpus), "lxmert": wrong(numbered_corpus)})
    links = [attrs.get(key) for _, attrs in page.elements for key in ("src", "href") if attrs.get(key)]
    assert not [link for link in links if "//" in link or link.startswith("/")]
    for path in (*index.parent.glob("page/*"), *index.parent.glob("data/*")):
        assert "http:" not in path.read_text() and "https:" not in path.read_text()


def test_captions_ids_and_names_are_escaped(report, make_corpus):
    corpus = make_corpus(NASTY)
    index, page = report(corpus, {"<i>clip</i>": right(corpus), "lx&amp;mert": wrong(corpus)}, hard=1)
    assert page.all("i") == page.all("b") == page.all("img") == []
    assert all(attrs.get("src") and "defer" in attrs for attrs in page.all("script"))
    assert "<i>clip</i>" in page.text and "lx&amp;mert" in page.text
    split = data(index, "split")
    assert split["texts"] == [text for texts in NASTY.values() for text in texts] and split["images"] == list(NASTY)
    assert sorted(path.name for path in (index.parent / "thumbnails").iterdir()) == ["000000.jpg", "000001.jpg", "000002.jpg"]


def test_only_scripts_of_its_own_folder_may_run(report, numbered_corpus):
    _, page = report(numbered_corpus, {"clip": right(numbered_corpus)})
    policy = next(attrs["content"] for attrs in page.all("meta") if attrs.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'" and rules["script-src"] == "'self' file:"
    assert not [name for _, attrs in page.elements for name in attrs if name.startswith("on")]


def test_what_the_scripts_read(report, make_corpus):
    """Three images, of which the second has two captions; the model confuses the first two images."""
    corpus = make_corpus({"a": ["one"], "b": ["two", "three"], "c": ["four"]})
    scores = np.array([[0.5, 0.75, 0.25, 0], [1, 0.5, 0.125, 0], [0, 0.1, 0.2, 2]])
    index, _ = report(corpus, {"m": scores})
    split = data(index, "split")
    assert numbers(split["pairs"], "<u4") == [0, 0, 1, 1, 1, 2, 2, 3]
    assert numbers(split["sizes"], "<u2") == [40, 30] * 3
    one = data(index, "retrieved")["i2t"][0]
    assert (one["model"], one["shown"]) == ("m", 4)
    assert numbers(one["items"], "<u4") == [1, 0, 2, 3, 0, 1, 2, 3, 3, 2, 1, 0]
    assert numbers(one["scores"], "<f4")[:4] == [0.75, 0.5, 0.25, 0]
    assert numbers(one["ranks"], "<f4") == [1, 1, 0] and numbers(one["truth"], "<f4") == [0.5, 0.5, 2]
    table = data(index, "tables")["queries-i2t"]
    assert table["rows"] == 3 and table["direction"] == "i2t"
    heads = [(column["name"], column["kind"], column["of"]) for column in table["columns"]]
    assert heads == [
        ("Image", "query", "image"),
        ("m: rank", "rank", ""),
        ("m: first", "item", "text"),
        ("m: margin", "figure", ""),
        ("m: AP", "share", ""),
    ]
    assert table["cells"] == [
        [0, 1, 2],
        [1, 1, 0],
        [1, 0, 3],
        [-0.25, -0.5, pytest.approx(1.8)],
        [0.5, pytest.approx((1 / 2 + 2 / 3) / 2), 1],
    ]


def test_tables_for_scripts_and_papers_count_from_1(report, numbered_corpus):
    index, _ = report(numbered_corpus, {"clip": wrong(numbered_corpus)})
    rows = list(csv.DictReader((index.parent / "tables/queries-t2i.csv").open()))
    assert rows[0]["Caption"] == "c0" and {row["clip: rank"] for row in rows} == {"24"}
    content = json.loads((index.parent / "report.json").read_text())
    table = next(table for part in content["sections"] for table in part["tables"] if table["name"] == "queries-t2i")
    assert {row[1] for row in table["rows"]} == {24} and table["rows"][0][0] == "c0"


def test_the_best_of_a_row_is_marked_unless_all_are_equal(report, numbered_corpus):
    _, page = report(numbered_corpus, {"a": right(numbered_corpus), "b": wrong(numbered_corpus)})
    best = [place for place, attrs in enumerate(page.all("td")) if "best" in (attrs.get("class") or "")]
    assert best == list(range(0, 18, 2))  # model a's column in all rows: four figures a direction, and rsum
    _, page = report(numbered_corpus, {"a": right(numbered_corpus), "b": right(numbered_corpus)})
    assert not [attrs for attrs in page.all("td") if "best" in (attrs.get("class") or "")]


def test_the_first_screen_says_what_each_section_found(report, numbered_corpus, monkeypatch):
    columns, points = (Column("n", "count"),), (Series("s", (1.0,), (1.0,)),)
    found = (
        Section("full", "Full", ("It is bad: 5 % fail.", "More."), tables=(Table("t", "T", columns, ((1,),)),)),
        Section("drawn", "Drawn", ("Long.",), lead="It is worse.", plots=(Plot("p", "P", "line", "x", "y", points),)),
        Section("nothing", "Nothing", ("There is nothing to say of this.",)),
        Section("queries", "Q", ("How to use it.",), tables=(Table("q", "Q", columns, ()),)),
    )
    monkeypatch.setattr(report_module, "all_sections", lambda *_: found)
    index, page = report(numbered_corpus, {"a": right(numbered_corpus)})
    start = page.text.index("What is wrong")
    first = page.text[start : page.text.index("Figures", start)]
    assert first.index("It is bad: 5\u202f% fail.") < first.index("It is worse.")
    assert not {"More.", "nothing to say", "How to use it"} & {part for part in first.splitlines() if part}
    assert "nothing to say" not in first and "There is nothing to say of this." in page.text
    overview = json.loads((index.parent / "overview.json").read_text())
    assert [finding["name"] for finding in overview["findings"]] == ["full", "drawn"]
    assert overview["models"][0] == {
        "name": "a",
        "rsum": 600,
        **{way: {"R@1": 100, "R@5": 100, "R@10": 100, "MedR": 1} for way in ("i2t", "t2i")},
    }


@pytest.mark.parametrize("kind", ["tables", "plots"])
def test_two_of_one_name_are_refused(report, numbered_corpus, monkeypatch, kind):
    made = Table("same", "T", (), ()) if kind == "tables" else Plot("same", "P", "line", "x", "y", ())
    found = [Section(name, name, (), **{kind: (made,)}) for name in ("a", "b")]
    monkeypatch.setattr(report_module, "all_sections", lambda *_: found)
    with pytest.raises(ValueError, match=f"{kind} of one name: same"):
        report(numbered_corpus, {"a": right(numbered_corpus)})


def test_a_report_is_replaced_whole(report, numbered_corpus):
    index, _ = report(numbered_corpus, {"clip": right(numbered_corpus)})
    before = {path.name: path.read_bytes() for path in index.parent.glob("**/*") if path.is_file()}
    (index.parent.with_name("report.part")).mkdir()
    (index.parent.with_name("report.part") / "left by a dead job").write_text("")
    report(numbered_corpus, {"clip": right(numbered_corpus)})
    assert before == {path.name: path.read_bytes() for path in index.parent.glob("**/*") if path.is_file()}
    assert not list(index.parent.parent.glob("report.*"))


def test_a_failed_report_leaves_the_earlier_one(report, numbered_corpus, make_corpus):
    index, _ = report(numbered_corpus, {"clip": right(numbered_corpus)})
    before = index.read_bytes()
    broken = make_corpus({"broken": ["a caption"]}, "broken", picture=b"no picture")
    with pytest.raises(StoreError, match=r"image 'broken' cannot be decoded .*prepare the corpus again"):
        report(broken, {"clip": np.ones((1, 1))})
    assert index.read_bytes() == before


def test_a_folder_that_is_no_report_is_never_replaced(report, numbered_corpus, tmp_path):
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="exists and is not a report"):
        report(numbered_corpus, {"clip": right(numbered_corpus)})
    assert (tmp_path / "report" / "thesis.txt").exists()


@pytest.mark.parametrize(
    ("size", "expected"),
    [((640, 480), (213, 160)), ((480, 640), (160, 213)), ((100, 80), (100, 80)), ((4000, 200), (480, 24)), ((1, 900), (1, 480))],
)
def test_thumbnail_sizes(report, make_corpus, make_jpeg, size, expected):
    corpus = make_corpus({"one": ["a caption"]}, picture=make_jpeg(*size))
    index, _ = report(corpus, {"clip": np.ones((1, 1))})
    with Image.open(io.BytesIO((index.parent / "thumbnails/000000.jpg").read_bytes())) as thumbnail:
        assert (thumbnail.format, thumbnail.size) == ("JPEG", expected)
    assert numbers(data(index, "split")["sizes"], "<u2") == list(expected)


def test_a_corpus_without_pictures(report, numbered_corpus):
    (numbered_corpus.folder / "images.h5").unlink()
    index, _ = report(numbered_corpus, {"clip": right(numbered_corpus)})
    assert not (index.parent / "thumbnails").exists()
    assert set(numbers(data(index, "split")["sizes"], "<u2")) == {0}
