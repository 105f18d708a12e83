"""The vocabulary of a dataset: its characters, and the encoding of labels.

Each character of the dataset is a class, numbered in the order of `dataset_info.character_set`; then follow ``<EOS>``,
``<PAD>`` and ``<BLANK>``, wherever the dataset lists them. A label is encoded as its characters from left to right,
``<EOS>``, then ``<PAD>``. ``<BLANK>`` is for CTC only and never part of a label.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import groupby
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

KHMER_DIGITS = "០១២៣៤៥៦៧៨៩"
DEFAULT_MAX_LENGTH = 8
MAX_CHARACTERS = 500  # with the special symbols, the limit of `vocab_size` in `search_spaces/experiments/schema.py`
MAX_LABEL_LENGTH = 24  # with <EOS>, the limit of `max_sequence_length` there
SPECIAL_SYMBOLS = ("<EOS>", "<PAD>", "<BLANK>")

Labels = npt.NDArray[np.int16]
"""Encoded labels, ``(N, L)`` for N samples and L label positions."""

_JOINERS = "\u200c\u200d"
_VIRAMA_CLASS = 9  # joins the letters before and after it, for example the Khmer coeng in ក្ក
_MAX_SHOWN = 40


class SpecialIndices(NamedTuple):
    """The class numbers of the special symbols: the last three classes."""

    eos: int
    pad: int
    blank: int

    @classmethod
    def of(cls, vocab_size: int) -> SpecialIndices:
        """Return the special classes among `vocab_size` classes."""
        return cls(*range(vocab_size - len(SPECIAL_SYMBOLS), vocab_size))


@dataclass(frozen=True)
class Vocabulary:
    """The characters that labels consist of, and the maximum number of characters in a label.

    Attributes:
        characters: Unique characters in NFC, in class order, 1 to `MAX_CHARACTERS`: code points or grapheme clusters.
        max_length: Maximum number of characters in a label, 1 to `MAX_LABEL_LENGTH`.
    """

    characters: tuple[str, ...] = tuple(KHMER_DIGITS)
    max_length: int = DEFAULT_MAX_LENGTH

    @property
    def size(self) -> int:
        """Number of classes, `TrainingConfig.vocab_size`: the characters and the special symbols."""
        return len(self.characters) + len(SPECIAL_SYMBOLS)

    @property
    def positions(self) -> int:
        """Number of label positions L, `TrainingConfig.max_sequence_length`: the characters and ``<EOS>``."""
        return self.max_length + 1

    @property
    def sizes(self) -> dict[str, int]:
        """The fields of `TrainingConfig` that this vocabulary determines."""
        return {"vocab_size": self.size, "max_sequence_length": self.positions}

    @cached_property
    def special(self) -> SpecialIndices:
        """The classes of the special symbols."""
        return SpecialIndices.of(self.size)

    def __str__(self) -> str:
        """Return the first characters, for messages."""
        shown = self.characters[:_MAX_SHOWN]
        rest = len(self.characters) - len(shown)
        text = ("" if all(len(character) == 1 for character in shown) else " ").join(shown)
        return f"{text} and {rest} more" if rest else text

    def split(self, text: str) -> list[str]:
        """Split a text into characters of this vocabulary, the longest first, and code points that it lacks."""
        return self._pattern.findall(unicodedata.normalize("NFC", text))

    def unknown(self, characters: Iterable[str]) -> list[str]:
        """Return the characters that this vocabulary lacks, each once."""
        return sorted(set(characters) - self._class_of.keys())

    def label_problem(self, text: str) -> str | None:
        """Return why `text` is not a label of this vocabulary, with the remedy; None if it is one."""
        characters = self.split(text)
        if not characters:
            return f"found an empty label; expected 1 to {self.max_length} of the characters {self}; write the text"
        if unknown := self.unknown(characters):
            listed = ", ".join(map(code_point_text, unknown[:5]))
            remedy = "correct the label, or add the missing characters to dataset_info.character_set"
            if in_own_digits := self._in_own_digits(characters):
                remedy = f"write {in_own_digits!r}"
            return f"found {text!r} with {listed}; expected only the characters {self}; {remedy}"
        if len(characters) > self.max_length:
            remedy = "remove the sample"
            if len(characters) <= MAX_LABEL_LENGTH:
                remedy = f"set dataset_info.max_sequence_length to {len(characters)}, or {remedy}"
            return f"found {text!r} with {len(characters)} characters; expected at most {self.max_length}; {remedy}"
        return None

    def encode(self, text: str) -> Labels:
        """Encode a label as classes ``(L,)``: its characters from left to right, ``<EOS>``, then ``<PAD>``.

        Raises:
            ValueError: `text` is not a label of this vocabulary; the message is that of `label_problem`.
        """
        if problem := self.label_problem(text):
            raise ValueError(f"label: {problem}")
        characters = self._left_to_right(self.split(text))
        encoded = np.full(self.positions, self.special.pad, np.int16)
        encoded[: len(characters)] = [self._class_of[character] for character in characters]
        encoded[len(characters)] = self.special.eos
        return encoded

    def decode(self, classes: Iterable[int]) -> str:
        """Decode classes to text: the characters before the first ``<EOS>``, without the other special symbols."""
        characters, eos = [], self.special.eos
        for index in classes:
            if index == eos:
                break
            if 0 <= index < eos:
                characters.append(self.characters[index])
        return "".join(self._left_to_right(characters))

    def _left_to_right(self, characters: list[str]) -> list[str]:
        """Reorder characters between the order of the text and their order in an image, from left to right.

        The two orders differ in right-to-left scripts: the text is reversed, but not the numbers in it. The function
        is its own inverse.
        """
        if not is_right_to_left(self.characters):
            return characters
        runs = [(is_number, list(run)) for is_number, run in groupby(characters, _is_number)]
        return [character for is_number, run in reversed(runs) for character in (run if is_number else reversed(run))]

    def _in_own_digits(self, characters: Sequence[str]) -> str | None:
        """Convert a number in the digits of another script to the digits of this vocabulary; None if impossible."""
        digits = {unicodedata.decimal(own): own for own in self.characters if own.isdecimal() and len(own) == 1}
        values = [unicodedata.decimal(character, None) for character in characters if len(character) == 1]
        known = [digits[value] for value in values if value in digits]
        return "".join(known) if len(known) == len(characters) else None

    @cached_property
    def _class_of(self) -> dict[str, int]:
        return {character: number for number, character in enumerate(self.characters)}

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        longest_first = sorted(self.characters, key=len, reverse=True)
        return re.compile("|".join([*map(re.escape, longest_first), "."]), re.DOTALL)


def split_characters(text: str) -> list[str]:
    """Split a text into characters: code points with the combining marks and conjuncts that belong to them.

    The text is normalised to NFC, and white space is ignored. The rule approximates the extended grapheme clusters of
    Unicode Standard Annex 29, and also keeps Khmer consonants with their subscripts together.
    """
    characters: list[str] = []
    previous = " "
    for character in unicodedata.normalize("NFC", text):
        joins = previous[-1] == "\u200d" or unicodedata.combining(previous[-1]) == _VIRAMA_CLASS
        continues = unicodedata.category(character).startswith("M") or character in _JOINERS or joins
        if character.isspace():
            previous = " "
        elif continues and not previous.isspace():
            characters[-1] += character
            previous = character
        else:
            characters.append(character)
            previous = character
    return characters


def character_problems(characters: Sequence[str]) -> list[str]:
    """Return why these texts in NFC are not the characters of a vocabulary, with the remedies, a line each."""
    problems = [
        f"found {character!r} {count} times; expected each character once; remove all but one"
        for character, count in Counter(characters).items()
        if count > 1
    ]
    problems += [
        f"found {character!r}; expected one character for each entry, or {', '.join(SPECIAL_SYMBOLS)}; "
        + (f"use [{', '.join(split_characters(character))}]" if _is_word(character) else "remove this entry")
        for character in dict.fromkeys(characters)
        if not _is_character(character)
    ]
    if is_right_to_left(tuple(filter(None, characters))):
        # The position of any other character in an image depends on its neighbours.
        problems += [
            f"found {code_point_text(character)} in a right-to-left character set; expected only letters of such a "
            "script, their marks and digits; remove this entry"
            for character in dict.fromkeys(filter(None, characters))
            if unicodedata.bidirectional(character[0]) not in ("R", "AL", "NSM", "EN", "AN")
        ]
    if not 1 <= len(characters) <= MAX_CHARACTERS:
        remedy = "list the characters of the labels" if not characters else "remove the characters that no label has"
        problems.append(f"found {len(characters)} characters; expected 1 to {MAX_CHARACTERS}; {remedy}")
    return problems


@cache
def is_right_to_left(characters: tuple[str, ...]) -> bool:
    """Return whether there are letters of a right-to-left script among these characters."""
    return any(unicodedata.bidirectional(character[0]) in ("R", "AL") for character in characters)


def code_point_text(character: str) -> str:
    """Format a character with its code points: ``'a' (U+0061)``."""
    return f"{character!r} ({' '.join(f'U+{ord(part):04X}' for part in character)})"


def _is_character(text: str) -> bool:
    if len(text) == 1:
        return unicodedata.category(text) not in ("Cc", "Cs", "Cf", "Zl", "Zp")
    return split_characters(text) == [text]


def _is_word(text: str) -> bool:
    return len(split_characters(text)) > 1 and not (text.startswith("<") and text.endswith(">"))


def _is_number(character: str) -> bool:
    return unicodedata.bidirectional(character[0]) in ("EN", "AN")
