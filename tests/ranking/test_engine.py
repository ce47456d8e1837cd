from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from real_processes import in_processes
from tiny_model import IMAGES, TEXTS, TinyInputs, TinyModel, engine, provenance, rank, scores, split

from ranking import engine as engine_module
from ranking.engine import Engine
from ranking.matrix import RankingError, read_ranking

pytestmark = pytest.mark.usefixtures("small_blocks")


@cache
def one_by_one() -> np.ndarray:
    """Every pair scored alone, in a plain loop."""
    model, inputs, records = TinyModel().eval(), TinyInputs(), split()
    with torch.no_grad():
        images = [model.encode_images(inputs.images([image])) for image in records.image_ids]
        texts = [model.encode_texts(inputs.texts([text])) for text in records.texts]
        return np.array([[model.score(image, text).item() for text in texts] for image in images], np.float32)


def test_every_pair_stands_at_its_place(whole):
    ranking = read_ranking(whole)
    assert (ranking.queries.ids, ranking.items.ids) == (split().image_ids, split().text_ids)
    np.testing.assert_array_equal(ranking.relevant.pairs(), split().pairs)
    np.testing.assert_allclose(scores(ranking), one_by_one(), atol=1e-6)
    assert [path.name for path in whole.parent.iterdir()] == ["ranking.h5"]


def test_in_memory_gives_the_same_scores_silently(whole, capfd):
    ranking = engine().rank_in_memory(provenance(TinyModel()))
    np.testing.assert_array_equal(scores(ranking), scores(read_ranking(whole)))
    assert capfd.readouterr() == ("", "")


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 300))
def test_pair_batch_is_never_exceeded(pair_batch):
    model = TinyModel()
    ranking = engine(model, pair_batch=pair_batch).rank_in_memory(provenance(model))
    pairs = [size for kind, size in model.calls if kind == "pairs"]
    assert max(pairs) <= pair_batch and sum(pairs) == IMAGES * TEXTS
    np.testing.assert_allclose(scores(ranking), one_by_one(), atol=1e-6)


def test_every_image_and_text_is_encoded_once():
    model = TinyModel()
    engine(model).rank_in_memory(provenance(model))
    assert [number for kind, number in model.calls if kind == "image"] == list(range(IMAGES))
    assert sum(count for kind, count in model.calls if kind == "text") == TEXTS


def test_the_model_is_evaluated_without_dropout_and_gradients(whole):
    model = TinyModel().train()
    ranking = engine(model).rank_in_memory(provenance(model))
    np.testing.assert_array_equal(scores(ranking), scores(read_ranking(whole)))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_loader_workers(whole):
    ranking = engine(workers=2).rank_in_memory(provenance(TinyModel()))
    np.testing.assert_array_equal(scores(ranking), scores(read_ranking(whole)))


def test_bf16_rounds(whole):
    model = TinyModel()
    ranking = Engine(model, TinyInputs(), split(), "bf16", 40).rank_in_memory(provenance(model))
    difference = np.abs(scores(ranking) - scores(read_ranking(whole)))
    assert 0 < difference.max() < 0.05
    assert ranking.scores.dtype == np.float32


@pytest.mark.parametrize("size", [2, 3])
def test_any_number_of_processes_writes_the_same_bytes(whole, tmp_path, size):
    path = tmp_path / "ranking.h5"
    assert in_processes(size, lambda: rank(path)) == [0] * size
    assert path.read_bytes() == whole.read_bytes()


def test_more_processes_than_batches_of_images(tmp_path, monkeypatch):
    monkeypatch.setattr(engine_module, "BLOCK", 70)
    path, alone = tmp_path / "ranking.h5", tmp_path / "alone.h5"
    assert in_processes(3, lambda: rank(path)) == [0] * 3
    rank(alone)
    assert path.read_bytes() == alone.read_bytes()


class NanModel(TinyModel):
    """Gives NaN for text 100 and image 30."""

    def encode_images(self, batch):
        (states,) = super().encode_images(batch)
        return (torch.cat([states, (batch["number"] == 30).float()[:, None]], dim=1),)

    def encode_texts(self, batch):
        states, mask = super().encode_texts(batch)
        wanted = TinyInputs().texts([split().texts[100]])["words"][0]
        is_it = torch.tensor(
            [row[: len(wanted)].equal(wanted) and mask[i].sum() == len(wanted) for i, row in enumerate(batch["words"])]
        )
        return states, mask, is_it.float()

    def score(self, images, texts):
        result = super().score((images[0][:, :-1],), texts[:2])
        bad = images[0][:, -1:] * texts[2][None]
        return result.masked_fill(bad > 0, torch.nan)


def test_nan_is_refused_and_named(tmp_path):
    path = tmp_path / "ranking.h5"
    message = "the first nan for query 'image-30' and item 'text-100'; the model or its precision is at fault"
    with pytest.raises(RankingError, match=message):
        rank(path, NanModel())
    assert not path.exists()
    with pytest.raises(RankingError, match=message):
        scores(engine(NanModel()).rank_in_memory(provenance(TinyModel())))


def test_nan_in_one_process_ends_all(tmp_path):
    assert in_processes(2, lambda: rank(tmp_path / "ranking.h5", NanModel())) == [1, 1]
    assert not (tmp_path / "ranking.h5").exists()


def test_an_error_of_the_main_process_ends_all(tmp_path, monkeypatch):
    """Only the main process puts the file together; the others must not wait for it."""

    def full(*_: object) -> None:
        raise RankingError("no room")

    def attempt() -> None:
        monkeypatch.setattr(engine_module, "write_ranking", full)
        with pytest.raises(RankingError, match="no room"):
            rank(tmp_path / "ranking.h5")

    assert in_processes(3, attempt) == [0, 0, 0]
