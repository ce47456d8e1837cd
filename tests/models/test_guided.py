from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import ResNetConfig, ResNetModel

from corpora.regions import RegionStore, write_regions
from models import guided
from models.guided import DualEncoder, Siam, modulation
from models.image_trunk import ImageTrunk, Pixels
from models.scorer import open_scorer
from models.text_tower import load_text_tower
from models.tower_inputs import frozen_inputs
from ranking.engine import Engine
from ranking.matrix import Provenance

UNNAMED = Provenance("", "", "", "", "", "")
LINEAR = ("region", "alpha", "beta", "gamma", "image")


def small_trunk(frozen: bool = True) -> ImageTrunk:
    """A ResNet with BatchNorms; 5 x 5 places, of 24 channels, of a picture of 40 pixels."""
    sizes = {"embedding_size": 8, "hidden_sizes": [16, 24], "depths": [1, 1], "layer_type": "basic"}
    config = ResNetConfig(**sizes)
    return ImageTrunk(ResNetModel(config), Pixels(40), "small", config, frozen)


@pytest.fixture
def dual(captions) -> DualEncoder:
    torch.manual_seed(0)
    return DualEncoder(small_trunk(), load_text_tower("scratch", texts=captions, pool="first"), 32)


@pytest.fixture
def siam(dual) -> Siam:
    """Modulates strongly, so that a fault shows."""
    torch.manual_seed(1)
    model = Siam(dual.trunk, dual.tower, 32, 8)
    for layer in (model.alpha, model.beta, model.gamma):
        torch.nn.init.normal_(layer.weight, std=0.7)
        torch.nn.init.normal_(layer.bias, std=0.5)
    return model.eval()


@pytest.fixture
def corpus(pictures, regions) -> SimpleNamespace:
    return SimpleNamespace(images=pictures, regions=lambda name: regions)


def image_batch(images: int, counts: list[int] | None = None) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    regions = torch.randn(images, 5, 8, generator=generator)
    pixels = torch.randn(images, 3, 40, 40, generator=generator)
    return {"pixel_values": pixels, "regions": regions, "region_counts": torch.tensor(counts or [5] * images)}


def unit(rows: int, width: int = 32) -> torch.Tensor:
    return F.normalize(torch.randn(rows, width, generator=torch.Generator().manual_seed(4)), dim=1)


def modulated_map(model: Siam, pixels: torch.Tensor, regions: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """The whole map of one image, modulated for one text, word by word as the paper has it: (C, H, W)."""
    vectors = F.normalize(model.region(regions), dim=1)
    g = sum((vector @ text) * vector for vector in vectors)
    x = model.trunk(pixels[None])[0]
    by_row = torch.stack([model.alpha(g)[h] * x[:, h] for h in range(x.shape[1])], dim=1)
    by_column = torch.stack([model.beta(g)[w] * x[:, :, w] for w in range(x.shape[2])], dim=2)
    by_channel = torch.stack([model.gamma(g)[c] * x[c] for c in range(x.shape[0])])
    return x + by_row + by_column + by_channel


def slow_score(model: Siam, batch: dict[str, torch.Tensor], texts: torch.Tensor) -> torch.Tensor:
    scores = []
    for pixels, regions, count in zip(*batch.values(), strict=True):
        for text in texts:
            pooled = modulated_map(model, pixels, regions[:count], text).mean((1, 2))
            scores.append(F.cosine_similarity(model.image(F.normalize(pooled, dim=0)), text, dim=0))
    return torch.stack(scores).view(len(batch["regions"]), len(texts))


# SIAM's arithmetic


def test_the_mean_of_a_modulated_map_needs_only_row_and_column_means():
    torch.manual_seed(0)
    x, alpha, beta, gamma = torch.randn(2, 24, 5, 7), torch.randn(2, 3, 5), torch.randn(2, 3, 7), torch.randn(2, 3, 24)
    rows, columns = x.mean(3).mT, x.mean(2).mT
    factor = alpha[:, :, None, :, None] + beta[:, :, None, None, :] + gamma[..., None, None]
    torch.testing.assert_close(
        modulation(rows, columns, alpha, beta, gamma), (x[:, None] * factor).mean((3, 4)), atol=1e-6, rtol=0
    )


def test_scores_equal_the_full_map(siam):
    batch, texts = image_batch(4, [5, 2, 1, 4]), unit(6)
    with torch.no_grad():
        fast, slow = siam.score(siam.encode_images(batch), (texts,)), slow_score(siam, batch, texts)
    assert slow.std() > 0.05
    torch.testing.assert_close(fast, slow, atol=1e-5, rtol=0)


def test_gradients_equal_those_of_the_full_map(siam):
    batch, texts = image_batch(2, [5, 3]), unit(3)
    gradients = []
    for score in (siam.score(siam.encode_images(batch), (texts,)), slow_score(siam, batch, texts)):
        siam.zero_grad()
        score.square().sum().backward()
        gradients.append({name: value.grad.clone() for name, value in siam.named_parameters() if value.requires_grad})
    assert {name.split(".")[0] for name in gradients[0]} == set(LINEAR)
    for name in gradients[0]:
        torch.testing.assert_close(gradients[0][name], gradients[1][name], atol=1e-5, rtol=1e-3)


def test_what_is_ranked_is_the_vector_that_the_text_guides(siam):
    """The original ranked DE's image vectors: one for all texts, so that an image's scores are a linear function of t."""
    texts = unit(100)
    for strength, guides in ((1.0, True), (0.0, False)):
        with torch.no_grad():
            for layer in (siam.alpha, siam.beta, siam.gamma):
                layer.weight.mul_(strength)
            scores = siam.score(siam.encode_images(image_batch(1)), (texts,))[0]
        vector = torch.linalg.lstsq(texts, scores[:, None]).solution
        assert bool((texts @ vector - scores[:, None]).abs().max() > 1e-3) == guides


def test_an_image_does_not_depend_on_those_beside_it(siam):
    """The original's hook misaligned regions and images when one of them had fewer than 50."""
    batch = image_batch(5, [5, 1, 3, 5, 2])
    with torch.no_grad():
        together = siam.score(siam.encode_images(batch), (unit(4),))
        alone = [siam.score(siam.encode_images({k: v[i : i + 1] for k, v in batch.items()}), (unit(4),)) for i in range(5)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=0)


def test_what_stands_beyond_an_images_regions_does_not_count(siam):
    batch = image_batch(3, [2, 5, 1])
    other = {**batch, "regions": batch["regions"].clone()}
    other["regions"][0, 2:], other["regions"][2, 1:] = 9.0, -9.0
    with torch.no_grad():
        for a, b in zip(siam.encode_images(batch), siam.encode_images(other), strict=True):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


def test_half_precision_does_not_reach_the_scores(siam):
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        images = siam.encode_images(image_batch(3))
        scores = siam.score(images, (unit(4),))
    assert scores.dtype == images[0].dtype == torch.float32


# What learns


@pytest.mark.parametrize("frozen", [True, False])
def test_a_step_moves_what_learns_and_nothing_else(dual, frozen):
    """In the original the frozen ResNet's BatchNorm statistics moved with every batch."""
    siam = Siam(small_trunk(frozen), dual.tower, 32, 8)
    before = {name: value.clone() for name, value in siam.state_dict().items()}
    siam.train()
    optimizer = torch.optim.AdamW([value for value in siam.parameters() if value.requires_grad], lr=1e-2)
    siam.score(siam.encode_images(image_batch(4)), siam.encode_texts(siam.tower.tokens(["a dog", "the horse"]))).sum().backward()
    optimizer.step()
    after = siam.state_dict()
    moved = {name for name in before if not before[name].equal(after[name])}
    assert moved == {f"{layer}.{part}" for layer in LINEAR for part in ("weight", "bias")}
    assert any("running_mean" in name for name in before)


def test_the_text_side_of_siam_is_that_of_its_dual_encoder(dual):
    tokens = dual.tower.tokens(["a man on a horse", "a dog"])
    (expected,) = dual.eval().encode_texts(tokens)
    (found,) = guided.siam_over(dual, 8, dropout=0.5).train().encode_texts(tokens)
    torch.testing.assert_close(found, expected)


def test_siam_begins_as_its_dual_encoder_ranks(dual):
    """But for the normalisation before the image layer: pictures whose vectors are of one length are ranked the same."""
    batch, texts = image_batch(1), unit(6)
    model = guided.siam_over(dual.eval(), 8).eval()
    guided.start_as(model, dual, batch)
    with torch.no_grad():
        scores = model.score(model.encode_images(batch), (texts,))
        expected = dual.score(dual.encode_images(batch), (texts,))
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=0)


def test_siam_may_have_a_trunk_of_its_own(dual):
    other = small_trunk()
    model = guided.siam_over(dual, 8, other)
    for name, value in other.state_dict().items():
        assert value.equal(model.trunk.state_dict()[name])


def test_a_dual_encoders_score_is_the_cosine_of_projected_towers(dual):
    dual.eval()
    pixels, tokens = image_batch(3)["pixel_values"], dual.tower.tokens(["a dog", "the horse"])
    with torch.no_grad():
        scores = dual.score(dual.encode_images({"pixel_values": pixels}), dual.encode_texts(tokens))
        images, texts = dual.image(dual.trunk(pixels).mean((2, 3))), dual.text(dual.tower(tokens).states[:, 0])
    torch.testing.assert_close(scores, F.cosine_similarity(images[:, None], texts[None], dim=2), atol=1e-6, rtol=0)


# Inputs and checkpoints


def test_regions_come_by_image_id(siam, corpus, tmp_path):
    inputs = guided.with_regions(siam, guided.tower_inputs(siam, corpus), corpus, "")
    a, b = inputs.images(["3", "0", "5"]), inputs.images(["5", "3", "0"])
    for key in a:
        assert a[key][[2, 0, 1]].equal(b[key]), key


def test_images_with_fewer_regions(siam, corpus, tmp_path, pictures):
    random = np.random.default_rng(0)
    rows = [(str(i), random.normal(size=(1 + i % 3, 8)), np.sort(random.random((1 + i % 3, 4)))) for i in range(6)]
    write_regions(tmp_path / "regions-few.h5", rows, 6, regions=4)
    few = SimpleNamespace(images=pictures, regions=lambda name: RegionStore(tmp_path / "regions-few.h5"))
    batch = guided.with_regions(siam, guided.tower_inputs(siam, few), few, "").images(["0", "1", "2"])
    assert batch["region_counts"].tolist() == [1, 2, 3] and batch["regions"].shape == (3, 4, 8)


@pytest.mark.parametrize("kind", ["dual", "siam"])
def test_save_and_load(kind, request, corpus, tmp_path):
    model = request.getfixturevalue(kind).eval()
    guided.save(model, tmp_path)
    name, back, inputs = open_scorer(str(tmp_path), corpus)
    assert name == {"dual": "DE", "siam": "SIAM"}[kind] and type(back) is type(model)
    seen, read = inputs.images(["0", "4"]), inputs.texts(["a dog", "a red bus"])
    for one in (back.eval(), model):
        one.scores = one.score(one.encode_images(seen), one.encode_texts(read))
    torch.testing.assert_close(back.scores, model.scores)


def test_refused(siam, corpus, tmp_path):
    with pytest.raises(ValueError, match=r"guided\.json of a DE or SIAM cannot be read"):
        guided.load(str(tmp_path), corpus)
    guided.save(siam, tmp_path)
    with pytest.raises(ValueError, match="this checkpoint is a SIAM already"):
        guided.siam_over(siam, 8)
    told = json.loads((tmp_path / guided.FILE).read_text())
    (tmp_path / guided.FILE).write_text(json.dumps({**told, "size": 16}))
    with pytest.raises(ValueError, match="the weights are not those of this model"):
        guided.load(str(tmp_path), corpus)
    siam.region_width = 9
    with pytest.raises(ValueError, match="features are 8 wide, this SIAM reads 9; use the regions it was trained on"):
        guided.with_regions(siam, guided.tower_inputs(siam, corpus), corpus, "")


# How often a tower runs


class Counted:
    """Counts the rows that pass a module."""

    def __init__(self, module: torch.nn.Module, rows_of) -> None:
        self.rows = 0
        module.register_forward_hook(lambda _, inputs, __: setattr(self, "rows", self.rows + rows_of(inputs)))


@pytest.mark.parametrize("kind", ["dual", "siam"])
def test_each_image_and_caption_is_encoded_once_and_with_a_cache_once_in_all(kind, request, corpus, make_split, tmp_path):
    """The original encoded all images anew for every batch of texts."""
    model = request.getfixturevalue(kind)
    split = make_split(6, [{j % 6} for j in range(12)], [f"a dog and {j} birds" for j in range(12)])
    live = guided.tower_inputs(model, corpus)
    pictures = Counted(model.trunk, lambda inputs: len(inputs[0]))
    texts = Counted(model.tower, lambda inputs: len(inputs[0]["input_ids"]))
    first = Engine(model, guided.with_regions(model, live, corpus, ""), split, pair_batch=5).rank_in_memory(UNNAMED)
    assert (pictures.rows, texts.rows) == (6, 12)
    cached = frozen_inputs(live, model.trunk, model.tower, [split], tmp_path)
    for _ in range(2):
        again = Engine(model, guided.with_regions(model, cached, corpus, ""), split).rank_in_memory(UNNAMED)
        np.testing.assert_allclose(again.scores, first.scores, atol=1e-5)
    assert (pictures.rows, texts.rows) == (12, 24)
