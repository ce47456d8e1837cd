"""LXMERT checkpoints: what is loaded, built and saved."""

from __future__ import annotations

import pytest
import torch
from tiny_batches import image_batch, text_batch
from torch import Tensor
from transformers import BertConfig, BertModel, CLIPConfig, LxmertForPreTraining, LxmertModel

from models import lxmert
from models.lxmert import Lxmert, LxmertInputs, LxmertShape, MatchHead


@torch.inference_mode()
def test_the_match_head_is_the_one_of_a_pretraining_checkpoint(tmp_path, lxmert_config, tokenizer, regions, capsys):
    torch.manual_seed(0)
    pretraining = LxmertForPreTraining(lxmert_config(head=None)).eval()
    folder = checkpoint(tmp_path, pretraining, tokenizer)
    model, _ = lxmert.load(folder, regions, "match")
    images, texts = image_batch(2, 5, 8), text_batch([7, 7], 30)
    out = pretraining(**texts, visual_feats=images["features"], visual_pos=images["boxes"]).cross_relationship_score
    score = model.eval().score(model.encode_images(images), model.encode_texts(texts)).diagonal()
    torch.testing.assert_close(score, out[:, 1] - out[:, 0], atol=1e-5, rtol=0)
    assert "fresh" not in capsys.readouterr().out


def checkpoint(tmp_path, model, tokenizer) -> str:
    """A folder as others write it: its configuration knows nothing of our heads."""
    if hasattr(model.config, "head"):
        del model.config.head
    model.save_pretrained(tmp_path / "checkpoint")
    tokenizer.save_pretrained(tmp_path / "checkpoint")
    return str(tmp_path / "checkpoint")


@pytest.mark.parametrize("kind", [LxmertModel, LxmertForPreTraining])
def test_a_fresh_binary_head_is_said_so(tmp_path, lxmert_config, tokenizer, regions, capsys, kind):
    other = kind(lxmert_config())
    model, _ = lxmert.load(checkpoint(tmp_path, other, tokenizer), regions, "binary")
    assert "no binary head, a fresh one is used" in capsys.readouterr().out
    backbone = other.lxmert if kind is LxmertForPreTraining else other
    assert all(torch.equal(value, model.lxmert.state_dict()[name]) for name, value in backbone.state_dict().items())
    assert 0.15 < model.cls[0].weight.std() < 0.25 and not model.cls[3].bias.any()  # the initializer range, 0.2 here


def test_a_checkpoint_that_is_to_be_ranked_needs_its_head(tmp_path, lxmert_config, tokenizer, regions):
    with pytest.raises(ValueError, match="no binary head, its scores would be random"):
        lxmert.load(checkpoint(tmp_path, LxmertModel(lxmert_config()), tokenizer), regions, "binary", trained=True)


def test_what_cannot_be_loaded_is_one_clear_error(tmp_path, lxmert_config, tokenizer, regions):
    model = LxmertModel(lxmert_config())
    folder = checkpoint(tmp_path, model, tokenizer)
    other = lxmert_config(visual_feat_dim=9)
    with pytest.raises(ValueError, match=r"features are 8 wide, .* reads 9; use the regions it was trained on"):
        lxmert.load(checkpoint(tmp_path / "wide", LxmertModel(other), tokenizer), regions)
    weights = {name: value for name, value in model.state_dict().items() if not name.startswith("encoder.r_layers")}
    model.save_pretrained(folder, state_dict=weights)
    with pytest.raises(ValueError, match=r"16 weights are missing and would be random, the first: lxmert\.encoder\.r_layers"):
        lxmert.load(folder, regions)
    BertConfig().save_pretrained(tmp_path / "bert")
    with pytest.raises(ValueError, match="a bert checkpoint; lxmert is needed"):
        lxmert.load(str(tmp_path / "bert"), regions)


def test_what_cannot_be_built_is_one_clear_error(tmp_path, regions):
    CLIPConfig().save_pretrained(tmp_path / "clip")
    with pytest.raises(ValueError, match="a clip checkpoint; bert is needed"):
        lxmert.from_scratch(LxmertShape(), regions, None, str(tmp_path / "clip"))
    bert = BertModel(BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8))
    bert.config.num_hidden_layers = 2
    bert.save_pretrained(tmp_path / "bert")
    with pytest.raises(ValueError, match=r"16 weights are missing and would be random, the first: encoder\.layer\.1"):
        lxmert.from_scratch(LxmertShape(), regions, None, str(tmp_path / "bert"))
    with pytest.raises(ValueError, match="needs a tokenizer or a language checkpoint"):
        lxmert.from_scratch(LxmertShape(), regions, None)
    with pytest.raises(ValueError, match="at least one cross layer"):
        LxmertShape(cross_layers=0)
    with pytest.raises(ValueError, match="--width 30 --heads 4"):
        LxmertShape(width=30, heads=4)


def test_from_scratch_has_the_shape_asked_for(regions, tokenizer):
    model, inputs = lxmert.from_scratch(LxmertShape(24, 3, 4, 2, 3, 0.25), regions, tokenizer, head="match")
    encoder = model.lxmert.encoder
    assert (len(encoder.layer), len(encoder.r_layers), len(encoder.x_layers)) == (4, 2, 3)
    assert (
        model.config.hidden_size == 24
        and model.config.intermediate_size == 96
        and encoder.layer[0].attention.self.dropout.p == 0.25
    )
    assert isinstance(model.cls, MatchHead)
    assert model.score(model.encode_images(inputs.images(["1", "2"])), model.encode_texts(inputs.texts(["a dog"]))).shape == (
        2,
        1,
    )


@pytest.mark.parametrize("head", ["binary", "match"])
@torch.inference_mode()
def test_a_saved_model_comes_back_whole(tmp_path, regions, tokenizer, captions, head):
    torch.manual_seed(0)
    model, inputs = lxmert.from_scratch(LxmertShape(32, 4, 2, 1, 2), regions, tokenizer, head=head)
    lxmert.save(model, inputs, tmp_path / "saved")
    again, inputs_again = lxmert.load(str(tmp_path / "saved"), regions, "match" if head == "binary" else "binary")

    def scores(model: Lxmert, inputs: LxmertInputs) -> Tensor:
        texts = (*captions, "a man [SEP] horse", "")
        return model.eval().score(model.encode_images(inputs.images(["0", "5"])), model.encode_texts(inputs.texts(texts)))

    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    # A loaded tensor may lie elsewhere in a cache line, which moves the last bit of a matrix product.
    torch.testing.assert_close(scores(again, inputs_again), scores(model, inputs), atol=1e-6, rtol=0)
    assert LxmertModel.from_pretrained(tmp_path / "saved")  # transformers itself reads the backbone
