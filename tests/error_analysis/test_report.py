from __future__ import annotations

import io
import json
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from corpora.store import StoreError
from error_analysis.analysis import Options, analyse
from error_analysis.report import write_report

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


@pytest.fixture
def report(tmp_path, make_ranking):
    """report(corpus, scores by model, options): the written page."""

    def make(corpus, scores, **options):
        split = corpus.split("val")
        rankings = {name: make_ranking(split, array) for name, array in scores.items()}
        index = write_report(analyse(rankings, corpus, Options(**options)), corpus.images, tmp_path / "report")
        return index, Page(index.read_text(encoding="utf-8"))

    return make


def right(corpus):
    split = corpus.split("val")
    scores = np.zeros((len(split.image_ids), len(split.texts)))
    scores[split.pairs[:, 0], split.pairs[:, 1]] = 1
    return scores


def wrong(corpus):
    return -right(corpus)


def test_the_folder(report, numbered_corpus):
    index, page = report(numbered_corpus, {"clip": right(numbered_corpus)})
    assert sorted(path.name for path in index.parent.iterdir()) == ["index.html", "report.json", "thumbnails"]
    content = json.loads((index.parent / "report.json").read_text())
    assert content["models"][0]["metrics"]["figures"]["rsum"] == 600
    assert {attrs["src"] for attrs in page.all("img")} == {f"thumbnails/{i:06d}.jpg" for i in range(24)}
    assert all((index.parent / attrs["src"]).exists() for attrs in page.all("img"))


def test_nothing_comes_from_a_network(report, numbered_corpus):
    index, page = report(numbered_corpus, {"clip": right(numbered_corpus), "lxmert": wrong(numbered_corpus)})
    links = [attrs.get(key) for _, attrs in page.elements for key in ("src", "href") if attrs.get(key)]
    assert all(link.startswith(("#", "thumbnails/", "data:,")) or link == "report.json" for link in links)
    assert "http:" not in index.read_text() and "https:" not in index.read_text()


def test_captions_ids_and_names_are_escaped(report, make_corpus):
    corpus = make_corpus(NASTY)
    index, page = report(corpus, {"<i>clip</i>": right(corpus), "lx&amp;mert": wrong(corpus)}, hard=1)
    assert len(page.all("script")) == 1
    assert page.all("i") == page.all("b") == []
    assert not any("onerror" in attrs for attrs in page.all("img"))
    for texts in NASTY.values():
        for text in texts:
            assert text in page.text
    assert "<i>clip</i>" in page.text and "lx&amp;mert" in page.text
    assert {attrs["alt"] for attrs in page.all("img")} == {f"image {key}" for key in NASTY}
    assert sorted(path.name for path in (index.parent / "thumbnails").iterdir()) == ["000000.jpg", "000001.jpg", "000002.jpg"]


def test_empty_lists_say_so(report, numbered_corpus):
    _, page = report(numbered_corpus, {"clip": right(numbered_corpus)})
    assert "No hard image: every truth is among the first 10." in page.text
    assert "No hard caption: every truth is among the first 10." in page.text
    assert "Model against model" not in page.text
    _, page = report(numbered_corpus, {"clip": wrong(numbered_corpus)})
    assert "No easy caption: no truth is in the first place." in page.text
    assert "40 of" not in page.text and "24 captions" in page.text
    _, page = report(numbered_corpus, {"a": right(numbered_corpus), "b": right(numbered_corpus)})
    assert page.text.count("No such image.") == page.text.count("No such caption.") == 2


def test_the_best_of_a_row_is_marked_unless_all_are_equal(report, numbered_corpus):
    _, page = report(numbered_corpus, {"a": right(numbered_corpus), "b": wrong(numbered_corpus)})
    best = [place for place, attrs in enumerate(page.all("td")) if attrs.get("class") == "best"]
    assert best == list(range(0, 30, 2))  # model a's column in all rows: seven figures a direction, and rsum
    _, page = report(numbered_corpus, {"a": right(numbered_corpus), "b": right(numbered_corpus)})
    assert not [attrs for attrs in page.all("td") if attrs.get("class") == "best"]


@pytest.mark.parametrize("models", [1, 2, 3])
def test_lists_and_comparisons_by_number_of_models(report, numbered_corpus, models):
    noise = np.random.default_rng(0)
    scores = {f"m{i}": right(numbered_corpus) + noise.normal(0, 1, (24, 24)) for i in range(models)}
    _, page = report(numbered_corpus, scores)
    sections = {attrs["id"] for attrs in page.all("section")}
    assert {f"model-{i + 1}" for i in range(models)} <= sections
    assert ("comparisons" in sections) == (models > 1)
    assert page.text.count("does well,") == models * (models - 1)
    assert len(page.all("svg")) == 2 and len(page.all("rect")) > 2


def test_relevant_items_are_marked_by_more_than_colour(report, numbered_corpus):
    _, page = report(numbered_corpus, {"clip": right(numbered_corpus)}, sample=1)
    marked = [attrs for attrs in page.all("li") if attrs.get("class") == "right"]
    assert len(marked) == page.text.count("✓") == page.text.count("truth: ") == 4  # truth and first place, both directions


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
    index, page = report(corpus, {"clip": np.ones((1, 1))})
    with Image.open(io.BytesIO((index.parent / "thumbnails/000000.jpg").read_bytes())) as thumbnail:
        assert (thumbnail.format, thumbnail.size) == ("JPEG", expected)
    assert {(attrs["width"], attrs["height"], attrs["loading"]) for attrs in page.all("img")} == {(*map(str, expected), "lazy")}


def test_only_pictures_that_are_shown_are_stored(report, numbered_corpus):
    index, _ = report(numbered_corpus, {"clip": right(numbered_corpus)}, sample=1)
    assert 1 < len(list((index.parent / "thumbnails").iterdir())) <= 12
