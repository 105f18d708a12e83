"""The 13 symbols of the vocabulary, and the encoding of labels.

A label is encoded as nine numbers: its digits, `EOS`, then `PAD`. `BLANK` is for CTC only and never part of a label.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from search_spaces.training_config import TrainingConfig

DIGITS = "០១២៣៤៥៦៧៨៩"
EOS = 10
PAD = 11
BLANK = 12
VOCABULARY_SIZE = 13
CHARACTER_SET = (*DIGITS, "<EOS>", "<PAD>", "<BLANK>")
LABEL_LENGTH = 9
MAX_DIGITS = LABEL_LENGTH - 1

_INDEX_OF = {digit: index for index, digit in enumerate(DIGITS)}


def vocabulary_problems(config: TrainingConfig) -> list[str]:
    """Return a problem for each of `vocab_size` and `max_sequence_length` that differs from its fixed value."""
    expected = {"vocab_size": VOCABULARY_SIZE, "max_sequence_length": LABEL_LENGTH}
    return [
        f"{field}: found {found!r}; expected {number}; use the default"
        for field, number in expected.items()
        if type(found := getattr(config, field)) is not int or found != number
    ]


def label_problem(text: object, length: int = LABEL_LENGTH) -> str | None:
    """Return why `text` is not a label of 1 to `length - 1` Khmer digits; None if `text` is one."""
    if not isinstance(text, str):
        hint = "; write the number in Khmer digits" if isinstance(text, int) else ""
        return f"found {text!r}; expected text of Khmer digits ({DIGITS}){hint}"
    if not text:
        return f"found an empty label; expected 1 to {length - 1} Khmer digits; write the digits in the image"
    invalid = sorted(set(text) - _INDEX_OF.keys())
    if invalid:
        listed = ", ".join(f"{character!r} (U+{ord(character):04X})" for character in invalid[:5])
        in_khmer = "".join(DIGITS[int(digit)] for digit in text if digit.isdecimal())
        remedy = (
            f"write {in_khmer!r}" if len(in_khmer) == len(text) else "write the image's digits, or remove the sample"
        )
        return f"found {text!r} with {listed}; expected Khmer digits only ({DIGITS}, U+17E0 to U+17E9); {remedy}"
    if len(text) >= length:
        return f"found {text!r} with {len(text)} digits; expected at most {length - 1}; remove the sample"
    return None


def encode_label(text: str, length: int = LABEL_LENGTH) -> npt.NDArray[np.uint8]:
    """Encode `text` as `length` numbers: its digits, `EOS`, then `PAD` up to the end.

    Raises:
        ValueError: `text` is empty, has more than `length - 1` characters, or has characters other than Khmer digits.
    """
    problem = label_problem(text, length)
    if problem:
        raise ValueError(f"label: {problem}")
    encoded = np.full(length, PAD, np.uint8)
    encoded[: len(text)] = [_INDEX_OF[digit] for digit in text]
    encoded[len(text)] = EOS
    return encoded


def decode_label(indices: Iterable[int]) -> str:
    """Decode label indices to text: the digits before the first `EOS`, without `PAD` and `BLANK`."""
    digits = []
    for index in indices:
        if index == EOS:
            break
        if 0 <= index < len(DIGITS):
            digits.append(DIGITS[index])
    return "".join(digits)
