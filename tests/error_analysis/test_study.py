"""From ranking files to a report, as `python -m error_analysis` does it, and the page over several reports."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from error_analysis.__main__ import main
from error_analysis.reports import write_reports
from error_analysis.study import open_rankings, ranked_corpus
from ranking.matrix import read_ranking, write_ranking


@pytest.fixture
def write(numbered_corpus, make_ranking, tmp_path):
    """write(path below a project's folder, model): a ranking file that names its corpus from that folder."""
    split = numbered_corpus.split("val")

    def make(path, model="clip", corpus="corpus"):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        scores = np.eye(24) + np.random.default_rng(len(model)).normal(0, 0.4, (24, 24))
        write_ranking(file, make_ranking(split, scores, model, corpus=corpus))
        return file

    return make


def test_two_files_and_nothing_else(write, tmp_path, monkeypatch, capsys):
    """From a folder that is not the project's: the corpus is found above the files."""
    one, two = write("runs/predict/a/ranking-val.h5", "clip"), write("runs/predict/b/ranking-val.h5", "tern b")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    main([str(one), str(two)])
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == "reports/clip-tern-b/report/index.html"
    content = json.loads((tmp_path / "elsewhere/reports/clip-tern-b/report/report.json").read_text())
    assert [model["name"] for model in content["models"]] == ["clip", "tern b"]
    names = [section["name"] for section in content["sections"]]
    assert (
        {"ranks", "causes", "confidence", "hubness", "queries"} <= set(names) and names[0] == "ranks" and names[-1] == "queries"
    )
    assert (tmp_path / "elsewhere/reports/reports.html").exists()


def test_a_mistake_is_one_line(write, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path / "none.h5")])
    assert stop.value.code == f"error: {tmp_path / 'none.h5'}: no such ranking file"
    lost = write("runs/x/ranking.h5", corpus="data/lost")
    with pytest.raises(SystemExit) as stop:
        main([str(lost), "--out", str(tmp_path / "out")])
    assert "was ranked on corpus 'data/lost', which is not here; give its folder with --corpus" in stop.value.code
    with pytest.raises(SystemExit) as stop:
        main([str(lost), "--names", "a", "b"])
    assert "give 1 different names" in stop.value.code
    assert not (tmp_path / "out").exists()


def test_the_nearest_corpus_is_taken(write, tmp_path, monkeypatch):
    file = write("project/runs/x/ranking.h5")
    ranking = read_ranking(file)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert ranked_corpus(ranking, file) == tmp_path / "corpus"
    (tmp_path / "project/corpus").symlink_to(tmp_path / "corpus")
    assert ranked_corpus(ranking, file) == tmp_path / "project/corpus"
    (tmp_path / "here/corpus").symlink_to(tmp_path / "corpus")
    assert str(ranked_corpus(ranking, file)) == "corpus"  # from here, first of all
    unnamed = read_ranking(write("runs/y/ranking.h5", corpus=""))
    with pytest.raises(ValueError, match="give its folder with --corpus"):
        ranked_corpus(unnamed, file)


def test_names_are_the_models_or_the_folders(write):
    one, two, same = write("runs/p/a/r.h5", "clip"), write("runs/p/b/r.h5", "tern"), write("runs/p/c/r.h5", "clip")
    assert list(open_rankings([one, two])) == ["clip", "tern"]
    assert list(open_rankings([one, same])) == ["a", "c"]
    assert list(open_rankings([one, same], ["x", "y"])) == ["x", "y"]
    for wrong in (["x"], ["x", "x"], ["x", ""]):
        with pytest.raises(ValueError, match="give 2 different names"):
            open_rankings([one, same], wrong)
    with pytest.raises(ValueError, match="name at least one ranking file"):
        open_rankings([])


def overview(name):
    figures = {"R@1": 12.34, "R@5": 20, "R@10": 30, "MedR": 3}
    finding = {"name": "ranks", "title": "T", "sentence": f"{name} <b>fails</b>."}
    return {
        "corpus": "coco", "split": "test", "images": 5000, "texts": 25010, "findings": [finding] * 5,
        "models": [{"name": f"<i>{name}</i>", "rsum": 222.22, "i2t": figures, "t2i": figures | {"R@1": 56.78}}],
    }  # fmt: skip


def test_the_page_over_several_reports(tmp_path):
    for age, name in enumerate(["old one", "new & one"]):
        folder = tmp_path / name / "report"
        folder.mkdir(parents=True)
        (folder / "overview.json").write_text(json.dumps(overview(name)))
        os.utime(folder / "overview.json", (1_700_000_000 + age, 1_700_000_000 + age))
    (tmp_path / "not a report").mkdir()
    page = write_reports(tmp_path).read_text()
    assert page.index("new%20%26%20one/report/index.html") < page.index("old%20one/report/index.html")
    assert "2 in" in page and "5,000 images and 25,010 captions" in page and "12.3" in page and "56.8" in page and "222.2" in page
    assert "&lt;i&gt;old one&lt;/i&gt;" in page and "<b>fails" not in page and page.count("old one &lt;b&gt;fails") == 3
    assert not list(tmp_path.glob("reports.html.*"))


def test_no_report_yet(tmp_path):
    assert "0 in" in write_reports(tmp_path).read_text()
