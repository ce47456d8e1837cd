from __future__ import annotations

from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest

from error_analysis.analysis import Options, analyse
from error_analysis.headroom import first_in_gallery, reciprocal_rank_fusion, section, z_score_fusion
from ranking.matrix import Relevance

RNG = np.random.default_rng(4)


def test_fusion_by_hand():
    first, second = np.array([[0, 1, 2]]), np.array([[3, 1, 0]])
    # item 0: 1/61 + 1/63, item 1: 2/62, item 3: 1/61, item 2: 1/63
    ranks = [reciprocal_rank_fusion([first, second], Relevance.from_pairs(np.array([[0, item]]), 1))[0] for item in range(5)]
    assert ranks == [0, 1, 3, 2, np.inf]


def test_the_constant_of_fusion():
    """Places 1 and 20 are worth less than 5 and 14 if the first place counts 1/61, and would be worth more if it counted 1/60."""
    first, second = np.arange(100, 120)[None], np.arange(200, 220)[None]
    first[0, [0, 4]], second[0, [19, 13]] = (0, 1), (0, 1)
    ranks = [reciprocal_rank_fusion([first, second], Relevance.from_pairs(np.array([[0, item]]), 1))[0] for item in (0, 1)]
    assert ranks == [1, 0]


def test_fused_ties_follow_the_policy():
    lists = [np.array([[0, 1]]), np.array([[1, 0]])]
    relevant = Relevance.from_pairs(np.array([[0, 1]]), 1)
    assert [reciprocal_rank_fusion(lists, relevant, ties)[0] for ties in ("pessimistic", "optimistic", "expected")] == [1, 0, 0.5]


def test_fusion_as_written_out():
    items, queries = 40, 30
    lists = [np.stack([RNG.permutation(items)[:12] for _ in range(queries)]) for _ in range(3)]
    pairs = np.unique(np.stack([np.arange(90) % queries, RNG.integers(0, items, 90)], 1), axis=0)
    relevant = Relevance.from_pairs(pairs, queries)
    found = reciprocal_rank_fusion(lists, relevant)
    for query in range(queries):
        scores = {}
        for place, item in sorted(((p, i) for own in lists for p, i in enumerate(own[query].tolist())), reverse=True):
            scores[item] = scores.get(item, 0) + 1 / (61 + place)
        true = set(relevant.of(query).tolist())
        best = max((scores[item] for item in true & set(scores)), default=None)
        expected = np.inf if best is None else sum(score >= best for item, score in scores.items() if item not in true)
        assert found[query] == expected
    assert (found == reciprocal_rank_fusion(lists[::-1], relevant)).all()


def test_gallery_as_all_galleries_drawn():
    """Every gallery of 3 of 6 images that holds the query's own."""
    above, own = np.array([0, 1, 2, 5, 3]), np.array([1, 1, 2, 1, 1])
    hits = []
    for bad, mine in zip(above, own, strict=True):
        galleries = list(combinations(range(6 - mine), 3 - mine))
        hits.append(np.mean([all(image >= bad for image in gallery) for gallery in galleries]))
    assert first_in_gallery(above, own, 6, 3) == pytest.approx(np.mean(hits))
    assert first_in_gallery(above, own, 6, 6) == 1 / 5
    assert first_in_gallery(above, np.ones(5, int), 6, 1) == 1


@pytest.fixture
def study(make_corpus, make_ranking):
    """study(noise by model name): models of 24 images with 1 to 3 captions."""
    corpus = make_corpus({f"i{n}": [f"{n} {m}" for m in range(1 + n % 3)] for n in range(24)})
    split = corpus.split("val")

    def make(**noise):
        rankings = {}
        for seed, (name, spread) in enumerate(noise.items()):
            true = np.zeros((24, len(split.text_ids)))
            true[tuple(split.pairs.T)] = 1
            rankings[name] = make_ranking(split, true + np.random.default_rng(seed).normal(0, spread, true.shape))
        return analyse(rankings, corpus, Options())

    return make


def test_the_gallery_curve_is_what_sub_rankings_have(study):
    """Against R@1 in galleries of 10 images with all their captions, drawn at random."""
    analysis = study(m=0.5)
    table = next(table for table in section(analysis).tables if table.name == "gallery")
    place = next(n for n, column in enumerate(table.columns) if column.name.startswith("10 "))
    ranking, pairs = analysis.models[0].retrievals["i2t"].ranking, analysis.split.pairs
    scores = ranking.rows(0, 24)
    rng, found = np.random.default_rng(0), {"Image to text": [], "Text to image": []}
    for _ in range(1500):
        images = rng.choice(24, 10, replace=False)
        texts = pairs[np.isin(pairs[:, 0], images), 1]
        image_of = dict(pairs[:, ::-1].tolist())
        block = scores[np.ix_(images, texts)]
        found["Image to text"].append(np.mean([image_of[texts[n]] == i for n, i in zip(block.argmax(1), images, strict=True)]))
        # every caption counts alike, in this gallery and in all
        found["Text to image"] += [image_of[t] == images[n] for n, t in zip(block.argmax(0), texts, strict=True)]
    for row in table.rows:
        assert row[place] == pytest.approx(np.mean(found[row[1]]), abs=0.02)
        whole = analysis.models[0].metrics["figures"][{"Image to text": "i2t", "Text to image": "t2i"}[row[1]]]["R@1"]
        assert 100 * row[-1] == pytest.approx(whole)


def test_z_scores_as_written_out(study):
    analysis = study(a=0.5, b=0.6)
    for direction in ("i2t", "t2i"):
        rankings = [model.retrievals[direction].ranking for model in analysis.models]
        rows = [ranking.rows(0, 999).astype(float) for ranking in rankings]
        put = sum((row - row.mean(1, keepdims=True)) / row.std(1, keepdims=True) for row in rows)
        true = np.zeros(put.shape, bool)
        true[tuple(rankings[0].relevant.pairs().T)] = True
        best = np.where(true, put, -np.inf).max(1, keepdims=True)
        assert (z_score_fusion(analysis.models, direction) == ((put >= best) & ~true).sum(1)).all()


def test_z_scores_of_a_query_whose_scores_are_all_equal(study):
    analysis = study(a=0.5, b=0.6)
    near = SimpleNamespace(spread=np.zeros(24))
    silent = SimpleNamespace(neighbours={"i2t": near}, retrievals=analysis.models[1].retrievals)
    assert (z_score_fusion([analysis.models[0], silent], "i2t") == analysis.models[0].retrievals["i2t"].ranks).all()


def test_the_oracle_and_gains(study):
    analysis = study(a=0.6, b=0.6)
    found = section(analysis)
    rows = {row[:2]: row[2:] for row in found.tables[0].rows}
    for direction, way in (("i2t", "Image to text"), ("t2i", "Text to image")):
        ranks = np.array([model.retrievals[direction].ranks for model in analysis.models])
        assert rows[way, "all, oracle"][:3] == pytest.approx([100 * (ranks.min(0) < k).mean() for k in (1, 5, 10)])
        best = max((rows[way, name] for name in "ab"), key=lambda row: row[0])
        assert rows[way, "all, oracle"][3] == pytest.approx(rows[way, "all, oracle"][0] - best[0])
        assert best[3:] == (0, 0, 0)
        low, high = rows[way, "all, oracle"][4:]
        assert 0 <= low <= rows[way, "all, oracle"][3] <= high
    assert found.sentences[0].startswith(
        f"Image to text: were each query put to the model that ranks it best, R@1 would be {rows['Image to text', 'all, oracle'][0]:.1f}"
    )


def test_one_model_has_a_ceiling(study):
    analysis = study(a=0.6)
    found = section(analysis)
    assert [table.name for table in found.tables] == ["ceiling", "gallery"]
    ranks = analysis.models[0].retrievals["t2i"].ranks
    row = found.tables[0].rows[1]
    assert row[:5] == ("a", "Text to image", (ranks < 1).mean(), (ranks < 5).mean(), (ranks < 10).mean())
    assert f"text to image R@1 at most {(ranks < 10).mean():.1%}" in found.sentences[1]


def test_three_queries(make_corpus, make_ranking):
    corpus = make_corpus({"a": ["x"], "b": ["y"], "c": ["z"]})
    split = corpus.split("val")
    for scores in (np.ones((3, 3)), np.eye(3)):
        analysis = analyse({name: make_ranking(split, scores) for name in "mn"}, corpus, Options())
        found = section(analysis)
        assert {row[2] for row in found.tables[0].rows} == {100 * float(scores[0, 1] == 0)}
