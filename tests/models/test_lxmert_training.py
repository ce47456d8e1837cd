from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from real_processes import in_processes
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from models import lxmert
from models.lxmert import Lxmert, LxmertInputs, LxmertShape
from models.lxmert_training import LxmertPairs, LxmertTrainee, freeze
from training.losses import circulant_pairs, related


class Numbers:
    """Inputs whose batches say which image or text stands in each row."""

    def images(self, image_ids):
        return {"features": torch.tensor([int(image) for image in image_ids])}

    def texts(self, texts):
        return {"input_ids": torch.tensor([int(text) for text in texts]), "attention_mask": torch.ones(len(texts))}


@st.composite
def owners(draw: st.DrawFn) -> list[set[int]]:
    """Which images each text describes: every image has a text, some texts describe several, none describes all."""
    images = draw(st.integers(3, 6))
    more = draw(st.lists(st.sets(st.integers(0, images - 1), min_size=1, max_size=2), max_size=10))
    return [{image} for image in range(images)] + more


def numbered(make_split, owners: list[set[int]]):
    return make_split(1 + max(map(max, owners)), owners, [str(j) for j in range(len(owners))])


def drawn(batch: dict[str, Tensor]) -> list[tuple[int, int]]:
    """Image and text of every pair of a batch of Numbers."""
    images, texts = batch["features"][batch["image"]], batch["input_ids"][batch["text"]]
    return list(zip(images.flatten().tolist(), texts.flatten().tolist(), strict=True))


@settings(max_examples=40, deadline=None)
@given(owners=owners(), data=st.data(), seed=st.integers(0, 999))
def test_binary_every_pair_comes_with_one_that_is_not_related(make_split, owners, data: st.DataObject, seed: int):
    split = numbered(make_split, owners)
    samples = np.array(data.draw(st.lists(st.integers(0, len(split.pairs) - 1), min_size=1, max_size=8)))
    batch = LxmertPairs(split, Numbers(), None, "binary").batch(samples, np.random.default_rng(seed))
    pairs, labels = drawn(batch), batch["labels"].tolist()
    own, other = ([pair for pair, label in zip(pairs, labels, strict=True) if label == kind] for kind in (1, 0))
    assert own == [tuple(pair) for pair in split.pairs[samples].tolist()]
    assert len(other) == len(own)
    for (image, text), (own_image, own_text) in zip(other, own, strict=True):
        assert image not in owners[text] and (image == own_image or text == own_text)
    assert len(set(batch["features"].tolist())) == len(batch["features"])  # every item is encoded once
    assert len(set(batch["input_ids"].tolist())) == len(batch["input_ids"])


def test_binary_images_and_texts_are_replaced_equally_often(make_split):
    split = numbered(make_split, [{j // 2} for j in range(40)])
    pairs = LxmertPairs(split, Numbers(), None, "binary")
    replaced = Counter()
    for step in range(20):
        samples = np.arange(40)
        batch = pairs.batch(samples, np.random.default_rng(step))
        for (image, _), (own, _) in zip(drawn(batch)[40:], split.pairs[samples].tolist(), strict=True):
            replaced["image" if image != own else "text"] += 1
    assert 330 < replaced["image"] < 470 and replaced.total() == 800  # 400 expected, standard deviation 14


def test_binary_with_a_share_of_unaligned_pairs(make_split):
    owners = [{j // 2} for j in range(40)]
    split = numbered(make_split, owners)
    pairs = LxmertPairs(split, Numbers(), None, "binary", prob_unaligned=0.3)
    batches = [pairs.batch(np.arange(40), np.random.default_rng(step)) for step in range(25)]
    for batch in batches:
        assert [image in owners[text] for image, text in drawn(batch)] == batch["labels"].bool().tolist()
        assert len(batch["labels"]) == 40
    share = 1 - np.mean([batch["labels"].mean().item() for batch in batches])
    assert abs(share - 0.3) < 0.06  # standard deviation 0.0145


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1])
def test_a_share_that_leaves_one_label_is_refused(make_split, share: float):
    with pytest.raises(ValueError, match=f"--prob-unaligned {share}: .*At 0 every label is 1"):
        LxmertPairs(numbered(make_split, [{0}, {1}]), Numbers(), None, "binary", share)


@settings(max_examples=40, deadline=None)
@given(owners=owners(), data=st.data(), seed=st.integers(0, 999))
def test_contrastive_rows_are_the_sampled_pairs(make_split, owners, data: st.DataObject, seed: int):
    split = numbered(make_split, owners)
    samples = np.array(data.draw(st.lists(st.integers(0, len(split.pairs) - 1), min_size=1, max_size=8)))
    batch = LxmertPairs(split, Numbers(), None, "contrastive").batch(samples, np.random.default_rng(seed))
    images, texts = batch["features"].tolist(), batch["input_ids"].tolist()
    assert list(zip(images, texts, strict=True)) == [tuple(pair) for pair in split.pairs[samples].tolist()]
    fits = related(batch["texts_of_image"][:, None], batch["own_text"])
    assert fits.tolist() == [[image in owners[text] for text in texts] for image in images]


def test_every_part_of_a_batch_draws_the_same_partners(make_split):
    pairs = LxmertPairs(numbered(make_split, [{0}, {1}, {2}]), Numbers(), None, "contrastive")
    draws = {
        (step, pairs.batch(np.array(part), np.random.default_rng(step))["draw"].item())
        for part in ([0, 1], [2])
        for step in (0, 1)
    }
    assert len(draws) == 2 and len({draw for _, draw in draws}) == 2


def test_samples_are_named_by_their_captions(make_split):
    split = numbered(make_split, [{0}, {1}, {0}])
    assert LxmertPairs(split, Numbers(), None, "binary").describe(np.array([2, 0])) == ["c1", "c0"]


@pytest.fixture
def model(lxmert_config) -> Lxmert:
    torch.manual_seed(0)
    return Lxmert(lxmert_config())


@pytest.fixture
def inputs(tokenizer, regions) -> LxmertInputs:
    return LxmertInputs(tokenizer, regions, 512)


def full_matrix(model: Lxmert, inputs: LxmertInputs, split, samples: np.ndarray) -> Tensor:
    """Scores of every sample's image against every sample's text."""
    images, texts = split.pairs[samples].T
    encoded = model.encode_images(inputs.images([split.image_ids[i] for i in images]))
    return model.score(encoded, model.encode_texts(inputs.texts([split.texts[j] for j in texts])))


def looped(scores: Tensor, candidates: list[set[int]], related: np.ndarray, loss: str, top_k: int) -> Tensor:
    """Mean loss over the rows of a square matrix; row r is compared with the columns candidates[r], its own being r."""
    losses = []
    for row in range(len(scores)):
        others = [column for column in candidates[row] if column != row and not related[row, column]]
        if loss == "softmax":
            losses.append(torch.logsumexp(scores[row, [row, *others]], 0) - scores[row, row])
        else:
            violations = sorted(((0.5 - scores[row, row] + scores[row, other]).clamp(min=0) for other in others), reverse=True)
            losses.append(sum(violations[: top_k or None], torch.zeros(())))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("negatives", [0, 2])
@pytest.mark.parametrize(("loss", "top_k"), [("softmax", 0), ("hinge", 0), ("hinge", 1), ("hinge", 2)])
def test_contrastive_loss_equals_a_loop(model, inputs, make_split, negatives: int, loss: str, top_k: int):
    owners = [{0}, {0}, {1}, {2}, {3, 0}, {3}]
    split, samples = make_split(4, owners), np.array([0, 1, 3, 4, 6])  # two captions of image 0, and one that fits two images
    trainee = LxmertTrainee(model, "contrastive", loss, margin=0.5, top_k=top_k, negatives=negatives)
    batch = LxmertPairs(split, inputs, None, "contrastive").batch(samples, np.random.default_rng(1))
    scores, (images, texts) = full_matrix(model, inputs, split, samples), split.pairs[samples].T
    related = np.array([[image in owners[text] for text in texts] for image in images])
    assert related.sum() > len(samples) and scores.std() > 0.05
    met = torch.zeros(5, 5, dtype=torch.bool)
    met[circulant_pairs(5, negatives or 4, torch.Generator().manual_seed(batch["draw"].item()))] = True
    by_image = looped(scores, [set(row.nonzero().flatten().tolist()) for row in met], related, loss, top_k)
    by_text = looped(scores.T, [set(row.nonzero().flatten().tolist()) for row in met.T], related.T, loss, top_k)
    torch.testing.assert_close(trainee(batch), (by_image + by_text) / 2, atol=1e-5, rtol=0)
    assert met.all() == (negatives == 0)


def test_binary_loss_equals_a_loop(model, inputs, make_split):
    split = make_split(4, [{0}, {0}, {1}, {2}, {3}])
    batch = LxmertPairs(split, inputs, None, "binary").batch(np.arange(5), np.random.default_rng(0))
    images, texts = model.encode_images(batch), model.encode_texts(batch)
    losses = []
    for image, text, label in zip(batch["image"], batch["text"], batch["labels"], strict=True):
        score = model.score_pairs(images, texts, image[None], text[None])[0]
        losses.append(-torch.nn.functional.logsigmoid(score if label else -score))
    got = LxmertTrainee(model, "binary")(batch)
    torch.testing.assert_close(got, torch.stack(losses).mean(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("formulation", ["binary", "contrastive"])
def test_distributed_training_goes_past_the_first_step(tmp_path, tokenizer, regions, make_split, formulation):
    model, inputs = lxmert.from_scratch(LxmertShape(32, 4, 2, 1, 2), regions, tokenizer)
    lxmert.save(model, inputs, tmp_path / "saved")
    split = make_split(4, [{0}, {1}, {2}, {3}])

    def learn() -> None:
        dist.init_process_group("gloo")
        loaded, _ = lxmert.load(str(tmp_path / "saved"), regions)
        trainee = DistributedDataParallel(LxmertTrainee(loaded, formulation))
        pairs = LxmertPairs(split, inputs, None, formulation)
        for _ in range(3):
            trainee(pairs.batch(np.array([0, 1]) + 2 * dist.get_rank(), np.random.default_rng(0))).backward()

    assert in_processes(2, learn) == [0, 0]


@pytest.mark.parametrize("formulation", ["binary", "contrastive"])
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("loaded", [False, True])
def test_every_learning_parameter_gets_a_gradient(tmp_path, tokenizer, regions, make_split, formulation, frozen, loaded):
    model, inputs = lxmert.from_scratch(LxmertShape(32, 4, 2, 1, 2, dropout=0.0), regions, tokenizer)
    if loaded:
        lxmert.save(model, inputs, tmp_path / "saved")
        model, inputs = lxmert.load(str(tmp_path / "saved"), regions)
    split = make_split(3, [{0}, {1}, {2}])
    states = freeze(model, inputs, split, tmp_path / "cache") if frozen else None
    trainee = LxmertTrainee(model, formulation).train()
    trainee(LxmertPairs(split, inputs, states, formulation).batch(np.arange(3), np.random.default_rng(0))).backward()
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learning == {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    language = {name for name, _ in model.named_parameters() if name.startswith(("lxmert.embeddings.", "lxmert.encoder.layer."))}
    assert not learning & language if frozen else language <= learning


def test_states_of_frozen_layers_equal_their_outputs(tmp_path, minilm: str, regions, make_split, test_data):
    """On real captions and real weights, and the loss is the same with and without the cache."""
    lines = (test_data / "published" / "captions" / "coco_test_25000.txt").read_text().splitlines()
    split = make_split(10, [{j // 2} for j in range(20)], [line.strip() for line in lines[:20]])
    shape = LxmertShape(vision_layers=1, cross_layers=1, dropout=0.0)
    model, inputs = lxmert.from_scratch(shape, regions, None, minilm)
    states = freeze(model, inputs, split, tmp_path)
    rows = np.array([17, 3, 8])
    cached, mask = states.padded(rows)
    with torch.no_grad():
        fresh, fresh_mask = model.encode_texts(inputs.texts([split.texts[row] for row in rows]))
    assert torch.equal(mask, fresh_mask) and not cached[~mask].any()
    torch.testing.assert_close(cached[mask], fresh[mask], atol=1e-5, rtol=0)
    trainee = LxmertTrainee(model, "binary")
    losses = [
        trainee(LxmertPairs(split, inputs, cache, "binary").batch(np.arange(6), np.random.default_rng(0))).item()
        for cache in (states, None)
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_states_are_computed_once_for_a_run_folder(tmp_path, model, inputs, make_split, monkeypatch):
    split = make_split(3, [{0}, {1}, {2}])
    freeze(model, inputs, split, tmp_path)
    monkeypatch.setattr(model, "encode_texts", lambda batch: pytest.fail("encoded again"))
    assert freeze(model, inputs, split, tmp_path).padded(np.array([0]))[1].shape == (1, 4)


def test_states_of_other_weights_are_not_taken(tmp_path, model, inputs, make_split):
    split = make_split(3, [{0}, {1}, {2}])
    before, _ = freeze(model, inputs, split, tmp_path).padded(np.array([0]))
    with torch.no_grad():
        model.lxmert.encoder.layer[0].output.LayerNorm.bias.add_(1)
    after, _ = freeze(model, inputs, split, tmp_path).padded(np.array([0]))
    assert not torch.equal(before, after)
