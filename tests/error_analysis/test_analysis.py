from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from corpora.corpus import Caption, Corpus, CorpusWriter, ImageRecord
from corpora.images import write_images
from error_analysis.analysis import Options, analyse, hard_for_all, in_order_of, split_of
from ranking.matrix import Axis, RankingError, Relevance
from ranking.rescored import Rescored


@pytest.fixture
def split(numbered_corpus):
    return numbered_corpus.split("val")


def scores_with(ranks, size=24):
    """Scores under which caption q stands behind ranks[q] wrong images (text to image)."""
    scores = np.full((size, size), -1.0)
    for text, rank in enumerate(ranks):
        scores[[image for image in range(size) if image != text][:rank], text] = 1
        scores[text, text] = 0
    return scores


def test_one_model(numbered_corpus, split, make_ranking):
    ranks = [0, 12] + [1] * 22
    analysis = analyse({"a": make_ranking(split, scores_with(ranks))}, numbered_corpus, Options(images=("img3",)))
    (model,) = analysis.models
    assert analysis.contrasts == ()
    assert [(e.query, e.rank) for e in model.mined["hard"]["t2i"].examples] == [("c1", 12)]
    assert [e.query for e in model.mined["easy"]["t2i"].examples] == ["c0"]
    assert [e.query for e in model.mined["chosen"]["i2t"].examples] == ["img3"]
    assert model.mined["chosen"]["t2i"].examples == ()
    assert model.metrics["figures"]["t2i"]["R@1"] == pytest.approx(100 / 24)


def test_every_ordered_pair_of_three_models(numbered_corpus, split, make_ranking):
    ranks = {"a": [0] * 24, "b": [0] * 23 + [15], "c": [20] + [0] * 23}
    analysis = analyse({name: make_ranking(split, scores_with(r)) for name, r in ranks.items()}, numbered_corpus, Options())
    found = {(c.better, c.worse): [s.query for s in c.shifts["t2i"]] for c in analysis.contrasts}
    assert found == {
        ("a", "b"): ["c23"],
        ("a", "c"): ["c0"],
        ("b", "a"): [],
        ("b", "c"): ["c0"],
        ("c", "a"): [],
        ("c", "b"): ["c23"],
    }
    ((better, worse),) = analysis.contrasts[0].examples["t2i"]
    assert (better.query, better.rank, worse.query, worse.rank) == ("c23", 0, "c23", 15)


def test_hard_for_every_model_and_ranks_by_model(numbered_corpus, split, make_ranking):
    rankings = {name: make_ranking(split, scores_with(r)) for name, r in (("a", [11, 12] + [0] * 22), ("b", [11, 9] + [0] * 22))}
    analysis = analyse(rankings, numbered_corpus, Options())
    assert hard_for_all(analysis, "t2i") == 1
    assert analysis.ranks("t2i")["c1"] == {"a": 12, "b": 9}


def test_a_sample_of_the_widest_gaps(numbered_corpus, split, make_ranking):
    rankings = {"a": make_ranking(split, scores_with([0] * 24)), "b": make_ranking(split, scores_with([11, 15, 13] + [0] * 21))}
    contrast = analyse(rankings, numbered_corpus, Options(sample=2)).contrasts[0]
    assert [shift.query for shift in contrast.shifts["t2i"]] == ["c1", "c2", "c0"]
    assert [better.query for better, worse in contrast.examples["t2i"]] == ["c1", "c2"]


@pytest.mark.parametrize("name", ["hard", "easy", "top", "gap"])
def test_thresholds_below_one_are_refused(name):
    with pytest.raises(ValueError, match=f"--{name} 0: must be at least 1"):
        Options(**{name: 0})
    with pytest.raises(ValueError, match="--sample -1"):
        Options(sample=-1)


def test_another_corpus_is_refused(numbered_corpus, make_corpus, split, make_ranking):
    other = make_corpus({f"img{i}": [f"another caption {i}"] for i in range(24)}, "other")
    ranking = make_ranking(split, scores_with([0] * 24))
    with pytest.raises(RankingError, match=r"^clip: ranking file from another corpus: .*give the corpus that was ranked"):
        analyse({"clip": ranking}, other, Options())


def test_without_a_digest_ids_and_relevance_must_match(numbered_corpus, make_corpus, split, make_ranking):
    ranking = make_ranking(split, scores_with([0] * 24), digest="")
    assert split_of(numbered_corpus, ranking).digest == split.digest
    fewer = make_corpus({f"img{i}": [f"caption {i}"] for i in range(23)}, "fewer")
    with pytest.raises(RankingError, match=r"another corpus: 1 image ids differ .*'img23'"):
        split_of(fewer, ranking)
    more = make_corpus({f"img{i}": [f"caption {i}"] * 2 for i in range(24)}, "more")
    with pytest.raises(RankingError, match=r"another corpus: 24 text ids differ"):
        split_of(more, ranking)
    shuffled = replace(ranking, relevant=Relevance.from_pairs(np.stack([np.arange(24), np.arange(24)[::-1]], 1), 24))
    with pytest.raises(RankingError, match="its relevant pairs are not those of"):
        split_of(numbered_corpus, shuffled)


def test_some_images_of_a_split(numbered_corpus, split, make_ranking):
    some = split.subset([f"img{i}" for i in range(12)])
    ranking = make_ranking(some, np.eye(12))
    assert split_of(numbered_corpus, ranking).image_ids == some.image_ids
    whole = make_ranking(split, np.eye(24)).select(some.image_ids, some.text_ids)  # keeps the digest of the whole split
    assert split_of(numbered_corpus, whole).text_ids == some.text_ids


def test_errors_name_the_model(numbered_corpus, split, make_ranking):
    scores = np.eye(24)
    good, bad = make_ranking(split, scores.copy()), make_ranking(split, np.where(scores == 1, np.nan, scores))
    with pytest.raises(RankingError, match=r"^b: 24 of 576 scores are not finite, the first nan for query 'img0'"):
        analyse({"a": good, "b": bad}, numbered_corpus, Options())
    elsewhere = replace(good, provenance=replace(good.provenance, split="test"))
    with pytest.raises(RankingError, match=r"^a and b: rankings of different splits: 'val' and 'test'"):
        analyse({"a": good, "b": elsewhere}, numbered_corpus, Options())
    with pytest.raises(RankingError, match=r"^a: no image 'img99'"):
        analyse({"a": good}, numbered_corpus, Options(images=("img99",)))


def test_no_torch_is_imported():
    code = (
        "import sys, error_analysis.report, error_analysis.summary, error_analysis.layouts; "
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def shuffled(ranking):
    """The same ranking, its images and texts in another order."""
    rng = np.random.default_rng(0)
    rows, columns = (rng.permutation(len(axis.ids)) for axis in (ranking.queries, ranking.items))
    places = np.argsort(rows), np.argsort(columns)
    pairs = np.stack([place[own] for place, own in zip(places, ranking.relevant.pairs().T, strict=True)], axis=1)
    return replace(
        ranking,
        queries=Axis("image", tuple(ranking.queries.ids[n] for n in rows)),
        items=Axis("text", tuple(ranking.items.ids[n] for n in columns)),
        relevant=Relevance.from_pairs(pairs, len(rows)),
        scores=ranking.scores[rows][:, columns],
        rescored=ranking.rescored
        and Rescored(*(part[rows][:, columns] for part in (ranking.rescored.scores, ranking.rescored.marks))),
    )


@pytest.fixture
def several(make_corpus, make_ranking):
    """600 images, more than one block of them, with one or two captions, and a ranking."""
    split = make_corpus({f"img{i}": [f"caption {i}"] * (1 + i % 2) for i in range(600)}, "several").split("val")
    return split, make_ranking(split, np.random.default_rng(1).random((600, 900)))


def test_images_and_texts_stand_in_the_order_of_the_split(several):
    split, ranking = several
    assert in_order_of(split, ranking.T).scores is ranking.scores
    for other in (shuffled(ranking), shuffled(ranking).T):
        found = in_order_of(split, other)
        assert (found.queries.ids, found.items.ids) == (split.image_ids, split.text_ids)
        assert (found.scores[:] == ranking.scores).all()
        assert (found.relevant.pairs() == split.pairs).all()


def test_second_scores_are_put_in_order_too(several):
    split, ranking = several
    rng = np.random.default_rng(2)
    marks = rng.integers(0, 4, ranking.scores.shape).astype(np.uint8)
    second = np.where(marks > 0, rng.random(ranking.scores.shape), 0).astype(np.float32)
    whole = replace(ranking, rescored=Rescored(second, marks))
    for other in (shuffled(whole), shuffled(whole).T):
        found = in_order_of(split, other)
        assert (found.rows(0, 600) == whole.rows(0, 600)).all()
        assert (found.T.rows(0, 900) == whole.T.rows(0, 900)).all()


def test_the_order_of_a_file_changes_nothing(numbered_corpus, split, make_ranking):
    ranking = make_ranking(split, np.random.default_rng(3).random((24, 24)))
    one, two = (analyse({"m": made}, numbered_corpus, Options()) for made in (ranking, shuffled(ranking)))
    assert one.models[0].mined == two.models[0].mined
    for direction in ("i2t", "t2i"):
        first, second = (analysis.models[0].neighbours[direction] for analysis in (one, two))
        assert (first.items == second.items).all() and (first.margin == second.margin).all()


def test_captions_of_an_image_and_images_of_a_caption_are_one_cluster(tmp_path, make_jpeg, make_ranking):
    described = [("a",), ("a",), ("b", "c"), ("d",), ("c",)]
    with CorpusWriter(tmp_path / "shared") as writer:
        write_images(writer.part / "images.h5", [(key, make_jpeg()) for key in "abcd"])
        writer.images += [ImageRecord(key, "val", 40, 30) for key in "abcd"]
        writer.captions += [Caption(f"c{n}", f"caption {n}", images) for n, images in enumerate(described)]
    corpus = Corpus(tmp_path / "shared")
    clusters = analyse({"m": make_ranking(corpus.split("val"), np.ones((4, 5)))}, corpus, Options()).clusters
    a, b, c, d = clusters["i2t"].tolist()
    assert (b == c, len({a, b, d})) == (True, 3)
    assert clusters["t2i"].tolist() == [a, a, b, d, b]
