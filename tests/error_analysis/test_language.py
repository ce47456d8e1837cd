from __future__ import annotations

import pytest

from error_analysis.language import Meaning, Reading, attribute_kind, caption_counts, known, read, stem, with_kinds, words_of


def reading(text: str) -> Reading:
    return read([text])[0]


def test_words_are_lower_case_without_punctuation():
    assert words_of("A man, 2 DOGS' toys -- isn't it? Ein Hund läuft; 犬.") == [
        *("a", "man", "2", "dogs", "toys", "isn't", "it", "ein", "hund", "läuft", "犬"),
    ]


def test_a_caption_is_read_as_objects_with_attributes_and_relations():
    found = reading("A large red cross is to the left of an orange ring and above two small blue squares.").meaning
    assert found.objects == {"cross", "ring", "squar"}
    assert found.attributes == {
        *(("large", "cross"), ("red", "cross"), ("orange", "ring")),
        *(("2", "squar"), ("small", "squar"), ("blue", "squar")),
    }
    assert found.relations == {("red cross", "left of", "orange ring"), ("red cross", "above", "blue squar")}
    assert found.content == {"larg", "red", "cross", "orang", "ring", "small", "blue", "squar"}


def test_opposite_relations_are_one_with_its_sides_exchanged():
    below = reading("a cat under a table").meaning.relations
    assert below == reading("a table over a cat").meaning.relations == {("tabl", "above", "cat")}
    assert reading("a dog behind a tree").meaning.relations == reading("a tree in front of a dog").meaning.relations
    assert reading("a cup on top of a book").meaning.relations == {("cup", "above", "book")}


def test_a_new_clause_has_a_subject_of_its_own():
    assert reading("a cat left of a dog and a cow above a horse").meaning.relations == {
        ("cat", "left of", "dog"),
        ("cow", "above", "hors"),
    }


def test_words_that_say_the_same_are_one():
    assert reading("2 big dogs").meaning == reading("two large dogs").meaning
    assert reading("men riding").meaning.content == reading("man rides").meaning.content


def test_numbers_and_empty_nouns_are_no_content():
    found = reading("a picture of three shapes and one of them is a star").meaning
    assert found.content == found.objects == {"star"}


def test_a_colour_before_a_noun_is_an_attribute_and_joined_ones_are_both():
    found = reading("a black and white dog").meaning
    assert found.objects == {"dog"}
    assert found.attributes == {("black", "dog"), ("white", "dog")}
    assert not reading("the dog is black and a cat sleeps").meaning.attributes & {("black", "cat")}


def test_a_text_without_words_says_nothing():
    for text in ("", "  ", "...", "!?"):
        assert reading(text) == Reading((), (), Meaning())


def test_tags_belong_to_the_words_without_commas():
    found = reading("A red, shiny ball")
    assert found.words == ("a", "red", "shiny", "ball")
    assert found.tags == ("DT", "JJ", "JJ", "NN")
    assert found.count("JJ") == 2
    assert found.count("VB") == 0


def test_a_noun_that_the_tagger_takes_for_a_verb_after_an_adjective():
    assert reading("a red cross").tags == ("DT", "JJ", "NN")


def test_readings_stand_in_the_order_of_the_texts():
    texts = ["a cat", "a dog", "a cat"]
    assert [found.words[1] for found in read(texts)] == ["cat", "dog", "cat"]


def test_together_and_kinds():
    both = Meaning.together(found.meaning for found in read(["a red ball", "a boy"]))
    assert both.objects == {"ball", "boy"}
    assert both.attributes == {("red", "ball")}
    assert Meaning.together([]) == Meaning()
    assert with_kinds(both).objects == {"ball", "boy", "child", "person"}
    assert with_kinds(both).content == both.content | {"child", "person"}
    assert with_kinds(read(["a ball"])[0].meaning).objects == {"ball"}


@pytest.mark.parametrize(
    ("word", "kind"), [("grey", "colour"), ("tiny", "size"), ("seven", "number"), ("12", "number"), ("tall", ""), ("dog", "")]
)
def test_attribute_kinds(word: str, kind: str):
    assert attribute_kind(word) == kind


def test_stems():
    assert (stem("children", "NNS"), stem("riding", "VBG"), stem("bus", "NN")) == ("child", "ride", "bus")


def test_known_words():
    assert known("zebra")
    assert known("american")  # in the lexicon as a name
    assert not known("giaraffe")


def test_captions_that_have_a_word():
    assert caption_counts(["A dog and a dog", "a cat"]) == {"a": 2, "dog": 1, "and": 1, "cat": 1}
