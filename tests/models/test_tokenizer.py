from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from models.tokenizer import SPECIAL, learn_tokenizer

TEXTS = ["A man on a horse.", "two birds, one roof", "a HORSE and a bird", "crème brûlée", "3 men at 10:45"]


def pieces(tokenizer, text: str) -> list[str]:
    return tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"])


def test_a_text_comes_back_in_lower_case_and_without_accents():
    tokenizer = learn_tokenizer(TEXTS)
    for text, read in (("A man on a HORSE.", "a man on a horse."), ("Crème brûlée", "creme brulee")):
        assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == read


@given(st.lists(st.sampled_from(["man", "horse", "birds", "two", "roof"]), max_size=8))
def test_words_come_back(words: list[str]):
    tokenizer = LEARNED
    assert tokenizer.decode(tokenizer(" ".join(words))["input_ids"], skip_special_tokens=True) == " ".join(words)


LEARNED = learn_tokenizer(TEXTS)


def test_special_tokens_and_their_ids():
    assert [LEARNED.convert_tokens_to_ids(token) for token in SPECIAL] == [0, 1, 2, 3, 4]
    assert (LEARNED.pad_token, LEARNED.unk_token, LEARNED.cls_token, LEARNED.sep_token) == ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
    assert (LEARNED.bos_token_id, LEARNED.eos_token_id) == (2, 3)  # 2 as end of text would send transformers' CLIP the old way
    assert set(LEARNED.all_special_tokens) == set(SPECIAL)
    assert pieces(LEARNED, "a man") == ["[CLS]", "a", "man", "[SEP]"]
    assert pieces(LEARNED, "") == ["[CLS]", "[SEP]"]
    batch = LEARNED(["a", "a man on a horse"], padding=True)
    assert batch["input_ids"][0][3:] == [0, 0, 0, 0] and batch["attention_mask"][0] == [1, 1, 1, 0, 0, 0, 0]


def test_unknown_words_are_spelled_and_unknown_letters_are_unknown():
    assert "[UNK]" not in pieces(LEARNED, "horseman nestor")  # never seen, but all their letters were
    assert pieces(LEARNED, "a q man 猫") == ["[CLS]", "a", "[UNK]", "man", "[UNK]", "[SEP]"]


def test_the_vocabulary_is_as_large_as_allowed():
    words = [f"{a}{b}{c}" for a in "abcdef" for b in "ghijkl" for c in "mnopqr"]
    assert len(learn_tokenizer(words, vocabulary=120)) == 120
    assert sorted(learn_tokenizer(words, 120).get_vocab().values()) == list(range(120))


@pytest.mark.parametrize("text", ["a man [SEP] horse", "[PAD][CLS]", "two [MASK] birds"])
def test_special_tokens_in_a_text_can_be_read_as_plain_text(text: str):
    tokens = LEARNED.convert_ids_to_tokens(LEARNED(text, split_special_tokens=True)["input_ids"])
    assert [token for token in tokens if token in SPECIAL and token != "[UNK]"] == ["[CLS]", "[SEP]"]
    assert len(pieces(LEARNED, text)) < len(tokens)  # without the switch they would come in


def test_every_process_learns_the_same_ids():
    """The trainer's hash tables differ from process to process: ids that differ between ranks would ruin a run in silence."""
    program = (
        "from models.tokenizer import learn_tokenizer; import random; random.seed(0);"
        "words = [''.join(random.choices('abcdefghijklmnopqrstuvwxyz', k=4)) for _ in range(400)];"
        "t = learn_tokenizer([' '.join(random.choices(words, k=9)) for _ in range(500)], 900);"
        "print(sorted(t.get_vocab().items()), t('abcd zyxw')['input_ids'])"
    )
    learned = {
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env={**os.environ}).stdout
        for _ in range(3)
    }
    assert len(learned) == 1 and len(learned.pop()) > 9000


def test_a_saved_tokenizer_reads_the_same(tmp_path):
    LEARNED.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    for text in (*TEXTS, "nestor 猫", "[SEP] in it", ""):
        for plain in (True, False):
            assert again(text, split_special_tokens=plain)["input_ids"] == LEARNED(text, split_special_tokens=plain)["input_ids"]
    assert again.get_vocab() == LEARNED.get_vocab() and again.special_tokens_map == LEARNED.special_tokens_map
