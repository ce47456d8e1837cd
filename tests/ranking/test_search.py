from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from corpora.contact_sheet import COLUMNS, GAP, SIDE
from corpora.planting import Shares
from corpora.synthetic import make_scenes
from jobs.search import Config
from models import clip, lxmert
from models.tokenizer import learn_tokenizer
from ranking.engine import Engine
from ranking.matrix import Provenance, Ranking, RankingError
from ranking.search import Hit, Query, Searched, Searcher, read_picture, read_query, search
from ranking.search_sheet import listing, printable, sheet_of, sheet_path

IMAGES = 24


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Searched:
    folder = tmp_path_factory.mktemp("corpora") / "scenes"
    make_scenes(folder, {"train": 4, "test": IMAGES}, size=32, planted=Shares(0, 0, 0))
    return Searched(folder)


class Counted:
    """Inputs that count what was encoded."""

    def __init__(self, inputs) -> None:
        self._inputs = inputs
        self.forget()

    def forget(self) -> None:
        self.image_batches, self.text_batches = [], []

    def images(self, image_ids):
        self.image_batches.append(len(image_ids))
        return self._inputs.images(image_ids)

    def texts(self, texts):
        self.text_batches.append(len(texts))
        return self._inputs.texts(texts)


def clip_over(corpus: Searched, cache: Path, seed: int = 0) -> Searcher:
    torch.manual_seed(seed)
    split = corpus.split("test")
    shape = clip.ClipShape(image_size=24, patch=8, width=16, layers=1, heads=2, projection=16)
    model, made = clip.from_scratch(shape, corpus.images, learn_tokenizer(split.texts))
    with torch.no_grad():  # so that pictures differ by more than rounding
        for weight in model.parameters():
            weight.mul_(3)
        model.logit_scale.fill_(2)
    return Searcher(model, Counted(made), split, name="CLIP", checkpoint="tiny", corpus=corpus, cache=cache)


def lxmert_over(corpus: Searched, cache: Path) -> Searcher:
    split = corpus.split("test")
    shape = lxmert.LxmertShape(width=16, heads=2, language_layers=1, vision_layers=1, cross_layers=1)
    model, inputs = lxmert.from_scratch(shape, corpus.regions("truth"), learn_tokenizer(split.texts), head="match")
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(10 if weight.ndim > 1 else 1)
    return Searcher(model, Counted(inputs), split, name="LXMERT", checkpoint="tiny cross", corpus=corpus, cache=cache)


@pytest.fixture
def first(corpus, tmp_path) -> Searcher:
    return clip_over(corpus, tmp_path / "encoded")


@pytest.fixture
def cross(corpus, tmp_path) -> Searcher:
    return lxmert_over(corpus, tmp_path / "encoded")


def ranked(searcher: Searcher) -> Ranking:
    engine = Engine(searcher.model, searcher.inputs, searcher.split, pair_batch=64)
    return engine.rank_in_memory(Provenance("", "", "", "test", searcher.split.digest, ""))


@pytest.mark.parametrize("model", ["first", "cross"])
def test_the_order_is_that_of_the_ranking_file(model, request):
    searcher = request.getfixturevalue(model)
    ranking = ranked(searcher)
    assert ranking.scores.std(0).mean() > 0.02 < ranking.scores.std(1).mean()
    for kind, found, number in (("text", "images", 7), ("image", "texts", 5)):
        view = ranking.by(kind)
        query = Query(text=searcher.split.texts[number]) if kind == "text" else Query(image=searcher.split.image_ids[number])
        hits = search(searcher, query, 1000)[found]
        row = view.rows(number, number + 1)[0]
        scores = dict(zip(view.items.ids, row.tolist(), strict=True))
        assert {hit.id for hit in hits} == set(view.items.ids)
        np.testing.assert_allclose([hit.score for hit in hits], np.sort(row)[::-1], atol=1e-4)
        np.testing.assert_allclose([hit.score for hit in hits], [scores[hit.id] for hit in hits], atol=1e-4)
        assert [hit.second for hit in hits] == [None] * len(hits)


def test_a_second_search_encodes_the_query_alone(corpus, first, tmp_path):
    search(first, Query(text="a red ring"), 3)
    assert sum(first.inputs.image_batches) == IMAGES
    again = clip_over(corpus, tmp_path / "encoded")
    found = search(again, Query(text="a blue star"), 3)
    assert (again.inputs.image_batches, again.inputs.text_batches) == ([], [1])
    assert found == search(clip_over(corpus, tmp_path / "anew"), Query(text="a blue star"), 3)
    again.inputs.forget()
    search(again, Query(image=again.split.image_ids[0]), 3)
    assert again.inputs.image_batches == [1] and sum(again.inputs.text_batches) == len(again.split.texts)


def test_other_weights_another_precision_and_new_pictures_are_encoded_anew(corpus, first, tmp_path):
    others = [
        first,
        clip_over(corpus, tmp_path, seed=1),
        replace(first, precision="bf16"),
        replace(first, split=corpus.split("train")),
    ]
    assert len({one._key for one in others}) == len(others)
    path = corpus.folder / "images.h5"
    before, was = path.stat(), first._key
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert replace(first)._key != was


def test_a_damaged_file_of_states_is_named(corpus, first, tmp_path):
    search(first, Query(text="a red ring"), 3)
    (path,) = (tmp_path / "encoded").iterdir()
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(RankingError, match=f"{path.name}: cannot be read"):
        search(clip_over(corpus, tmp_path / "encoded"), Query(text="a red ring"), 3)


def test_a_picture_finds_texts_and_images_but_not_itself(first):
    found = search(first, Query(image=first.split.image_ids[3]), 1000)
    assert len(found["images"]) == IMAGES - 1 and first.split.image_ids[3] not in {hit.id for hit in found["images"]}
    assert all(-1.001 <= hit.score <= 1.001 for hit in found["images"])
    assert {hit.image for hit in found["texts"]} <= set(first.split.image_ids)


def test_a_picture_from_outside_is_seen_as_one_of_the_corpus(corpus, first, tmp_path):
    file = tmp_path / "a <picture>.png"
    alone = (search(first, Query(image=one), 1)["images"][0].score < 0.99 for one in first.split.image_ids)
    image = first.split.image_ids[list(alone).index(True)]  # to the tiny model some pictures look the same
    file.write_bytes(corpus.images.read(image))
    query = read_query(corpus, "", str(file))
    found, inside = search(first, query, 5), search(first, Query(image=image), 5)
    assert found["texts"] == inside["texts"]
    assert found["images"][0].id == image and found["images"][0].score == pytest.approx(1, abs=1e-5)
    assert found["images"][1:] == inside["images"][:4]
    assert corpus.images.guest is None


def test_a_cross_encoder_finds_no_images_by_a_picture_and_reads_none_from_outside(cross):
    assert list(search(cross, Query(image=cross.split.image_ids[0]), 3)) == ["texts"]
    with pytest.raises(RankingError, match="region features, and a picture from outside has none"):
        search(cross, Query(picture=Image.new("RGB", (40, 30))), 3)
    without_texts = replace(cross.split, text_ids=(), texts=(), pairs=np.empty((0, 2), int))
    with pytest.raises(RankingError, match="no texts, and only a dual encoder"):
        search(replace(cross, split=without_texts), Query(image=cross.split.image_ids[0]), 3)


def test_the_second_model_puts_the_shortlist_first_in_its_own_order(first, cross):
    query = Query(text=first.split.texts[7])
    plain, own = search(first, query, 1000)["images"], search(cross, query, 1000)["images"]
    cross.inputs.forget()
    found = search(first, query, 1000, cross, shortlist=6)["images"]
    assert sum(cross.inputs.image_batches) == 6 and cross.inputs.text_batches == [1]
    listed = {hit.id for hit in plain[:6]}
    assert [hit.id for hit in found[:6]] == [hit.id for hit in own if hit.id in listed]
    assert found[6:] == plain[6:]
    assert [hit.second is None for hit in found] == [False] * 6 + [True] * (IMAGES - 6)
    whole = search(first, query, 1000, cross, shortlist=1000)["images"]
    assert [hit.id for hit in whole] == [hit.id for hit in own]


def test_a_second_model_that_is_no_dual_encoder_leaves_similar_images_as_they_are(first, cross):
    query = Query(image=first.split.image_ids[1])
    found, plain = search(first, query, 5, cross, shortlist=5), search(first, query, 5)
    assert found["images"] == plain["images"]
    assert all(hit.second is not None for hit in found["texts"])


@pytest.mark.parametrize("given", [{}, {"text": "  "}, {"text": "a", "image": "b"}])
def test_a_query_is_one_text_or_one_picture(given):
    with pytest.raises(ValueError, match="one of the two"):
        Query(**given)


def test_what_is_no_picture_is_named(corpus, tmp_path):
    with pytest.raises(ValueError, match=r"--image cat\.png: neither the id of an image in .*scenes nor a file"):
        read_query(corpus, "", "cat.png")
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(ValueError, match=r"notes\.txt: no picture that can be read"):
        read_picture(tmp_path / "notes.txt")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"top": 0}, "--top 0"),
        ({"shortlist": 0}, "--shortlist 0"),
        ({"port": 70000}, "--port 70000"),
        ({"checkpoint": ()}, "one checkpoint or more"),
        ({"query": "a", "image": "b"}, "--query and --image: give one"),
        ({"query": "a", "serve": True}, "--query and --serve: give one"),
    ],
)
def test_bad_options_are_named(given, told):
    with pytest.raises(ValueError, match=told):
        Config(**given)


def test_searches_of_one_model_share_a_run_folder():
    from launch.run_folder import run_name

    assert run_name(Config(query="a dog", top=3, rerank="x")) == run_name(Config(image="b.png")) == "default"
    assert run_name(Config(checkpoint=("x",))) != "default"


# What is shown


def test_the_listing_has_both_scores_and_no_control_letters(first, cross):
    hits = [Hit("i1", "a \x1b[31mred ring", "i1", 1.5, 0.25), Hit("i22", "a star", "i22", 2.5)]
    lines = listing(first, cross, Query(text="a"), {"images": hits}).splitlines()
    assert lines[0] == "tiny: Images by CLIP (logit scale x cosine), the best again by LXMERT (match logit)"
    assert lines[1].split() == ["1", "1.5000", "0.2500", "i1", "a", "[31mred", "ring"]
    assert lines[2].split() == ["2", "2.5000", "i22", "a", "star"]
    assert printable("a\u202eb\nc") == "a b c"


def test_the_sheet_shows_the_query_and_every_hit(corpus, first):
    query = Query(image=first.split.image_ids[0])
    found = search(first, query, 3)
    sheet = sheet_of(corpus, query, found)
    assert sheet.width == COLUMNS * (SIDE + GAP) + GAP  # the query and 3 texts in one row, 3 images in the next
    pictures = [
        np.asarray(sheet)[row * sheet.height // 2 :][:SIDE, column * (SIDE + GAP) + GAP :][:, :SIDE].std()
        for row in (0, 1)
        for column in range(5)
    ]
    assert [deviation > 1 for deviation in pictures] == [True] * 4 + [False] + [True] * 3 + [False] * 2
    nothing = Hit("t", "a text of no image", "", 0.5)
    buffer = io.BytesIO()
    sheet_of(corpus, Query(text="x"), {"texts": [nothing]}).save(buffer, "JPEG")


def test_a_sheet_is_named_after_the_query(tmp_path):
    names = [sheet_path(tmp_path, *way).name for way in (("a/../dog", 1), ("a/../dog", 2), ("日本", 1), ("?", 1))]
    assert names[0].startswith("a-dog-") and names[3].startswith("search-") and names[2].startswith("日本-")
    assert len(set(names)) == 4 and all(path.parent == tmp_path for path in [tmp_path / name for name in names])
