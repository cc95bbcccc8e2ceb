"""Sentences in, numbers of words out, and back."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from jaxtyping import Int64

PADDING, START, END, UNKNOWN = range(4)

SPECIALS = ("<padding>", "<start>", "<end>", "<unknown>")
"""The first numbers of every vocabulary."""

MOST_WORDS = 64
"""The longest sentence, in words and marks."""

MOST_KNOWN = 4096
"""The largest vocabulary; rarer words are unknown."""

_WORD = re.compile(r"\w+(?:[-'.,/]\w+)*|[^\w\s]")
_CLOSES = set(".,;:!?)]}%'\"")
_OPENS = set("([{")


@dataclass(frozen=True)
class Vocabulary:
    """The words a decoder can write; a word's place is its number.

    Attributes:
        words: `SPECIALS`, then the others.
    """

    words: tuple[str, ...]

    def __len__(self) -> int:
        """How many there are."""
        return len(self.words)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.words)}

    def encode(self, sentence: str) -> Int64[np.ndarray, " l"]:
        """Number a sentence's words, between `START` and `END`."""
        numbers = [self._numbers.get(word, UNKNOWN) for word in split_words(sentence)]
        return np.array([START, *numbers, END], np.int64)

    def decode(self, numbers: Int64[np.ndarray, " l"]) -> str:
        """Write words as a sentence; the special ones are left out."""
        return join_words([self.words[i] for i in numbers.tolist() if i >= len(SPECIALS)])


def build_vocabulary(sentences: Iterable[str]) -> Vocabulary:
    """Know every word of some sentences, the most frequent first."""
    counts = Counter(word for sentence in sentences for word in split_words(sentence))
    known = sorted(counts, key=lambda word: (-counts[word], word))
    return Vocabulary((*SPECIALS, *known[: MOST_KNOWN - len(SPECIALS)]))


def split_words(sentence: str) -> list[str]:
    """Split a sentence into words and marks; its first word loses its capital."""
    words: list[str] = _WORD.findall(sentence)
    if words and words[0][1:] == words[0][1:].lower():
        words[0] = words[0].lower()
    return words


def join_words(words: Sequence[str]) -> str:
    """Write words with spaces between, but for marks, and a capital at the front."""
    if not words:
        return ""
    text = words[0]
    for before, word in pairwise(words):
        glued = word in _CLOSES or before in _OPENS
        text += word if glued else f" {word}"
    return text[0].upper() + text[1:]
