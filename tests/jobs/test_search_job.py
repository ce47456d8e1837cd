"""The search job from end to end: what it prints and draws, and what it refuses."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starting import TINY, start

from corpora.contact_sheet import COLUMNS, GAP, SIDE
from corpora.corpus import Corpus, Split
from corpora.planting import Shares
from corpora.synthetic import make_scenes
from ranking.matrix import Kind, read_ranking

CLIP, LXMERT = "runs/clip_finetune/tiny/checkpoints/best", "runs/lxmert_finetune/tiny/checkpoints/best"
RANKINGS = {"clip": "runs/clip_zero_shot/tiny/ranking-test.h5", "lxmert": "runs/lxmert_predict/tiny/ranking-test.h5"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Scenes, two models that learned for a few steps, and how they rank the test split."""
    folder = tmp_path_factory.mktemp("user")
    make_scenes(folder / "data/scenes", {"train": 16, "val": 8, "test": 12}, size=32, planted=Shares(0, 0, 0))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for job, options in TINY.items():
            assert start(job, "--steps", 3, "--learning-rate", "1e-2", "--name", "tiny", *options.split()) == 0
        assert start("clip_zero_shot", "--checkpoint", CLIP, "--name", "tiny") == 0
        assert start("lxmert_predict", "--checkpoint", LXMERT, "--name", "tiny") == 0
    return folder


@pytest.fixture(autouse=True)
def here(folder, monkeypatch) -> None:
    monkeypatch.chdir(folder)


@pytest.fixture
def split() -> Split:
    return Corpus("data/scenes").split("test")


def searched(capsys, *arguments: object) -> tuple[list[list[tuple[str, float]]], Path]:
    """The lists of (id, score) that a search prints, and the contact sheet it names."""
    capsys.readouterr()
    assert start("search", "--checkpoint", CLIP, "--name", "search", *arguments) == 0
    said = capsys.readouterr().out
    lists: list[list[tuple[str, float]]] = []
    for line in said.splitlines():
        if re.match(r"\S+: (Images|Texts) by ", line):
            lists.append([])
        elif found := re.match(r" +(\d+) +(-?[\d.]+)(?: +(-?[\d.]+))?  (\S+)  ", line):
            lists[-1].append((found[4], float(found[3] or found[2])))
            assert int(found[1]) == len(lists[-1])
    return lists, Path(re.findall(r"^contact sheet: (.+)$", said, re.M)[0])


def expected(model: str, kind: Kind, query: str, top: int) -> list[tuple[str, float]]:
    """The best items of a query in a ranking file."""
    ranking = read_ranking(RANKINGS[model]).by(kind)
    row = ranking.rows(*(ranking.queries.ids.index(query) + one for one in (0, 1)))[0]
    return [(ranking.items.ids[place], float(row[place])) for place in np.argsort(-row, kind="stable")[:top]]


def same(found: list[tuple[str, float]], wanted: list[tuple[str, float]]) -> None:
    assert [key for key, _ in found] == [key for key, _ in wanted]
    np.testing.assert_allclose([score for _, score in found], [score for _, score in wanted], atol=6e-5)  # four digits


def test_images_by_a_text(capsys, split):
    (images,), sheet = searched(capsys, "--query", split.texts[4], "--top", 5)
    same(images, expected("clip", "text", split.text_ids[4], 5))
    with Image.open(sheet) as picture:
        assert picture.width == 6 * (SIDE + GAP) + GAP
        first = np.asarray(picture)[GAP:, GAP + SIDE + GAP :][:SIDE, :SIDE].astype(int)
    shown = Corpus("data/scenes").images.picture(images[0][0])
    middle = first[SIDE // 2 - 16 : SIDE // 2 + 16, SIDE // 2 - 16 : SIDE // 2 + 16]
    assert np.abs(middle - np.asarray(shown, int)).mean() < 12  # the best image itself, but for JPEG


def test_texts_and_images_by_an_image_of_the_corpus_and_by_its_file(capsys, split, tmp_path):
    lists, sheet = searched(capsys, "--image", split.image_ids[2], "--top", 4)
    texts, images = lists
    same(texts, expected("clip", "image", split.image_ids[2], 4))
    assert len(images) == 4 and split.image_ids[2] not in dict(images)
    with Image.open(sheet) as picture:
        assert picture.width == COLUMNS * (SIDE + GAP) + GAP  # two lists, each in a row of its own
    file = tmp_path / "holiday.png"
    file.write_bytes(Corpus("data/scenes").images.read(split.image_ids[2]))
    (texts_again, images_again), other = searched(capsys, "--image", file, "--top", 4)
    assert texts_again == texts
    assert images_again[0] == (split.image_ids[2], 1.0) and images_again[1:] == images[:3]
    assert other.name != sheet.name


def test_a_second_model_scores_the_shortlist_again(capsys, split):
    (images,), _ = searched(capsys, "--query", split.texts[7], "--top", 12, "--shortlist", 3, "--rerank", LXMERT)
    before, again = expected("clip", "text", split.text_ids[7], 12), expected("lxmert", "text", split.text_ids[7], 12)
    shortlist = [key for key, _ in before[:3]]
    same(images[:3], [item for item in again if item[0] in shortlist])
    same(images[3:], before[3:])


def test_two_checkpoints_search_one_after_the_other(capsys, split):
    assert start("search", "--checkpoint", CLIP, LXMERT, "--query", split.texts[0], "--top", 2, "--name", "both") == 0
    said = capsys.readouterr().out
    assert f"{CLIP}: Images by CLIP (" in said and f"{LXMERT}: Images by LXMERT (" in said
    assert len(set(re.findall(r"contact sheet: (.+)", said))) == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "what to search for?"),
        (("--query", " "), "what to search for?"),
        (("--image", "cat.png"), "--image cat.png: neither the id of an image"),
        (("--query", "a dog", "--split", "tset"), "did you mean 'test'?"),
    ],
)
def test_what_is_refused(arguments, told):
    assert told in str(start("search", "--checkpoint", CLIP, *arguments))
