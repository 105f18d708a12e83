"""Labels as numbers and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.data.vocabulary import BLANK, DIGITS, EOS, LABEL_LENGTH, PAD, decode_label, encode_label, label_problem

LENGTHS = st.integers(2, 12)
CLASSES = st.lists(st.integers(0, BLANK), max_size=20)


@given(text=st.text(DIGITS, min_size=1, max_size=8))
def test_a_label_is_read_back(text: str) -> None:
    assert decode_label(encode_label(text)) == text


@given(text=st.text(DIGITS + "0៰a\n", max_size=12) | st.text(max_size=10), length=LENGTHS)
def test_a_label_is_encoded_exactly_if_nothing_is_wrong_with_it(text: str, length: int) -> None:
    if label_problem(text, length) is not None:
        with pytest.raises(ValueError, match="label"):
            encode_label(text, length)
        return
    row = encode_label(text, length).tolist()
    assert len(row) == length
    assert row == [*map(DIGITS.index, text), EOS, *[PAD] * (length - 1 - len(text))]
    assert decode_label(row) == text


@given(thing=st.none() | st.integers() | st.floats() | st.binary() | st.lists(st.text(DIGITS)))
def test_what_is_no_text_is_no_label(thing: object) -> None:
    assert label_problem(thing, LABEL_LENGTH) is not None


@given(row=CLASSES)
def test_any_row_is_read_up_to_its_end(row: list[int]) -> None:
    before = row[: row.index(EOS)] if EOS in row else row
    assert decode_label(row) == "".join(DIGITS[index] for index in before if index < EOS)
