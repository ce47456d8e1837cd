"""Opens checkpoints. What transformers passes over in silence or says in a page is one clear error here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

Model = TypeVar("Model", bound=PreTrainedModel)


@contextmanager
def one_error(checkpoint: str, part: str) -> Iterator[None]:
    """Turns a failure to read part of a checkpoint into a ValueError of one line."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = str(error).partition("\n")[0].rstrip(".") or type(error).__name__
        raise ValueError(
            f"{checkpoint}: {part} cannot be read ({reason}). A checkpoint is a folder that save_pretrained wrote, or a name on "
            "the Hugging Face hub; without a network, one that was fetched before"
        ) from error


def check_folder(checkpoint: str) -> None:
    """ValueError for what can only be meant as a folder, not as a name on the hub, and is none."""
    if (checkpoint.startswith((".", "/")) or checkpoint.count("/") > 1) and not Path(checkpoint).is_dir():
        raise ValueError(f"{checkpoint}: no such folder")


def read_config(checkpoint: str, model_type: str) -> PreTrainedConfig:
    """The configuration of a checkpoint; ValueError if there is none or it is of another model type."""
    check_folder(checkpoint)
    with one_error(checkpoint, "configuration"):
        config = AutoConfig.from_pretrained(checkpoint)
    if config.model_type != model_type:
        raise ValueError(f"{checkpoint}: a {config.model_type} checkpoint; {model_type} is needed")
    return config


def read_model(
    architecture: type[Model], checkpoint: str, config: PreTrainedConfig, optional: str = ""
) -> tuple[Model, list[str]]:
    """The model, and which weights with the prefix `optional` the checkpoint lacks. Any other missing weight is a ValueError."""
    with one_error(checkpoint, "weights"):
        model, report = architecture.from_pretrained(checkpoint, config=config, output_loading_info=True)
    absent = sorted(report["missing_keys"])
    needed = [key for key in absent if not (optional and key.startswith(optional))]
    if needed:
        raise ValueError(f"{checkpoint}: {len(needed)} weights are missing and would be random, the first: {needed[0]}")
    return model, absent


def read_tokenizer(checkpoint: str, vocabulary: int) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint whose model has embeddings for `vocabulary` tokens.

    Without its files transformers makes up a tokenizer that knows no word, and every text becomes [UNK].
    """
    with one_error(checkpoint, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise ValueError(
            f"{checkpoint}: holds no tokenizer; copy the tokenizer files of the model it was trained from beside the weights"
        )
    if len(tokenizer) > vocabulary:
        raise ValueError(
            f"{checkpoint}: the tokenizer has {len(tokenizer)} tokens and the model only {vocabulary}; they are of two models"
        )
    return tokenizer
