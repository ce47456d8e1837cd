from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel

from models import tern
from models.tern import PRESETS, Tern, TernInputs, TernShape
from models.tern_training import freeze_unread
from models.text_features import TextFeatures, tower_name, write_text_features
from models.text_tower import load_text_tower

SMALL = {"width": 16, "vision_layers": 2, "embedding": 12, "heads": 2, "feed_forward": 24, "dropout": 0.0}
SHAPES = {
    "paper": TernShape(**SMALL, shared_layers=1),
    "flickr": TernShape("flickr", "add", **SMALL, shared_layers=0, image_aggregation="mean", text_aggregation="mean"),
}


@pytest.fixture
def build(regions, captions):
    def build(shape: TernShape, **options):
        torch.manual_seed(0)
        model, inputs = tern.from_scratch(shape, regions, load_text_tower("scratch", texts=captions, **options))
        return model.eval(), inputs

    return build


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_parameters_of_both_presets_are_those_of_the_originals():
    with torch.device("meta"):
        bert = BertModel(BertConfig(num_hidden_layers=6))
        paper, flickr = (Tern(PRESETS[preset], 2048, 768, None) for preset in ("paper", "flickr"))
    assert count(bert) == 66_955_008
    assert count(bert) + count(paper) == 198_674_176
    assert count(paper.image_encoder) == 100_745_216 and count(paper.shared) == 16_799_744
    assert count(flickr) == 26_393_344
    freeze_unread(paper)
    unread = sum(parameter.numel() for parameter in paper.parameters() if not parameter.requires_grad)
    assert unread == (2048 + 1) * 1024 + (768 + 1) * 1024  # the original's too


@pytest.mark.parametrize("preset", SHAPES)
@pytest.mark.parametrize("options", [{}, {"text_layers": 1, "relative": 2}, {"measure": "order"}, {"separate": True}])
@pytest.mark.parametrize("kind", ["first", "mean", "sum", "sum-mlp", "gated", "gru"])
def test_padding_changes_nothing(build, captions, preset, kind, options):
    """Beside a long caption and beside images with more regions, a short one has the same vector as alone."""
    shape = replace(SHAPES[preset], image_aggregation=kind, text_aggregation=kind, **options)
    model, inputs = build(shape)
    together = model.encode_texts(inputs.texts(captions))[0]
    for row, caption in enumerate(captions):
        torch.testing.assert_close(model.encode_texts(inputs.texts([caption]))[0][0], together[row], atol=1e-5, rtol=0)
    batch = dict(inputs.images(["3", "4"]))
    padded = {key: torch.cat([value, torch.full_like(value, 9)], 1) for key, value in batch.items() if key != "region_mask"}
    padded["region_mask"] = nn.functional.pad(batch["region_mask"], (0, 5))
    torch.testing.assert_close(model.encode_images(padded)[0], model.encode_images(batch)[0], atol=1e-5, rtol=0)
    assert (together[0] - together[1]).norm() > 1e-3


def test_counts_of_a_region_file_become_the_mask(tmp_path, build):
    import numpy as np

    from corpora.regions import Regions, RegionStore, RegionWriter

    generator = np.random.default_rng(0)
    with RegionWriter(tmp_path / "regions-some.h5", 2, regions=5) as writer:
        for name, regions in (("a", 2), ("b", 5)):
            writer.add(Regions(name, generator.random((regions, 8)), np.sort(generator.random((regions, 4)))))
    inputs = TernInputs(RegionStore(tmp_path / "regions-some.h5"), lambda texts: {})
    assert inputs.images(["a", "b"])["region_mask"].tolist() == [[True] * 2 + [False] * 3, [True] * 5]


@pytest.mark.parametrize("preset", SHAPES)
def test_scores_are_cosines_and_boxes_count(build, captions, preset):
    model, inputs = build(SHAPES[preset])
    images, texts = model.encode_images(inputs.images(["0", "1", "2"])), model.encode_texts(inputs.texts(captions))
    torch.testing.assert_close(images[0].norm(dim=1), torch.ones(3))
    scores = model.score(images, texts)
    torch.testing.assert_close(scores, nn.functional.cosine_similarity(images[0][:, None], texts[0][None], dim=-1))
    with torch.autocast("cpu", torch.bfloat16):
        assert model.score(images, texts).dtype == torch.float32
    batch = dict(inputs.images(["0", "1", "2"]))
    moved = {**batch, "boxes": batch["boxes"] * 0.5}
    assert (model.encode_images(moved)[0] - images[0]).abs().max() > 1e-4


def test_order_score_is_zero_where_the_image_has_all_of_the_text():
    shape = replace(SHAPES["paper"], measure="order")
    model = Tern(shape, 8, 6, None)
    image, text = torch.tensor([[3.0, 4.0, 1.0]]), torch.tensor([[1.0, 4.0, 0.0], [6.0, 8.0, 0.0]])
    assert model.score((image,), (text,)).tolist() == [[0.0, -5.0]]
    assert model.score_meaning == "minus the order violation"


def test_vectors_of_order_embeddings_are_the_absolute_values_of_those_of_cosine(build, captions):
    (order, inputs), (cosine, _) = (build(replace(SHAPES["paper"], measure=measure)) for measure in ("order", "cosine"))
    for encode, batch in (("encode_images", inputs.images(["0", "1"])), ("encode_texts", inputs.texts(captions))):
        (plain,) = getattr(cosine, encode)(batch)
        assert torch.equal(getattr(order, encode)(batch)[0], plain.abs()) and (plain < 0).any()


def test_order_scores_in_parts_are_those_of_the_whole(monkeypatch):
    model = Tern(replace(SHAPES["paper"], measure="order"), 8, 6, None)
    images, texts = torch.rand(7, 12), torch.rand(5, 12)
    whole = model.score((images,), (texts,))
    monkeypatch.setattr(tern, "AT_ONCE", 120)
    assert torch.equal(model.score((images,), (texts,)), whole)


def test_shared_layers_have_one_set_of_weights_unless_separate():
    together, apart = (Tern(replace(SHAPES["paper"], separate=separate), 8, 6, None) for separate in (False, True))
    assert count(apart) - count(together) == count(together.shared)


@pytest.mark.parametrize("side", ["image", "text"])
def test_aggregation_encoder_goes_past_the_shared_layers(build, captions, side):
    model, inputs = build(replace(SHAPES["paper"], **{f"{side}_aggregation": "encoder"}))
    encode = {
        "image": lambda: model.encode_images(inputs.images(["0"]))[0],
        "text": lambda: model.encode_texts(inputs.texts(captions))[0],
    }
    before = {key: run() for key, run in encode.items()}
    with torch.no_grad():
        for parameter in model.shared.parameters():
            parameter.add_(torch.randn_like(parameter))
    moved = {key: (run() - before[key]).abs().max().item() > 1e-3 for key, run in encode.items()}
    assert moved == {"image": side != "image", "text": side != "text"}
    with pytest.raises(ValueError, match="there are none; use mean"):
        replace(SHAPES["flickr"], text_aggregation="encoder")


@pytest.mark.parametrize("preset", SHAPES)
def test_what_is_saved_is_loaded(tmp_path, build, regions, captions, preset):
    model, inputs = build(replace(SHAPES[preset], relative=2), frozen=False)
    tern.save(model, inputs, tmp_path)
    again, inputs_again = tern.load(str(tmp_path), regions)
    for encode, batch in (("encode_images", "images"), ("encode_texts", "texts")):
        items = ["0", "5"] if batch == "images" else captions
        one, two = (getattr(m.eval(), encode)(getattr(i, batch)(items))[0] for m, i in ((model, inputs), (again, inputs_again)))
        assert torch.equal(one, two)


def test_a_checkpoint_of_other_regions_and_one_that_is_none_are_refused(tmp_path, build, regions):
    model, inputs = build(SHAPES["flickr"])
    with pytest.raises(ValueError, match="TERN cannot be read"):
        tern.load(str(tmp_path), regions)
    tern.save(model, inputs, tmp_path)
    whole = json.loads((tmp_path / tern.FILE).read_text())
    for damaged in ({**whole, "shape": {"depth": 3}}, {key: whole[key] for key in ("shape", "live")}, []):
        (tmp_path / tern.FILE).write_text(json.dumps(damaged))
        with pytest.raises(ValueError, match=r"TERN cannot be read \(tern.json is damaged or of another version"):
            tern.load(str(tmp_path), regions)
    (tmp_path / tern.FILE).write_text(json.dumps(whole))
    regions.width = 9
    with pytest.raises(ValueError, match=r"features are 9 wide, .* reads 8"):
        tern.load(str(tmp_path), regions)


def test_text_features_give_what_the_live_tower_gives(tmp_path, build, regions, captions):
    model, inputs = build(SHAPES["flickr"])
    made_by = tower_name(model.text, "scratch")
    write_text_features(tmp_path / "texts", model.text, made_by, [*captions, captions[0]])
    features = TextFeatures(tmp_path / "texts")
    assert features.width == model.text_width and features.made_by == made_by
    read = features([captions[3], captions[0]])
    live = inputs.texts([captions[3], captions[0]])
    assert torch.equal(read["attention_mask"].bool(), live["attention_mask"].bool())
    torch.testing.assert_close(model.encode_texts(read)[0], model.encode_texts(live)[0], atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="no features of the text 'never seen'"):
        features(["never seen"])

    alone, inputs_alone = tern.from_scratch(SHAPES["flickr"], regions, features)
    assert alone.text is None
    tern.save(alone, inputs_alone, tmp_path)
    with pytest.raises(ValueError, match="give --text-features"):
        tern.load(str(tmp_path), regions)
    again, _ = tern.load(str(tmp_path), regions, features)
    assert torch.equal(again.eval().encode_texts(read)[0], alone.eval().encode_texts(read)[0])
    with pytest.raises(ValueError, match="give it a batch with states"):
        alone.encode_texts(live)
    write_text_features(tmp_path / "others", model.text, "another tower", captions)
    with pytest.raises(ValueError, match="made by another tower"):
        tern.load(str(tmp_path), regions, TextFeatures(tmp_path / "others"))


def test_text_features_that_are_none_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no text features .*extract_texts"):
        TextFeatures(tmp_path)


def test_input_dropout_leaves_the_same_features_out_at_all_positions(build, monkeypatch):
    model, inputs = build(replace(SHAPES["flickr"], input_dropout=0.5))
    seen = []
    monkeypatch.setattr(
        model.regions,
        "forward",
        lambda features, boxes, mask: (
            seen.append(features),
            model.regions.__class__.forward(model.regions, features, boxes, mask),
        )[1],
    )
    batch = dict(inputs.images(["0", "1"])) | {"features": torch.ones(2, 5, 8)}
    model.train().encode_images(batch)
    model.eval().encode_images(batch)
    thinned, whole = seen
    assert (thinned == thinned[:, :1]).all() and set(thinned.unique().tolist()) == {0.0, 2.0}
    assert not torch.equal(thinned[0], thinned[1]) and torch.equal(whole, batch["features"])
