"""What captions say: their words, objects, attributes and relations, by a tagger that comes whole with the package TextBlob.

The tagger is Brill's (1992), with his lexicon and rules; nothing is fetched. It was made for English newspapers, so tags of terse
captions are mostly right and those of another language are noise. Synonyms are not known to be such ("bike", "bicycle").
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*|\d+|,")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


COLOURS = _words(
    "red orange yellow green blue purple pink brown black white gray grey silver gold golden beige tan teal turquoise violet maroon"
)
SIZES = {
    "small": "small",
    "little": "small",
    "tiny": "small",
    "large": "large",
    "big": "large",
    "huge": "large",
    "giant": "large",
}
COUNTED = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
NUMBERS = {word: str(number) for number, word in enumerate(COUNTED, 1)}
SAME = SIZES | NUMBERS
"""Words that say the same -> one of them."""
SPATIAL = _words(
    "left right above below over under beneath underneath behind between beside near top bottom inside outside across around"
)
NEGATIONS = _words("no not without none nobody nothing never neither nor cannot")
RELATIONS = {
    ("left", "of"): ("left of", False),
    ("right", "of"): ("left of", True),
    ("above",): ("above", False),
    ("over",): ("above", False),
    ("on", "top", "of"): ("above", False),
    ("below",): ("above", True),
    ("under",): ("above", True),
    ("beneath",): ("above", True),
    ("underneath",): ("above", True),
    ("in", "front", "of"): ("in front of", False),
    ("behind",): ("in front of", True),
}
"""Phrase -> the relation, and whether it is the phrase's with its two sides exchanged."""
NO_OBJECTS = SPATIAL | _words(
    "picture photo photograph image view scene background foreground front back side middle center corner edge end group couple bunch "
    "pair lot lots number set piece row kind type part something someone anything thing things way shape shapes"
)
NO_ACTIONS = _words(
    "be am is are was were been being have has had having do does did stand stands standing sit sits sitting see sees seen show shows "
    "shown showing"
)
KINDS = {
    "person": _words("man woman boy girl child kid toddler babi ladi guy player rider skier surfer"),
    "child": _words("boy girl kid toddler babi"),
    "man": _words("guy"),
    "woman": _words("ladi"),
    "anim": _words("dog cat hors cow sheep bird eleph zebra giraff bear puppi kitten"),
}
"""What a thing is besides its name, as stems. No more synonyms are known than these."""


@dataclass(frozen=True)
class Meaning:
    """What a caption says, or several together; words are reduced to their stems."""

    content: frozenset[str] = frozenset()
    """Nouns, verbs and adjectives. No numbers: captions of one image seldom repeat them."""
    objects: frozenset[str] = frozenset()
    """Nouns that name a thing."""
    attributes: frozenset[tuple[str, str]] = frozenset()
    """(colour, size or number, object)."""
    relations: frozenset[tuple[str, str, str]] = frozenset()
    """(thing, relation, thing): a thing is an object with its colours."""

    @classmethod
    def together(cls, meanings: Iterable[Meaning]) -> Meaning:
        """All that these say."""
        fields = zip(*((m.content, m.objects, m.attributes, m.relations) for m in meanings), strict=True)
        return cls(*(frozenset().union(*field) for field in fields))


def with_kinds(meaning: Meaning) -> Meaning:
    """With the kinds of the things it names: a picture of a boy is one of a child and of a person."""
    kinds = frozenset(kind for kind, names in KINDS.items() if names & meaning.objects)
    return replace(meaning, content=meaning.content | kinds, objects=meaning.objects | kinds)


@dataclass(frozen=True)
class Reading:
    """One caption: its words in lower case with their Penn Treebank tags, and what it says."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    meaning: Meaning

    def count(self, tag: str) -> int:
        """How many words have a tag that starts so."""
        return sum(own.startswith(tag) for own in self.tags)


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, and its numbers; no punctuation."""
    return [word for word in WORD.findall(text.lower()) if word != ","]


def read(texts: Sequence[str]) -> tuple[Reading, ...]:
    """Read each text. A text without a word says nothing."""
    tagged = _tagger()
    done: dict[str, Reading] = {}
    for text in texts:
        if text not in done:
            done[text] = _reading(tagged(WORD.findall(text.lower())))
    return tuple(done[text] for text in texts)


@cache
def _tagger() -> Callable[[list[str]], list[list[str]]]:
    """Tags of words in their order. TextBlob takes seconds to import, so it is imported here."""
    from textblob.en import parser

    tags: Callable[[list[str]], list[list[str]]] = parser.find_tags
    return tags


def known(word: str) -> bool:
    """Whether the tagger's lexicon, of 94,000 English words, has the word."""
    from textblob.en import lexicon

    return word in lexicon or word.capitalize() in lexicon


def _reading(tagged: Sequence[Sequence[str]]) -> Reading:
    words, tags = [word for word, _ in tagged], [tag for _, tag in tagged]
    for i in range(1, len(tags)):
        if tags[i] in ("VB", "VBP") and tags[i - 1].startswith("JJ"):  # "a red cross" is no verb
            tags[i] = "NN"
    spoken = [i for i, word in enumerate(words) if word != ","]
    return Reading(tuple(words[i] for i in spoken), tuple(tags[i] for i in spoken), _meaning(words, tags))


def _meaning(words: list[str], tags: list[str]) -> Meaning:
    things = list(_things(words, tags))
    said = (
        stem(SAME.get(word, word), tag)
        for word, tag in zip(words, tags, strict=True)
        if tag[:2] in ("NN", "VB", "JJ")
        and attribute_kind(word) != "number"
        and word not in NO_OBJECTS | NO_ACTIONS | NEGATIONS
        and "'" not in word
    )
    return Meaning(
        frozenset(said),
        frozenset(name for thing in things for name in thing.names),
        frozenset((attribute, name) for thing in things for attribute in thing.attributes for name in thing.names),
        frozenset(_relations(words, things)),
    )


@dataclass(frozen=True)
class _Thing:
    """A run of nouns with the attributes before it. They are taken for those of each: "jumps" of "a black dog jumps" passes for a noun."""

    start: int
    """Place of its first noun among the words."""
    names: tuple[str, ...]
    attributes: tuple[str, ...]

    @property
    def looks(self) -> str:
        return " ".join((*sorted(COLOURS.intersection(self.attributes)), self.names[-1]))


def _things(words: list[str], tags: list[str]) -> Iterator[_Thing]:
    attributes: list[str] = []
    names: list[str] = []
    for i, (word, tag) in enumerate(zip([*words, ","], [*tags, ","], strict=True)):
        noun = tag.startswith("NN") and word not in NO_OBJECTS and attribute_kind(word) in ("", "colour")
        colour_before_noun = attribute_kind(word) == "colour" and tags[i + 1 : i + 2] and tags[i + 1][:2] in ("NN", "VB", "JJ")
        if noun and not colour_before_noun:
            names.append(stem(word, tag))
            continue
        if names:
            yield _Thing(i - len(names), tuple(names), tuple(attributes))
            names, attributes = [], []
        if attribute_kind(word):
            attributes.append(SAME.get(word, word))
        elif not (tag.startswith(("JJ", "VBN", "VBG")) or (word in ("and", ",") and attributes)):
            attributes = []


def attribute_kind(word: str) -> str:
    """colour, size, number, or nothing."""
    if word in COLOURS:
        return "colour"
    return "size" if word in SIZES else "number" if word in NUMBERS or word.isdigit() else ""


def _relations(words: list[str], things: list[_Thing]) -> Iterator[tuple[str, str, str]]:
    """After "and", a relation is of the same thing as the one before: "a cat under a table and behind a chair"."""
    phrases = {i: found for i in range(len(words)) if (found := _relation_at(words, i))}
    starts = {thing.start: thing for thing in things}
    subject, last, pending = "", "", None
    for i in sorted({*phrases, *starts}):
        if i in phrases:
            subject = subject if i and words[i - 1] == "and" else last
            pending = phrases[i]
            continue
        last = starts[i].looks
        if pending and subject:
            relation, exchanged = pending
            yield (last, relation, subject) if exchanged else (subject, relation, last)
        else:
            subject = last
        pending = None


def _relation_at(words: list[str], i: int) -> tuple[str, bool] | None:
    return next((found for phrase, found in RELATIONS.items() if tuple(words[i : i + len(phrase)]) == phrase), None)


@cache
def stem(word: str, tag: str) -> str:
    """A plural noun's singular, then the Porter stem: men -> man, riding -> ride."""
    from nltk.stem.snowball import EnglishStemmer
    from textblob.en.inflect import singularize

    stemmed: str = EnglishStemmer().stem(singularize(word) if tag == "NNS" else word)
    return stemmed


def caption_counts(texts: Iterable[str]) -> Counter[str]:
    """In how many of the texts each word stands."""
    return Counter(word for text in texts for word in set(words_of(text)))
