from __future__ import annotations

import numpy as np
import pytest

from tuner.data.vocabulary import (
    BLANK,
    CHARACTER_SET,
    DIGITS,
    EOS,
    LABEL_LENGTH,
    PAD,
    VOCABULARY_SIZE,
    decode_label,
    encode_label,
    label_problem,
)


def test_vocabulary_is_ten_digits_and_three_signs() -> None:
    assert len(CHARACTER_SET) == VOCABULARY_SIZE == 13
    assert [ord(digit) for digit in DIGITS] == list(range(0x17E0, 0x17EA))
    assert (CHARACTER_SET[EOS], CHARACTER_SET[PAD], CHARACTER_SET[BLANK]) == ("<EOS>", "<PAD>", "<BLANK>")


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("០", [0, 10, 11, 11, 11, 11, 11, 11, 11]),
        ("០៣៩៦", [0, 3, 9, 6, 10, 11, 11, 11, 11]),
        ("១២៣៤៥៦៧៨", [1, 2, 3, 4, 5, 6, 7, 8, 10]),
    ],
)
def test_label_becomes_digits_eos_pad_and_back(label: str, expected: list[int]) -> None:
    encoded = encode_label(label)
    assert encoded.dtype == np.uint8
    assert encoded.tolist() == expected
    assert decode_label(encoded) == label


def test_label_of_another_length() -> None:
    assert encode_label("១២", length=4).tolist() == [1, 2, 10, 11]


@pytest.mark.parametrize(
    ("indices", "expected"),
    [([3, 10, 4], "៣"), ([12, 3, 11, 4], "៣៤"), ([10], ""), ([1] * 9, "១" * 9), ([], "")],
)
def test_decoding_stops_at_eos_and_passes_over_the_other_signs(indices: list[int], expected: str) -> None:
    assert decode_label(indices) == expected


@pytest.mark.parametrize(
    ("label", "told"),
    [
        ("", "empty"),
        ("១២៣៤៥៦៧៨៩", "9 digits; expected at most 8"),
        ("12", "'1' (U+0031), '2' (U+0032)"),
        ("១x", "'x' (U+0078)"),
        ("១ ២", "U+0020"),
        ("๑", "U+0E51"),  # a Thai digit
        (396, "396"),
        (None, "None"),
    ],
)
def test_bad_label_is_told_with_what_was_found(label: object, told: str) -> None:
    problem = label_problem(label)
    assert problem is not None
    assert told in problem
    if isinstance(label, str):
        with pytest.raises(ValueError, match="label"):
            encode_label(label)


def test_longest_label_fills_all_but_the_place_of_eos() -> None:
    assert label_problem("០" * (LABEL_LENGTH - 1)) is None
