"""Encoding and decoding of any label."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.data.vocabulary import BLANK, DIGITS, EOS, LABEL_LENGTH, PAD, decode_label, encode_label, label_problem

LENGTHS = st.integers(2, 12)
CLASSES = st.lists(st.integers(0, BLANK), max_size=20)


@given(text=st.text(DIGITS, min_size=1, max_size=8))
def test_decoding_an_encoded_label_gives_the_label(text: str) -> None:
    assert decode_label(encode_label(text)) == text


@given(text=st.text(DIGITS + "0៰a\n", max_size=12) | st.text(max_size=10), length=LENGTHS)
def test_label_is_encoded_exactly_if_it_has_no_problem(text: str, length: int) -> None:
    if label_problem(text, length) is not None:
        with pytest.raises(ValueError, match="label"):
            encode_label(text, length)
        return
    row = encode_label(text, length).tolist()
    assert len(row) == length
    assert row == [*map(DIGITS.index, text), EOS, *[PAD] * (length - 1 - len(text))]
    assert decode_label(row) == text


@given(value=st.none() | st.integers() | st.floats() | st.binary() | st.lists(st.text(DIGITS)))
def test_value_that_is_no_text_is_refused_as_label(value: object) -> None:
    assert label_problem(value, LABEL_LENGTH) is not None


@given(row=CLASSES)
def test_any_row_is_decoded_up_to_eos(row: list[int]) -> None:
    before = row[: row.index(EOS)] if EOS in row else row
    assert decode_label(row) == "".join(DIGITS[index] for index in before if index < EOS)
