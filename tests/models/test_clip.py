from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import BertConfig, CLIPConfig, CLIPModel, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from corpora.images import ImageStore, write_images
from models import clip
from models.clip import Clip, ClipInputs, ClipShape

SMALL = ClipShape(image_size=32, patch=8, width=32, layers=2, heads=4, projection=16)


@pytest.fixture
def small(pictures, tokenizer) -> tuple[Clip, ClipInputs]:
    torch.manual_seed(0)
    model, inputs = clip.from_scratch(SMALL, pictures, tokenizer)
    return model.eval(), inputs


@torch.inference_mode()
def test_scores_equal_transformers_logits(small, captions):
    model, inputs = small
    pixels, tokens = inputs.images(["0", "1", "4"]), inputs.texts(captions)
    expected = CLIPModel.forward(model, **tokens, **pixels).logits_per_image
    scores = model.score(model.encode_images(pixels), model.encode_texts(tokens))
    assert scores.shape == (3, 6) and scores.std() > 0.1
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_padding_does_not_change_a_score(small, captions):
    model, inputs = small
    together = model.encode_texts(inputs.texts(captions))[0]
    alone = torch.cat([model.encode_texts(inputs.texts([text]))[0] for text in captions])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)


@torch.inference_mode()
def test_autocast_does_not_round_the_scores(small, captions):
    model, inputs = small
    pixels, tokens = inputs.images(["0", "1", "4"]), inputs.texts(captions)
    with torch.autocast("cpu", torch.bfloat16):
        (images,), (texts,) = model.encode_images(pixels), model.encode_texts(tokens)
        scores = model.score((images,), (texts,))
    assert scores.dtype == images.dtype == texts.dtype == torch.float32
    torch.testing.assert_close(scores, model.logit_scale.exp() * images @ texts.T, atol=1e-5, rtol=0)
    torch.testing.assert_close(images.norm(dim=1), torch.ones(3))


def test_the_published_model_has_its_number_of_parameters():
    with torch.device("meta"):
        model = Clip(CLIPConfig())
    assert sum(parameter.numel() for parameter in model.parameters()) == 151_277_313
    vision = model.config.vision_config
    assert (vision.image_size, vision.patch_size, model.config.projection_dim) == (224, 32, 512)
    assert model.config.text_config.max_position_embeddings == clip.CONTEXT


def test_the_model_never_sees_a_negative(pictures: ImageStore, tmp_path):
    """lxmert_clip_tiir stored floats of 0 to 255, and the image processor of its day multiplied them by 255 once more."""
    pixels = np.random.default_rng(7).integers(1, 255, (40, 50, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "file.png")
    write_images(tmp_path / "one.h5", [("a", (tmp_path / "file.png").read_bytes())])
    store, processor = ImageStore(tmp_path / "one.h5"), CLIPImageProcessorPil()
    from_store, from_file = np.asarray(store.picture("a")), np.asarray(Image.open(tmp_path / "file.png"))
    assert from_store.dtype == np.uint8 and np.array_equal(from_store, from_file)

    def processed(image: object) -> torch.Tensor:
        return processor(image, return_tensors="pt")["pixel_values"]

    seen = ClipInputs(None, processor, store, 77).images(["a"])["pixel_values"]
    assert torch.equal(seen, processed(Image.open(tmp_path / "file.png")))
    floats = from_file.astype(np.float32)
    old_way = (floats * 255).astype(np.uint8)  # what transformers 4.11.2 did to a float array
    assert np.array_equal(old_way, 256 - from_file.astype(int))  # a photographic negative
    assert (seen - processed(old_way)).abs().mean() > 0.5
    correlation = np.corrcoef(seen.flatten(), processed(old_way).flatten())[0, 1]
    assert correlation < -0.9
    # The processor of today guesses as well: shares are divided by 255 a second time, fractions of 255 refused.
    assert (seen - processed(floats / 255)).abs().mean() > 0.5
    with pytest.raises(ValueError, match="outside the range"):
        processed(floats + 0.5)


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "RGBA", "LA", "I;16"])
def test_pictures_of_every_mode(tmp_path, tokenizer, mode: str):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    grey = Image.fromarray(pixels).convert("L")
    picture = (
        Image.fromarray(np.asarray(grey).astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(pixels).convert(mode)
    )
    file = io.BytesIO()
    picture.save(file, "TIFF")
    write_images(tmp_path / "images.h5", [("a", file.getvalue())])
    _, inputs = clip.from_scratch(SMALL, ImageStore(tmp_path / "images.h5"), tokenizer)
    seen = inputs.images(["a"])["pixel_values"]
    expected = inputs.processor((grey if mode == "I;16" else picture).convert("RGB"), return_tensors="pt")["pixel_values"]
    assert seen.shape == (1, 3, 32, 32) and seen.dtype == torch.float32 and torch.isfinite(seen).all()
    torch.testing.assert_close(seen, expected, atol=0.02, rtol=0)


def test_a_batch_of_pictures_of_different_shapes(small):
    seen = small[1].images([str(i) for i in range(6)])["pixel_values"]
    assert seen.shape == (6, 3, 32, 32)
    assert torch.equal(seen[[5]], small[1].images(["5"])["pixel_values"])


def test_a_long_text_keeps_the_end_token_that_is_read(small, tokenizer):
    model, inputs = small
    batch = inputs.texts(["a dog and a horse " * 40, "a dog"])
    assert batch["input_ids"].shape == (2, 77)
    assert batch["input_ids"][0, -1] == tokenizer.eos_token_id
    assert torch.isfinite(model.encode_texts(batch)[0]).all()


def openai_tokenizer() -> CLIPTokenizer:
    """CLIP's own kind of tokenizer over single letters."""
    letters = [chr(code) for code in range(33, 127)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: number for number, token in enumerate(tokens)}, merges=[])


@pytest.mark.parametrize("ending", ["[SEP]", "<|endoftext|>"])
@torch.inference_mode()
def test_a_text_cannot_end_itself(pictures, tokenizer, ending: str):
    """CLIP reads a sentence from its first end-of-text token: one spelled out in a caption would hide the rest."""
    one = tokenizer if ending == "[SEP]" else openai_tokenizer()
    model, inputs = clip.from_scratch(SMALL, pictures, one)
    batch = inputs.texts([f"a dog {ending} on a horse", f"a dog {ending} on a roof", ""])
    assert (batch["input_ids"][:2] == one.eos_token_id).sum(1).tolist() == [1, 1 if ending == "[SEP]" else padded(batch, one)]
    assert batch["input_ids"][2, :2].tolist() == [one.bos_token_id, one.eos_token_id]
    states = model.eval().encode_texts(batch)[0]
    assert (states[0] - states[1]).abs().max() > 1e-3


def padded(batch: dict[str, torch.Tensor], tokenizer: CLIPTokenizer) -> int:
    """OpenAI's tokenizer pads with the end-of-text token: how often the second row may hold it."""
    assert tokenizer.pad_token == tokenizer.eos_token
    return 1 + int((batch["attention_mask"][1] == 0).sum())


@torch.inference_mode()
def test_a_saved_model_comes_back_whole(tmp_path, small, pictures, captions):
    model, inputs = small
    clip.save(model, inputs, tmp_path / "saved")
    again, inputs_again = clip.load(str(tmp_path / "saved"), pictures)
    texts = (*captions, "a man [SEP] horse", "", "dog " * 100)
    assert torch.equal(inputs.images(["0", "3"])["pixel_values"], inputs_again.images(["0", "3"])["pixel_values"])
    assert torch.equal(inputs.texts(texts)["input_ids"], inputs_again.texts(texts)["input_ids"])
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    scores = [
        m.eval().score(m.encode_images(i.images(["0"])), m.encode_texts(i.texts(texts)))
        for m, i in ((model, inputs), (again, inputs_again))
    ]
    torch.testing.assert_close(*scores, atol=1e-5, rtol=0)
    assert CLIPModel.from_pretrained(tmp_path / "saved")  # transformers itself reads it


def test_what_cannot_be_loaded_is_one_clear_error(tmp_path, small, pictures):
    model, inputs = small
    clip.save(model, inputs, tmp_path / "saved")
    weights = {name: value for name, value in model.state_dict().items() if not name.startswith("visual_projection")}
    model.save_pretrained(tmp_path / "saved", state_dict=weights)
    with pytest.raises(ValueError, match=r"1 weights are missing and would be random, the first: visual_projection\.weight"):
        clip.load(str(tmp_path / "saved"), pictures)
    model.save_pretrained(tmp_path / "saved")
    (tmp_path / "saved" / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match="image processor cannot be read"):
        clip.load(str(tmp_path / "saved"), pictures)
    BertConfig().save_pretrained(tmp_path / "bert")
    with pytest.raises(ValueError, match="a bert checkpoint; clip is needed"):
        clip.load(str(tmp_path / "bert"), pictures)


@pytest.mark.parametrize("wrong", [{"width": 30, "heads": 4}, {"image_size": 100, "patch": 12}])
def test_a_shape_that_cannot_be_built_is_one_clear_error(wrong):
    with pytest.raises(ValueError, match="the heads must divide the width, and patches the image"):
        ClipShape(**wrong)
