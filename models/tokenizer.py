"""Texts to tokens, the same way for every model; and a WordPiece tokenizer learned from a corpus's own captions, for models
that start from scratch without a network."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from models.protocols import Batch

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
"""In the order of their ids. [SEP] must not be 2: transformers' CLIP takes an end of text of 2 for an old, wrong configuration."""


def tokenize(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int) -> Batch:
    """`input_ids` and `attention_mask` (T, L), padded on the right to the longest.

    A longer text than the model has positions loses its end, never the end-of-text token that CLIP reads. A text that spells
    out a special token ("<|endoftext|>", "[SEP]") is read as plain text.
    """
    encoded = tokenizer(
        list(texts),
        padding=True,
        padding_side="right",
        truncation=True,
        max_length=max_length,
        split_special_tokens=True,
        return_tensors="pt",
    )
    return {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}


def learn_tokenizer(texts: Sequence[str], vocabulary: int = 8000) -> PreTrainedTokenizerFast:
    """Lower-cased WordPiece over `texts`, in BERT's frame ([CLS] ... [SEP]); [SEP] also serves as CLIP's end of text.

    The same texts give the same ids in every process and on every restart.
    """
    tokenizer = _empty({token: number for number, token in enumerate(SPECIAL)})
    # The trainer numbers the pieces of one letter in the order of a hash table, another one in every process. Named
    # beforehand they keep their places; that they then count as special ends with the trainer's own tokenizer.
    letters = sorted({letter for text in texts for letter in tokenizer.normalizer.normalize_str(text) if not letter.isspace()})
    first = SPECIAL + letters + [f"##{letter}" for letter in letters]
    tokenizer.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=vocabulary, special_tokens=first, show_progress=False)
    )
    learned = _empty(tokenizer.get_vocab())
    frame = [(token, learned.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    learned.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=frame)
    return PreTrainedTokenizerFast(
        tokenizer_object=learned,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        bos_token="[CLS]",
        eos_token="[SEP]",
    )


def _empty(ids: dict[str, int]) -> Tokenizer:
    """Lower-casing WordPiece with this vocabulary and no frame."""
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer
