from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from real_processes import in_processes
from tiny_model import IMAGES, TEXTS, TinyInputs, TinyModel, engine, provenance, split

from ranking.matrix import Ranking, RankingError, read_ranking, write_ranking
from ranking.metrics import positions, recall_any
from ranking.rerank import Reranker, ceilings, comparison, over, shortlists
from training.loop import process_group

pytestmark = pytest.mark.usefixtures("small_blocks")
FIRST = TinyModel(seed=1)
"""Another model, whose order has nothing to do with the second's."""


@pytest.fixture(scope="module")
def first() -> Ranking:
    return engine(FIRST).rank_in_memory(provenance(FIRST))


def reranker(
    first: Ranking, top: int, model: torch.nn.Module | None = None, pair_batch: int = 40, queries: str = "both"
) -> Reranker:
    marks = shortlists(first, split(), top, queries)
    return Reranker(model or TinyModel(), TinyInputs(), split(), pair_batch=pair_batch, first=first, marks=marks)


def rows(ranking: Ranking, kind: str) -> np.ndarray:
    view = ranking.by(kind)
    return view.rows(0, len(view.queries.ids))


def rerank(first: Ranking, top: int, **options) -> Ranking:
    return reranker(first, top, **options).rank_in_memory(provenance(TinyModel()))


@pytest.mark.parametrize("kind", ["image", "text"])
def test_the_whole_gallery_equals_scoring_it(first, kind):
    full = engine().rank_in_memory(provenance(TinyModel()))
    again = rerank(first, TEXTS)
    np.testing.assert_allclose(rows(again, kind), rows(full, kind), atol=1e-6)
    np.testing.assert_array_equal(positions(again.by(kind)).values, positions(full.by(kind)).values)
    assert ceilings(again) == {"i2t": 100.0, "t2i": 100.0}


@pytest.mark.parametrize("kind", ["image", "text"])
def test_the_shortlist_stands_first_best_first_and_the_rest_behind_it_as_before(first, kind):
    """A list in ascending order, as SIAM's original gave it, would put the second model's worst item first."""
    full = rows(engine().rank_in_memory(provenance(TinyModel())), kind)
    before, after = rows(first, kind), rows(rerank(first, 5), kind)
    for query in range(len(before)):
        old = np.argsort(-before[query], kind="stable")
        wanted = [*sorted(old[:5], key=lambda item: -full[query, item]), *old[5:]]
        assert np.argsort(-after[query], kind="stable").tolist() == wanted


class Oracle(TinyModel):
    """Knows which words are relevant to which image; some captions have the same words."""

    def __init__(self) -> None:
        super().__init__()
        self.records = split()
        self.known = {(image, self.records.texts[text]) for image, text in self.records.pairs.tolist()}

    def encode_images(self, batch):
        return (batch["number"],)

    def encode_texts(self, batch):
        said = (row[mask > 0].tolist() for row, mask in zip(batch["words"], batch["mask"], strict=True))
        return (torch.tensor([self.records.texts.index(" ".join(f"w{word}" for word in words)) for words in said]),)

    def score(self, images, texts):
        return torch.tensor([[float((int(i), self.records.texts[int(t)]) in self.known) for t in texts[0]] for i in images[0]])


def test_a_perfect_scorer_reaches_the_ceiling_and_no_more(first):
    ranking = rerank(first, 10, model=Oracle())
    most = ceilings(ranking)
    for way, kind in (("i2t", "image"), ("t2i", "text")):
        at = positions(ranking.by(kind), "optimistic")
        assert most[way] == pytest.approx(100 * recall_any(positions(first.by(kind)), 10)) and 5 < most[way] < 95
        found = 100 * float(np.mean(at.first == 0))
        assert found == pytest.approx(most[way])


def test_every_item_is_encoded_once_and_only_listed_pairs_are_scored(first):
    model = TinyModel()
    work = reranker(first, 5, model)
    work.rank_in_memory(provenance(model))
    assert [number for kind, number in model.calls if kind == "image"] == list(range(IMAGES))
    assert sum(count for kind, count in model.calls if kind == "text") == TEXTS
    pairs = [count for kind, count in model.calls if kind == "pairs"]
    assert sum(pairs) == np.count_nonzero(work.marks) < 0.2 * IMAGES * TEXTS


def test_pair_batch_is_never_exceeded_and_changes_nothing(first):
    model = TinyModel()
    few = rerank(first, 20, model=model, pair_batch=3)
    assert max(count for kind, count in model.calls if kind == "pairs") == 3
    np.testing.assert_allclose(rows(few, "text"), rows(rerank(first, 20), "text"), atol=1e-6)


def test_one_direction_alone(first):
    ranking = rerank(first, 5, queries="text")
    np.testing.assert_array_equal(rows(ranking, "image"), rows(first, "image"))
    assert (rows(ranking, "text") != rows(first, "text")).any()
    assert list(ceilings(ranking)) == ["t2i"]


def test_texts_that_are_on_no_list(first):
    ranking = rerank(first, 1, queries="image")
    assert (ranking.second(0, IMAGES)[1] == 0).all(0).any()
    np.testing.assert_array_equal(rows(ranking, "text"), rows(first, "text"))


def test_of_equal_items_at_the_end_of_a_list_the_earlier_one_counts(first):
    flat = replace(first, scores=np.zeros((IMAGES, TEXTS), np.float32))
    marks = shortlists(flat, split(), 2)
    assert np.argwhere(marks[:, 50] & 2)[:, 0].tolist() == [0, 1]
    assert np.flatnonzero(marks[50] & 1).tolist() == [0, 1]


def to_file(path, first_path, top=5):
    process_group("no")
    model = TinyModel()
    made = over(read_ranking(first_path).provenance, provenance(model))
    return reranker(read_ranking(first_path), top, model).rank_to_file(path, made)


def test_the_file_is_the_same_by_any_number_of_processes_and_stored_either_way(first, tmp_path):
    write_ranking(tmp_path / "first.h5", first)
    write_ranking(tmp_path / "turned.h5", first.T)
    whole = to_file(tmp_path / "alone.h5", tmp_path / "first.h5")
    np.testing.assert_array_equal(rows(whole, "text"), rows(rerank(first, 5), "text"))
    np.testing.assert_array_equal(rows(whole.first, "image"), rows(first, "image"))
    assert in_processes(2, lambda: to_file(tmp_path / "two.h5", tmp_path / "first.h5")) == [0, 0]
    to_file(tmp_path / "three.h5", tmp_path / "turned.h5")
    assert len({(tmp_path / f"{name}.h5").read_bytes() for name in ("alone", "two", "three")}) == 1


def test_blocks_of_another_shortlist_are_not_taken_over(first, tmp_path, capsys):
    write_ranking(tmp_path / "first.h5", first)
    to_file(tmp_path / "a.h5", tmp_path / "first.h5")
    with pytest.raises(RankingError, match="holds the ranking of another weights"):
        model = TinyModel(seed=5)
        reranker(first, 5, model).rank_to_file(tmp_path / "a.h5", over(first.provenance, provenance(model)))


def test_provenance_names_both_models():
    one = replace(provenance(FIRST), model="DE", leakage="3 of 9")
    two = replace(provenance(TinyModel()), model="SIAM", config='{"top": 5}')
    made = over(one, two)
    assert made.model == "SIAM over DE" and made.leakage == "DE: 3 of 9" and made.weights == two.weights
    assert one.weights in made.config and '"top": 5' in made.config


def test_refused(first):
    with pytest.raises(RankingError, match="cannot be re-ranked once more"):
        shortlists(rerank(first, 3), split(), 3)
    other = replace(first, provenance=replace(first.provenance, digest="other"))
    with pytest.raises(RankingError, match="the split to re-rank, 'test', has other records"):
        shortlists(other, split(), 3)


def test_comparison_is_readable():
    before = {"t2i": {"R@1": 10.0, "R@5": 20.0, "R@10": 30.0}}
    after = {"t2i": {"R@1": 12.5, "R@5": 21.0, "R@10": 30.0}}
    text = comparison(before, after, {"t2i": 87.5}, 50)
    assert "10.00 -> 12.50" in text and text.splitlines()[0].endswith("ceiling (R@50 of the first)") and text.endswith("87.50")
