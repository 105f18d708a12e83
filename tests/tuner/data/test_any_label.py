"""Encoding and decoding of any label in any vocabulary."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.data.vocabulary import KHMER_DIGITS, Vocabulary, character_problems

POOL = [*KHMER_DIGITS, *"abAé -", "ក", "ក្ក", "្ក", "ា", "カ", "1", "٢"]
RIGHT_TO_LEFT = ["א", "ב", "ب", "\u064e", "1", "2", "٢"]
VOCABULARIES = st.builds(
    Vocabulary,
    st.sampled_from([POOL, RIGHT_TO_LEFT]).flatmap(
        lambda pool: st.lists(st.sampled_from(pool), min_size=1, max_size=12, unique=True).map(tuple)
    ),
    st.integers(1, 24),
)


@given(vocabulary=VOCABULARIES, data=st.data())
def test_decoding_an_encoded_label_gives_the_label(vocabulary, data):
    length = data.draw(st.integers(1, vocabulary.max_length))
    text = "".join(data.draw(st.lists(st.sampled_from(vocabulary.characters), min_size=length, max_size=length)))
    assert vocabulary.decode(vocabulary.encode(text)) == unicodedata.normalize("NFC", text)


@given(vocabulary=VOCABULARIES, text=st.text("".join(POOL), max_size=12) | st.text(max_size=10))
def test_label_is_encoded_exactly_if_it_has_no_problem(vocabulary, text):
    if vocabulary.label_problem(text) is not None:
        with pytest.raises(ValueError, match="label"):
            vocabulary.encode(text)
        return
    eos, pad, _ = vocabulary.special
    row = vocabulary.encode(text).tolist()
    count = row.index(eos)
    assert len(row) == vocabulary.positions
    assert all(index < eos for index in row[:count])
    assert row[count + 1 :] == [pad] * (vocabulary.max_length - count)
    assert vocabulary.decode(row) == unicodedata.normalize("NFC", text)


@given(characters=st.lists(st.text(max_size=3), max_size=6))
def test_character_sets_without_problems_encode_each_of_their_characters(characters):
    characters = [unicodedata.normalize("NFC", character) for character in characters]
    if not character_problems(characters):
        vocabulary = Vocabulary(tuple(characters), 1)
        assert [vocabulary.encode(character)[0] for character in characters] == list(range(len(characters)))


@given(vocabulary=VOCABULARIES, row=st.lists(st.integers(0, 20), max_size=20))
def test_any_row_is_decoded_up_to_eos(vocabulary, row):
    eos = vocabulary.special.eos
    before = row[: row.index(eos)] if eos in row else row
    expected = sorted(vocabulary.characters[index] for index in before if index < eos)
    assert sorted(vocabulary.decode(row)) == sorted("".join(expected))
