from __future__ import annotations

import pytest
import torch
from transformers import BertConfig, BertModel, GPT2Config, GPT2Model, T5Config

from models.text_tower import TextTower, default_pool, load_text_tower, pool_tokens, read_text_tower

SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 4, "initializer_range": 0.3}


@pytest.fixture
def bert(tmp_path, tokenizer) -> str:
    folder = tmp_path / "bert"
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=20, **SMALL)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def gpt(tmp_path, tokenizer) -> str:
    folder = tmp_path / "gpt"
    torch.manual_seed(0)
    GPT2Model(GPT2Config(vocab_size=len(tokenizer), n_embd=16, n_layer=2, n_head=2, n_positions=20)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def pooled(tower: TextTower, texts: list[str]) -> torch.Tensor:
    with torch.no_grad():
        return tower(tower.tokens(texts)).pooled


def test_the_last_layers_side_by_side(bert, captions):
    tower = load_text_tower(bert, layers=(-4, -3, -2, -1))
    batch = tower.tokens(captions)
    with torch.no_grad():
        hidden = BertModel.from_pretrained(bert).eval()(**batch, output_hidden_states=True).hidden_states
    seen = tower(batch)
    torch.testing.assert_close(seen.states, torch.cat(hidden[-4:], dim=2))
    torch.testing.assert_close(seen.pooled, torch.cat(hidden[-4:], dim=2)[:, 0])
    assert tower.width == seen.pooled.shape[1] == 64 and tower.pool == "first"
    assert seen.mask.dtype == torch.bool and torch.equal(seen.mask.long(), batch["attention_mask"])


@pytest.mark.parametrize("pool", ["first", "last", "mean", "pooler"])
def test_padding_does_not_change_a_vector(bert, captions, pool):
    tower = load_text_tower(bert, pool=pool)
    alone = torch.cat([pooled(tower, [text]) for text in captions])
    torch.testing.assert_close(pooled(tower, list(captions)), alone, atol=1e-5, rtol=0)


def test_pooling_by_hand():
    states = torch.tensor([[[1.0], [2.0], [6.0]], [[4.0], [8.0], [100.0]]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    assert pool_tokens(states, mask, "first").flatten().tolist() == [1, 4]
    assert pool_tokens(states, mask, "last").flatten().tolist() == [6, 8]
    assert pool_tokens(states, mask, "mean").flatten().tolist() == [3, 6]


def test_left_to_right_models_pool_the_last_token(gpt, captions):
    """Their first token has seen nothing but itself: every text would have one vector."""
    tower = load_text_tower(gpt)
    assert tower.pool == "last"
    first, last = (pooled(load_text_tower(gpt, pool=pool), list(captions)) for pool in ("first", "last"))
    torch.testing.assert_close(first, first[:1].expand_as(first))
    assert torch.pdist(last).min() > 0.05
    torch.testing.assert_close(pooled(tower, list(captions)), last)
    torch.testing.assert_close(pooled(tower, [captions[0]]), last[:1], atol=1e-5, rtol=0)


def test_a_tokenizer_without_padding_gets_one(gpt, tokenizer, captions, tmp_path):
    bare = type(tokenizer)(tokenizer_object=tokenizer.backend_tokenizer, unk_token="[UNK]", eos_token="[SEP]")
    bare.save_pretrained(gpt)
    tower = load_text_tower(gpt)
    torch.testing.assert_close(
        pooled(tower, list(captions)), torch.cat([pooled(tower, [one]) for one in captions]), atol=1e-5, rtol=0
    )


def test_an_encoder_decoder_pools_the_mean():
    assert default_pool(T5Config()) == "mean"
    assert (default_pool(BertConfig()), default_pool(GPT2Config())) == ("first", "last")


def test_a_frozen_tower_has_no_dropout(bert, captions):
    """The original ran its frozen language model in train mode, with dropout."""
    frozen, learning = (load_text_tower(bert, frozen=frozen).train() for frozen in (True, False))
    batch = frozen.tokens(captions)
    one = frozen(batch).pooled
    assert not one.requires_grad and torch.equal(one, frozen(batch).pooled)
    assert not any(part.training for part in frozen.modules())
    assert not torch.equal(learning(batch).pooled, learning(batch).pooled)


@pytest.mark.parametrize("pool", ["first", "pooler"])
def test_all_that_learns_gets_a_gradient(bert, captions, pool):
    tower = load_text_tower(bert, pool=pool, frozen=False).train()
    tower(tower.tokens(captions)).pooled.square().sum().backward()
    resting = {name for name, one in tower.named_parameters() if not one.requires_grad}
    assert resting == {name for name, one in tower.named_parameters() if one.grad is None}
    assert bool(resting) == (pool == "first") and all("pooler" in name for name in resting)


def test_fewer_layers(bert, captions):
    short, whole = load_text_tower(bert, depth=2), load_text_tower(bert, layers=(2,))
    torch.testing.assert_close(pooled(short, list(captions)), pooled(whole, list(captions)))
    assert len(short.model.encoder.layer) == 2


def test_six_layers_of_bert_have_their_number_of_parameters():
    with torch.device("meta"):
        model = BertModel(BertConfig(num_hidden_layers=6))
    assert sum(one.numel() for one in model.parameters()) == 66_955_008


def test_a_new_tower_and_a_checkpoint_that_needs_nothing_else(captions, tmp_path):
    tower = load_text_tower("scratch", layers=(-2, -1), pool="mean", frozen=False, max_length=9, texts=captions)
    tower.save(tmp_path)
    again = read_text_tower(tmp_path)
    again.load_state_dict(tower.state_dict())
    assert torch.equal(pooled(again, list(captions)), pooled(tower.eval(), list(captions)))
    assert (again.layers, again.pool, again.tokens.max_length) == ((-2, -1), "mean", 9)
    assert again.tokens(captions)["input_ids"].shape[1] == 9


def test_refusals(bert, gpt, tmp_path):
    for options, message in (
        ({"layers": (5,)}, r"layers \(5,\): the text tower has 4 layers"),
        ({"layers": ()}, r"layers \(\): the text tower has 4 layers"),
        ({"max_length": 21}, "max_length 21: the text tower reads up to 20 tokens"),
        ({"depth": 5}, "depth 5: .* has 4 layers"),
    ):
        with pytest.raises(ValueError, match=message):
            load_text_tower(bert, **options)
    with pytest.raises(ValueError, match="pool pooler: a gpt2 model has none"):
        load_text_tower(gpt, pool="pooler")
    with pytest.raises(ValueError, match="configuration of the text tower cannot be read"):
        read_text_tower(tmp_path)


def test_a_pooler_without_weights_is_refused_where_it_is_the_pool(bert, tokenizer):
    model = BertModel.from_pretrained(bert, add_pooling_layer=False)
    model.save_pretrained(bert)
    load_text_tower(bert)
    with pytest.raises(ValueError, match="weights are missing"):
        load_text_tower(bert, pool="pooler")


def test_sentences_of_the_real_model(minilm):
    """all-MiniLM-L6-v2 was trained on the mean of its last layer."""
    tower = load_text_tower(minilm, pool="mean")
    texts = ["A dog runs over the grass.", "A puppy races across a lawn.", "The committee approved the budget."]
    one, two, three = torch.nn.functional.normalize(pooled(tower, texts))
    assert one @ two > 0.6 > 0.2 > one @ three
