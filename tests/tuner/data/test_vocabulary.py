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


def test_vocabulary_has_ten_digits_and_three_special_symbols() -> None:
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
def test_label_is_encoded_as_digits_eos_pad_and_decoded_back(label: str, expected: list[int]) -> None:
    encoded = encode_label(label)
    assert encoded.dtype == np.uint8
    assert encoded.tolist() == expected
    assert decode_label(encoded) == label


def test_label_can_be_encoded_with_another_length() -> None:
    assert encode_label("១២", length=4).tolist() == [1, 2, 10, 11]


@pytest.mark.parametrize(
    ("indices", "expected"),
    [([3, 10, 4], "៣"), ([12, 3, 11, 4], "៣៤"), ([10], ""), ([1] * 9, "១" * 9), ([], "")],
)
def test_decoding_stops_at_eos_and_skips_pad_and_blank(indices: list[int], expected: str) -> None:
    assert decode_label(indices) == expected


@pytest.mark.parametrize(
    ("label", "message"),
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
def test_problem_of_an_invalid_label_names_the_invalid_part(label: object, message: str) -> None:
    problem = label_problem(label)
    assert problem is not None
    assert message in problem
    if isinstance(label, str):
        with pytest.raises(ValueError, match="label"):
            encode_label(label)


def test_longest_valid_label_leaves_one_position_for_eos() -> None:
    assert label_problem("០" * (LABEL_LENGTH - 1)) is None
