from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from corpora.corpus import Caption, Corpus, CorpusError, CorpusWriter, ImageRecord
from corpora.images import write_images
from jobs.error_report import Config, run
from ranking.matrix import Axis, Provenance, Ranking, RankingError, Relevance, write_ranking

JOB = Path(__file__).resolve().parents[2] / "jobs" / "error_report.py"


def make_corpus(folder: Path, words: str = "caption") -> Corpus:
    images = 14
    picture = io.BytesIO()
    Image.new("RGB", (32, 24)).save(picture, "JPEG")
    with CorpusWriter(folder) as writer:
        write_images(writer.part / "images.h5", [(f"img{i}", picture.getvalue()) for i in range(images)])
        for i in range(images):
            writer.images.append(ImageRecord(f"img{i}", "val", 32, 24))
            writer.captions.append(Caption(f"c{i}", f"{words} {i}", (f"img{i}",)))
    return Corpus(folder)


def rank(corpus: Corpus, path: Path, model: str, worst: bool = False) -> Path:
    """A made-up ranking file: every caption first, or the last image's caption behind all others."""
    split = corpus.split("val")
    scores = np.eye(len(split.texts), dtype=np.float32)
    scores[-1, -1] = -1 if worst else 1
    made = Provenance(model, "none", str(corpus.folder), "val", split.digest, "made up")
    path.parent.mkdir(parents=True, exist_ok=True)
    pairs = Relevance.from_pairs(split.pairs, len(split.image_ids))
    write_ranking(path, Ranking(Axis("image", split.image_ids), Axis("text", split.text_ids), pairs, scores, made))
    return path


@pytest.fixture
def corpus(tmp_path):
    return make_corpus(tmp_path / "corpus")


@pytest.fixture
def two(corpus, tmp_path):
    return rank(corpus, tmp_path / "runs/one/ranking-val.h5", "clip"), rank(
        corpus, tmp_path / "runs/two/ranking-val.h5", "lxmert", True
    )


@pytest.fixture
def run_dir(tmp_path):
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def test_it_writes_the_report_and_says_where(two, run_dir, capsys):
    run(Config(rankings=two), run_dir)
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == str(run_dir / "report/index.html")
    assert said[0] == "For every query some model has a truth among the first 10."
    assert said[1].startswith("clip puts a truth first for 100.0 % of images")
    assert sorted(path.name for path in run_dir.iterdir()) == ["metrics.json", "report"]
    assert 'href="run/report/index.html"' in (run_dir.parent / "reports.html").read_text()
    assert 'href="../../reports.html"' in (run_dir / "report/index.html").read_text()
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["clip"]["figures"]["rsum"] == 600 > metrics["lxmert"]["figures"]["rsum"]
    assert json.loads((run_dir / "report/report.json").read_text())["models"][1]["hard"]["t2i"]["total"] == 1


def test_the_originals_files_on_request(two, run_dir):
    run(Config(rankings=two, original_layouts=True), run_dir)
    assert json.loads((run_dir / "clip_val.json").read_text())["i2t"]["hard"] == []
    assert json.loads((run_dir / "comparison.json").read_text()) == {
        "i2t": [{"query": "img13", "clip": 0, "lxmert": 13}],
        "t2i": [{"query": "caption 13", "clip": 0, "lxmert": 13}],
    }


def test_options_reach_the_analysis(two, run_dir):
    run(Config(rankings=two[1:], hard=14, sample=3, images=("img2",), names=("mine",)), run_dir)
    report = json.loads((run_dir / "report/report.json").read_text())
    assert report["options"]["hard"] == 14
    (model,) = report["models"]
    assert model["name"] == "mine" and model["hard"]["t2i"]["total"] == 0 and len(model["easy"]["t2i"]["examples"]) == 3
    assert model["chosen"]["i2t"]["examples"][0]["query"]["id"] == "img2"


def test_a_second_run_replaces_the_first(two, run_dir):
    for sample in (1, 2):
        run(Config(rankings=two, sample=sample), run_dir)
    assert json.loads((run_dir / "report/report.json").read_text())["options"]["sample"] == 2


def test_names(corpus, two, run_dir, tmp_path):
    again = rank(corpus, tmp_path / "runs/three/ranking-val.h5", "clip")
    run(Config(rankings=(two[0], again)), run_dir)
    assert list(json.loads((run_dir / "metrics.json").read_text())) == ["one", "three"]  # the run folders: both are clip
    for names in (("a",), ("a", "a"), ("a", "")):
        with pytest.raises(ValueError, match="give 2 different names, one for each ranking"):
            run(Config(rankings=two, names=names), run_dir)
    with pytest.raises(ValueError, match="give 2 different names"):
        run(Config(rankings=(two[0], two[0])), run_dir)


def test_lists_by_margin(two, run_dir):
    run(Config(rankings=two, by="margin", hard_below=1e9), run_dir)
    told = json.loads((run_dir / "report/report.json").read_text())["options"]
    assert (told["by"], told["hard_below"]) == ("margin", 1e9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"judgements": (Path("gone.csv"),)}, "--judgements gone.csv: no such file"),
        ({"by": "ap", "original_layouts": True}, "--by ap: the original's lists go by rank"),
        ({"easy_from": 1.0}, "--hard-below and --easy-from: are for --by margin or ap"),
    ],
)
def test_options_that_do_not_go_together(options, message):
    with pytest.raises(ValueError, match=message):
        Config(**options)


def test_mistakes_are_told(corpus, two, run_dir, tmp_path):
    with pytest.raises(ValueError, match="--rankings: name at least one"):
        run(Config(), run_dir)
    with pytest.raises(RankingError, match="no such ranking file"):
        run(Config(rankings=(tmp_path / "none.h5",)), run_dir)
    with pytest.raises(CorpusError, match="no corpus here"):
        run(Config(rankings=two, corpus=str(tmp_path / "elsewhere")), run_dir)
    other = make_corpus(tmp_path / "other", "other caption")
    with pytest.raises(RankingError, match="clip: ranking file from another corpus"):
        run(Config(rankings=two, corpus=str(other.folder)), run_dir)
    theirs = rank(other, tmp_path / "runs/other/ranking-val.h5", "other")
    with pytest.raises(RankingError, match=r"clip and other: .*different corpora"):
        run(Config(rankings=(two[0], theirs)), run_dir)
    corpus.folder.rename(tmp_path / "moved")
    with pytest.raises(ValueError, match="which is not here; give its folder with --corpus"):
        run(Config(rankings=two), run_dir)
    run(Config(rankings=two, corpus=str(tmp_path / "moved")), run_dir)


def test_the_command_line(two, tmp_path):
    command = [sys.executable, str(JOB), "--rankings", *map(str, two), "--cluster", "local", "--name", "r", "--images", "img1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(tmp_path / "runs/error_report/r/report/index.html")
    failed = subprocess.run([*command[:-1], "img99", "--name", "s"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[0] == "error: clip: no image 'img99' among the 14 queries; ids look like 'img0'"


def test_help_imports_nothing_heavy():
    code = f"import sys, runpy; sys.argv = ['x', '--help']\ntry: runpy.run_path({str(JOB)!r}, run_name='__main__')\nexcept SystemExit: pass\n"
    code += "sys.exit(bool({'torch', 'numpy', 'h5py', 'jinja2'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
