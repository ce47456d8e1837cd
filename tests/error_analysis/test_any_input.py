"""Whatever is ranked, however badly or well: a whole report that says so, or one clear word, and never half a report."""

from __future__ import annotations

import json
import math
import re
import tempfile
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corpora.corpus import Caption, Corpus, CorpusWriter, ImageRecord
from corpora.images import write_images
from error_analysis.analysis import Options, analyse
from error_analysis.mining import QUERY_KIND
from error_analysis.section import Section
from error_analysis.sections import sections
from error_analysis.study import study
from ranking.matrix import Axis, Provenance, Ranking, Relevance, write_ranking
from ranking.rescored import OF_ITEM, OF_QUERY, Rescored

PLAIN = ["a", "dog", "cat", "red", "blue", "two", "three", "no", "left", "right", "of", "the", "runs"]
WORDS = [*PLAIN, "<b>bold</b>", "\u72d7", "\u0433\u043e\u0440\u043e\u0434", "\u00e9t\u00e9", "&amp;", "$x$", "%", "'q'", "\\n"]


def check(made: tuple[Section, ...], analysis) -> None:
    """What every section promises, whatever it is about."""
    names = [table.name for section in made for table in section.tables]
    assert len(set(names)) == len(names)
    for section in made:
        assert section.sentences, section.name
        for sentence in section.sentences:
            assert sentence[-1] == "." and not re.search(r"\b(nan|inf)\b|(?<!^)\bNone\b", sentence), sentence
        for table in section.tables:
            check_table(table, analysis)
        for plot in section.plots:
            check_plot(plot)


def check_table(table, analysis) -> None:
    for row in table.rows:
        assert len(row) == len(table.columns), table.name
        for column, cell in zip(table.columns, row, strict=True):
            where = (table.name, column, cell)
            assert cell is None or isinstance(cell, str | int | float | bool), where
            if isinstance(cell, float):
                assert math.isfinite(cell), where
            if column.kind == "share" and cell is not None:
                assert -1e-9 <= cell <= 1 + 1e-9, where
            if column.kind == "p" and cell is not None:
                assert 0 <= cell <= 1, where
            if column.kind in ("count", "rank") and cell is not None:
                assert cell >= 0, where
            if column.kind in ("query", "item") and table.direction and cell is not None:
                query = QUERY_KIND[table.direction]
                kind = query if column.kind == "query" else "text" if query == "image" else "image"
                assert cell in (analysis.split.image_ids if kind == "image" else analysis.split.text_ids), where


def check_plot(plot) -> None:
    for series in plot.series:
        assert len(series.x) == len(series.y), plot.name
        for values in (series.y, series.low or (), series.high or ()):
            assert np.isfinite(np.array(values, float)).all(), (plot.name, values)
        assert all(isinstance(x, str) or math.isfinite(x) for x in series.x), plot.name


def corpus_of(folder: Path, captions: dict[str, list[str]], picture: bytes, shared: tuple[str, ...] = ()) -> Corpus:
    """Images with these captions; the `shared` ones describe every image."""
    with CorpusWriter(folder) as writer:
        write_images(writer.part / "images.h5", [(key, picture) for key in captions])
        writer.images += [ImageRecord(key, "test", 40, 30) for key in captions]
        for key, texts in captions.items():
            writer.captions += [Caption(f"{key}.{number}", text, (key,)) for number, text in enumerate(texts)]
        writer.captions += [Caption(f"all.{number}", text, tuple(captions)) for number, text in enumerate(shared)]
    return Corpus(folder)


def ranking_of(corpus: Corpus, scores: np.ndarray, model: str = "m") -> Ranking:
    split = corpus.split("test")
    return Ranking(
        Axis("image", split.image_ids),
        Axis("text", split.text_ids),
        Relevance.from_pairs(split.pairs, len(split.image_ids)),
        np.asarray(scores, np.float32),
        Provenance(model, "none", str(corpus.folder), "test", split.digest, "made up"),
    )


def right(corpus: Corpus) -> np.ndarray:
    """Scores without an error."""
    split = corpus.split("test")
    scores = np.random.default_rng(0).uniform(0, 0.5, (len(split.image_ids), len(split.text_ids)))
    scores[split.pairs[:, 0], split.pairs[:, 1]] += 1
    return scores


@pytest.fixture
def corpus(tmp_path, make_jpeg):
    """12 images with one to four captions, some of them odd."""
    generator = np.random.default_rng(3)
    captions = {
        f"i/{image} <{image}>": [" ".join(generator.choice(WORDS, 7)) for _ in range(1 + image % 4)] for image in range(12)
    }
    return corpus_of(tmp_path / "corpus", captions, make_jpeg())


def told(corpus: Corpus, *rankings: Ranking, **options) -> str:
    """All sentences of the sections, which are checked."""
    analysis = analyse({ranking.provenance.model: ranking for ranking in rankings}, corpus, Options(**options))
    made = tuple(sections(analysis, corpus))
    check(made, analysis)
    return "\n".join(sentence for section in made for sentence in section.sentences)


@pytest.fixture
def report(tmp_path):
    """report(rankings, options...): the whole report from files, as a user makes it; its report.json."""

    def made(*rankings: Ranking, corpus: str = "", **options) -> dict:
        paths = []
        for number, ranking in enumerate(rankings):
            (tmp_path / f"run{number}").mkdir(exist_ok=True)
            paths.append(tmp_path / f"run{number}" / "ranking-test.h5")
            write_ranking(paths[-1], ranking)
        _, index = study(paths, tmp_path / "reports" / "this", Options(**options), corpus)
        assert index.stat().st_size > 1_000
        return json.loads((index.parent / "report.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)

    return made


def test_one_model_without_an_error(corpus):
    assert "100.0 % of images" in told(corpus, ranking_of(corpus, right(corpus)))


def test_a_model_that_is_always_wrong_beside_one_that_is_always_right(corpus):
    said = told(corpus, ranking_of(corpus, -right(corpus), "wrong"), ranking_of(corpus, right(corpus), "right"))
    assert "wrong puts a truth first for 0.0 % of images" in said and "right puts a truth first for 100.0 % of images" in said


def test_the_same_scores_under_two_names_are_noise(corpus):
    scores = right(corpus) + np.random.default_rng(1).standard_normal((12, 30))
    assert "noise" in told(corpus, ranking_of(corpus, scores, "one"), ranking_of(corpus, scores, "other"))


@pytest.mark.parametrize("ties", ["pessimistic", "optimistic", "expected"])
def test_one_score_for_everything(corpus, ties):
    first = {"pessimistic": "0.0 %", "optimistic": "100.0 %", "expected": "0.0 %"}[ties]
    assert f"m puts a truth first for {first} of images" in told(corpus, ranking_of(corpus, np.zeros((12, 30))), ties=ties)


def test_three_queries(tmp_path, make_jpeg):
    small = corpus_of(tmp_path / "small", {"a": ["one dog"], "b": ["two dogs"], "c": ["no dog"]}, make_jpeg())
    scores = np.array([[3, 1, 2], [3, 2, 1], [1, 3, 2]])
    assert "(1 of 3)" in told(small, ranking_of(small, scores, "a"), ranking_of(small, scores.T, "b"))


def test_every_caption_describes_every_image(tmp_path, make_jpeg):
    alike = corpus_of(tmp_path / "alike", {"a": [], "b": [], "c": []}, make_jpeg(), ("a dog", "a dog", "the dog"))
    assert "100.0 % of images" in told(alike, ranking_of(alike, np.arange(9).reshape(3, 3)))


def test_captions_and_photos_that_are_all_the_same(tmp_path, make_jpeg):
    same = corpus_of(tmp_path / "same", {f"i{n}": ["a dog on the grass"] * 2 for n in range(8)}, make_jpeg())
    scores = np.random.default_rng(0).standard_normal((8, 16))
    told(same, ranking_of(same, scores, "a"), ranking_of(same, -scores, "b"))


def test_captions_without_a_word(tmp_path, make_jpeg):
    captions = {f"i{n}": ["...", "\u72d7\u5728\u8349\u5730\u4e0a", "\U0001f415"] for n in range(4)}
    odd = corpus_of(tmp_path / "odd", captions, make_jpeg())
    told(odd, ranking_of(odd, np.random.default_rng(0).standard_normal((4, 12))))


@pytest.mark.parametrize("size", [3e38, 1e15, 1e-38])
def test_scores_that_are_huge_or_tiny(corpus, size):
    scores = [size * np.random.default_rng(seed).uniform(-1, 1, (12, 30)) for seed in (0, 1)]
    told(corpus, *(ranking_of(corpus, values, name) for name, values in zip("ab", scores, strict=True)))


def test_a_reranked_file(corpus):
    first, second = (np.random.default_rng(seed).standard_normal((12, 30)).astype(np.float32) for seed in (0, 1))
    marks = np.zeros((12, 30), np.uint8)
    for image, row in enumerate(first):
        marks[image, np.argsort(-row)[:5]] |= OF_QUERY
    for text, column in enumerate(first.T):
        marks[np.argsort(-column)[:3], text] |= OF_ITEM
    told(corpus, replace(ranking_of(corpus, first), rescored=Rescored(second, marks)))


def test_four_models(corpus):
    noise = np.random.default_rng(0)
    told(corpus, *(ranking_of(corpus, right(corpus) + noise.normal(0, n / 2, (12, 30)), f"m{n}") for n in range(4)))


def test_part_of_the_split(corpus):
    ranking = ranking_of(corpus, right(corpus))
    assert "(3 of 3)" in told(corpus, ranking.select(ranking.queries.ids[:3], ranking.items.ids[:6]))


def test_a_file_of_another_order_says_the_same(corpus):
    ranking = ranking_of(corpus, right(corpus) + np.random.default_rng(2).standard_normal((12, 30)))
    rows, columns = np.random.default_rng(0).permutation(12), np.random.default_rng(1).permutation(30)
    pairs = np.stack([np.argsort(rows)[ranking.relevant.pairs()[:, 0]], np.argsort(columns)[ranking.relevant.pairs()[:, 1]]], 1)
    mixed = replace(
        ranking,
        queries=Axis("image", tuple(ranking.queries.ids[n] for n in rows)),
        items=Axis("text", tuple(ranking.items.ids[n] for n in columns)),
        scores=ranking.scores[rows][:, columns],
        relevant=Relevance.from_pairs(pairs, 12),
    )
    made = [tuple(sections(analyse({"m": one}, corpus, Options()), corpus)) for one in (ranking, mixed, mixed.T)]
    assert made[0] == made[1] == made[2]


def test_the_whole_report_of_odd_names_without_pictures(corpus, report):
    (corpus.folder / "images.h5").unlink()
    document = report(ranking_of(corpus, right(corpus), "a/b: <x>"), ranking_of(corpus, -right(corpus), "../..\\$y$"))
    assert [model["name"] for model in document["models"]] == ["a/b: <x>", "../..\\$y$"]


def test_the_whole_report_of_one_image_and_its_caption(tmp_path, make_jpeg, report):
    tiny = corpus_of(tmp_path / "tiny", {"a": ["one dog"]}, make_jpeg())
    assert report(ranking_of(tiny, np.ones((1, 1))))["images"] == 1
    index = tmp_path / "reports/this/report/index.html"
    before = index.read_bytes()
    with pytest.raises(ValueError, match="no image 'no such image'"):
        report(ranking_of(tiny, np.ones((1, 1))), images=("no such image",))
    assert index.read_bytes() == before  # an earlier report outlives a failed one


def nothing_left(tmp_path: Path) -> bool:
    return not list((tmp_path / "reports").rglob("*.html")) if (tmp_path / "reports").exists() else True


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_no_number(corpus, tmp_path, bad):
    path = tmp_path / "bad.h5"
    write_ranking(path, ranking_of(corpus, right(corpus)))
    with h5py.File(path, "r+") as file:
        file["scores"][4, 7] = bad
    with pytest.raises(ValueError, match=r"1 of \d+ scores are not finite.*query 'i/4 <4>'"):
        study([path], tmp_path / "reports" / "this", Options())
    assert nothing_left(tmp_path)


def test_a_corpus_that_is_gone(corpus, report, tmp_path):
    ranking = ranking_of(corpus, right(corpus))
    with pytest.raises(ValueError, match=r"was ranked on corpus '/nowhere', which is not here; give its folder with --corpus"):
        report(replace(ranking, provenance=replace(ranking.provenance, corpus="/nowhere")))
    with pytest.raises(ValueError, match=r"no corpus here"):
        report(ranking, corpus=str(tmp_path / "nothing"))
    assert nothing_left(tmp_path)


def test_a_corpus_that_is_another(corpus, tmp_path, make_jpeg, report):
    other = corpus_of(tmp_path / "other", {"a": ["one"]}, make_jpeg())
    with pytest.raises(ValueError, match="m: ranking file from another corpus"):
        report(ranking_of(corpus, right(corpus)), corpus=str(other.folder))


def test_rankings_of_different_ids(corpus, tmp_path, make_jpeg, report):
    ranking = ranking_of(corpus, right(corpus), "one")
    part = ranking_of(corpus, right(corpus), "other").select(ranking.queries.ids[:3], ranking.items.ids[:6])
    with pytest.raises(ValueError, match=r"one and other: the rankings differ in 9 image ids"):
        report(ranking, part)
    assert nothing_left(tmp_path)


def test_a_file_that_is_no_ranking(tmp_path):
    (tmp_path / "x.h5").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"x.h5: not a whole ranking file"):
        study([tmp_path / "x.h5"], tmp_path / "reports" / "this", Options())
    with pytest.raises(ValueError, match=r"y.h5: no such ranking file"):
        study([tmp_path / "y.h5"], tmp_path / "reports" / "this", Options())
    with pytest.raises(ValueError, match=r"name at least one ranking file"):
        study([], tmp_path / "reports" / "this", Options())


@st.composite
def studies(draw):
    """Captions by image, captions of all images, and scores of one to three models."""
    images = draw(st.integers(1, 6))
    sentence = st.lists(st.sampled_from(WORDS), max_size=6).map(lambda words: " ".join(words) or "dog")
    captions = {f"i{n}": draw(st.lists(sentence, min_size=1, max_size=3)) for n in range(images)}
    shared = tuple(draw(st.lists(sentence, max_size=1)))
    size = images, sum(map(len, captions.values())) + len(shared)
    generator = np.random.default_rng(draw(st.integers(0, 99)))
    kinds = {
        "few values": lambda: generator.integers(0, 3, size),
        "any": lambda: generator.standard_normal(size),
        "constant": lambda: np.full(size, 0.25),
        "far apart": lambda: generator.choice([-1e15, 0, 1e-15, 1e15], size),
    }
    models = draw(st.lists(st.sampled_from(list(kinds)), min_size=1, max_size=3))
    return captions, shared, [kinds[kind]() for kind in models], draw(st.sampled_from(["pessimistic", "optimistic", "expected"]))


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(studies())
def test_every_section_of_anything(make_jpeg, made):
    captions, shared, scores, ties = made
    with tempfile.TemporaryDirectory() as folder:
        corpus = corpus_of(Path(folder) / "corpus", captions, make_jpeg(), shared)
        rankings = {f"m{n}": ranking_of(corpus, values, f"m{n}") for n, values in enumerate(scores)}
        analysis = analyse(rankings, corpus, Options(ties=ties))
        check(tuple(sections(analysis, corpus)), analysis)
