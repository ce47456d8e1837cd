from __future__ import annotations

from collections import Counter
from functools import lru_cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_batches import image_batch, text_batch
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoTokenizer,
    LxmertConfig,
)

from models import lxmert
from models.lxmert import BinaryHead, Lxmert, LxmertInputs, LxmertShape, MatchHead, freeze_language, freeze_unread
from ranking.engine import Engine
from ranking.matrix import Provenance

LAST_VISION = tuple(f"lxmert.encoder.x_layers.1.{name}." for name in ("visn_self_att", "visn_inter", "visn_output"))


def full_forward(model: Lxmert, images: dict[str, Tensor], texts: dict[str, Tensor], image: int, text: int) -> Tensor:
    """The score of one pair by transformers' own forward, without padding."""
    length = int(texts["attention_mask"][text].sum())
    out = model.lxmert(
        input_ids=texts["input_ids"][[text], :length],
        attention_mask=texts["attention_mask"][[text], :length],
        visual_feats=images["features"][[image]],
        visual_pos=images["boxes"][[image]],
    )
    return model.cls(out.pooled_output).squeeze()


def all_by_full_forward(model: Lxmert, images: dict[str, Tensor], texts: dict[str, Tensor]) -> Tensor:
    rows, columns = range(len(images["features"])), range(len(texts["input_ids"]))
    return torch.stack([torch.stack([full_forward(model, images, texts, i, t) for t in columns]) for i in rows])


@pytest.fixture(scope="module")
def full_size() -> Lxmert:
    torch.manual_seed(0)
    return Lxmert(LxmertConfig(head="binary")).eval()


@pytest.mark.parametrize("head", [BinaryHead, MatchHead])
@torch.inference_mode()
def test_scores_of_the_real_size_equal_a_full_forward_a_pair(full_size: Lxmert, head: type[nn.Module]):
    torch.manual_seed(1)
    full_size.cls = head(768)
    images, texts = image_batch(2, 36, 2048), text_batch([4, 21, 11], 30522)
    encoded = full_size.encode_images(images), full_size.encode_texts(texts)
    expected = all_by_full_forward(full_size, images, texts)
    assert expected.std() > 1e-2  # pairs can be told apart
    torch.testing.assert_close(full_size.score(*encoded), expected, atol=1e-5, rtol=0)
    image, text = torch.tensor([1, 0, 1, 0]), torch.tensor([2, 1, 2, 0])
    torch.testing.assert_close(full_size.score_pairs(*encoded, image, text), expected[image, text], atol=1e-5, rtol=0)


def test_the_backbone_has_the_published_number_of_parameters(full_size: Lxmert):
    assert sum(parameter.numel() for parameter in full_size.lxmert.parameters()) == 207_936_768


def test_binary_head():
    widen, activation, norm, narrow = BinaryHead(768)
    assert (widen.in_features, widen.out_features, narrow.in_features, narrow.out_features) == (768, 1536, 1536, 1)
    assert (norm.normalized_shape, norm.eps) == ((1536,), 1e-12)
    assert isinstance(activation, nn.GELU) and activation.approximate == "none"


@pytest.fixture(scope="module")
def tiny(lxmert_config):
    @lru_cache
    def make(x_layers: int = 2, **changed: object) -> Lxmert:
        torch.manual_seed(x_layers)
        return Lxmert(lxmert_config(x_layers=x_layers, **changed)).eval()

    return make


@settings(max_examples=15, deadline=None)
@given(data=st.data(), x_layers=st.sampled_from([1, 2, 3]), seed=st.integers(0, 99))
def test_scores_equal_a_full_forward_for_any_block_and_any_pairs(tiny, data: st.DataObject, x_layers: int, seed: int):
    model = tiny(x_layers)
    lengths = data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=20))
    images, texts = (
        image_batch(data.draw(st.integers(1, 2)), data.draw(st.integers(1, 5)), 8, seed),
        text_batch(lengths, 30, seed),
    )
    pair = st.tuples(st.integers(0, len(images["features"]) - 1), st.integers(0, len(lengths) - 1))
    image, text = torch.tensor(data.draw(st.lists(pair, min_size=1, max_size=6))).T
    with torch.inference_mode():
        encoded = model.encode_images(images), model.encode_texts(texts)
        expected = all_by_full_forward(model, images, texts)
        torch.testing.assert_close(model.score(*encoded), expected, atol=2e-5, rtol=0)
        torch.testing.assert_close(model.score_pairs(*encoded, image, text), expected[image, text], atol=2e-5, rtol=0)


@torch.inference_mode()
def test_padding_does_not_change_a_score(tiny, regions, tokenizer, captions):
    model, inputs = tiny(), LxmertInputs(tokenizer, regions, 512)
    images = model.encode_images(inputs.images(["3"]))
    together = model.score_pairs(
        images, model.encode_texts(inputs.texts(captions)), torch.zeros(6, dtype=torch.long), torch.arange(6)
    )
    alone = torch.cat([model.score(images, model.encode_texts(inputs.texts([text])))[0] for text in captions])
    assert together.std() > 0.1
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_autocast_does_not_round_the_scores(tiny):
    model, images, texts = tiny(), image_batch(4, 5, 8), text_batch([3, 7, 9], 30)
    exact = model.score(model.encode_images(images), model.encode_texts(texts))
    with torch.autocast("cpu", torch.bfloat16):
        scores = model.score(model.encode_images(images), model.encode_texts(texts))
    assert scores.dtype == torch.float32
    assert (scores.bfloat16().float() != scores).float().mean() > 0.9
    assert (scores - exact).abs().max() < 0.2 * exact.std()


@pytest.mark.parametrize("x_layers", [1, 2, 3])
def test_gradients_equal_those_of_the_full_forward(tiny, x_layers: int):
    model, images, texts = tiny(x_layers).train(), image_batch(3, 5, 8), text_batch([3, 9, 6, 2], 30)
    pairs, labels = [(0, 1), (2, 3), (0, 0), (1, 2), (2, 1)], torch.tensor([1.0, 0, 0, 1, 1])

    def gradients(scores: Tensor) -> dict[str, Tensor | None]:
        model.zero_grad()
        F.binary_cross_entropy_with_logits(scores, labels).backward()
        return {name: parameter.grad for name, parameter in model.named_parameters()}

    expected = gradients(torch.stack([full_forward(model, images, texts, i, t) for i, t in pairs]))
    image, text = torch.tensor(pairs).T
    got = gradients(model.score_pairs(model.encode_images(images), model.encode_texts(texts), image, text))
    model.eval()
    assert {name for name, gradient in expected.items() if gradient is not None and gradient.abs().max() > 1e-4}
    for name, gradient in expected.items():
        torch.testing.assert_close(got[name], gradient, atol=1e-5, rtol=1e-4)


def test_exactly_the_parameters_without_a_gradient_are_frozen(lxmert_config):
    model = Lxmert(lxmert_config())
    freeze_unread(model)
    images, texts = model.encode_images(image_batch(2, 5, 8)), model.encode_texts(text_batch([3, 4], 30))
    model.score_pairs(images, texts, torch.tensor([0, 1]), torch.tensor([1, 0])).sum().backward()
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert frozen == {name for name, _ in model.named_parameters() if name.startswith(LAST_VISION)}


def test_the_dropout_of_the_configuration_is_applied_in_training_only(lxmert_config):
    model = Lxmert(lxmert_config(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.5))
    images, texts = image_batch(1, 5, 8), text_batch([6], 30)

    def score() -> float:
        return model.score(model.encode_images(images), model.encode_texts(texts)).item()

    model.train()
    assert len({score() for _ in range(4)}) == 4
    model.eval()
    assert len({score() for _ in range(4)}) == 1


@torch.inference_mode()
def test_language_layers_start_as_the_real_bert_they_come_from(minilm: str, regions, test_data):
    lines = (test_data / "published" / "captions" / "coco_test_25000.txt").read_text().splitlines()
    texts = [line.strip() for line in lines[:12]]
    model, inputs = lxmert.from_scratch(LxmertShape(vision_layers=1, cross_layers=1), regions, None, minilm)
    states, mask = model.eval().encode_texts(inputs.texts(texts))
    batch = AutoTokenizer.from_pretrained(minilm)(texts, padding=True, return_tensors="pt")
    expected = AutoModel.from_pretrained(minilm).eval()(**batch).last_hidden_state
    assert states.shape == expected.shape and mask.sum() == batch["attention_mask"].sum()
    torch.testing.assert_close(states[mask], expected[mask], atol=1e-5, rtol=0)


def test_frozen_language_layers_do_not_learn(lxmert_config):
    model = Lxmert(lxmert_config())
    freeze_language(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    score = model.score(model.encode_images(image_batch(1, 5, 8)), model.encode_texts(text_batch([4], 30)))
    score.sum().backward()
    optimizer.step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    language = ("lxmert.embeddings.", "lxmert.encoder.layer.")
    unread = tuple(name for name in before if name.startswith(LAST_VISION))
    same_gradient = ("key.bias",)  # softmax does not see what is added to every key alike
    assert not {name for name in changed if name.startswith(language)}
    assert {name for name in before if not name.startswith(language + unread) and not name.endswith(same_gradient)} <= changed


class Counted:
    """Counts what is asked of a model's inputs."""

    def __init__(self, inputs: LxmertInputs) -> None:
        self.inputs, self.seen_images, self.seen_texts = inputs, Counter(), Counter()

    def images(self, image_ids):
        self.seen_images.update(image_ids)
        return self.inputs.images(image_ids)

    def texts(self, texts):
        self.seen_texts.update(texts)
        return self.inputs.texts(texts)


def test_the_engine_encodes_every_image_and_caption_once(lxmert_config, regions, tokenizer, make_split, monkeypatch):
    model = Lxmert(lxmert_config(x_layers=1)).eval()
    encoded = Counter()
    for side in ("encode_images", "encode_texts"):
        whole = getattr(model, side)

        def counting(batch, whole=whole, side=side):
            encoded[side] += len(next(iter(batch.values())))
            return whole(batch)

        monkeypatch.setattr(model, side, counting)
    texts = [f"{'a man on a horse ' * (1 + j % 3)}{j}" for j in range(130)]
    split = make_split(66, [{j % 66} for j in range(130)], texts)
    inputs = Counted(LxmertInputs(tokenizer, regions, 512))
    ranking = Engine(model, inputs, split).rank_in_memory(Provenance("", "", "", "", "", ""))
    assert inputs.seen_images == Counter(split.image_ids) and inputs.seen_texts == Counter(texts)
    assert encoded == {"encode_images": 66, "encode_texts": 130}
    with torch.inference_mode():
        pair = model.score(model.encode_images(inputs.images(["65"])), model.encode_texts(inputs.texts([texts[3]])))
    assert np.isclose(ranking.scores[65, 3], float(pair), atol=1e-5)


def test_a_text_cannot_bring_in_special_tokens(regions, tokenizer, minilm: str):
    for name, one in (("learned", tokenizer), ("bert", AutoTokenizer.from_pretrained(minilm))):
        ids = LxmertInputs(one, regions, 512).texts(["a man [SEP] a horse [PAD] [CLS] [MASK]", ""])["input_ids"]
        special = [one.convert_ids_to_tokens(row.tolist()) for row in ids]
        assert [t for t in special[0] if t in one.all_special_tokens and t != "[UNK]"] == ["[CLS]", "[SEP]"], name
        assert special[1][:2] == ["[CLS]", "[SEP]"] and set(special[1][2:]) == {"[PAD]"}, name


def test_a_text_longer_than_the_position_table_keeps_its_frame(regions, tokenizer):
    batch = LxmertInputs(tokenizer, regions, 8).texts(["a dog " * 30, "a dog"])
    assert batch["input_ids"].shape == (2, 8)
    assert tokenizer.convert_ids_to_tokens(batch["input_ids"][0].tolist())[::7] == ["[CLS]", "[SEP]"]
