import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces import ConfigurationError, create_training_config
from tuner.data.vocabulary import (
    KHMER_DIGITS,
    MAX_CHARACTERS,
    MAX_LABEL_LENGTH,
    SpecialIndices,
    Vocabulary,
    character_problems,
    split_characters,
)

DIGITS = Vocabulary()
LETTERS = Vocabulary(tuple("CAB"), 3)
KHMER = Vocabulary(("ក", "ក្ក", "ា", "ខ"), 4)
HEBREW = Vocabulary(tuple("אבג12"), 5)
LARGE = Vocabulary(tuple(chr(0x4E00 + number) for number in range(500)), 24)


def test_default_vocabulary_is_that_of_khmer_digits():
    assert [ord(digit) for digit in DIGITS.characters] == list(range(0x17E0, 0x17EA))
    assert DIGITS.sizes == {"vocab_size": 13, "max_sequence_length": 9}
    assert DIGITS.special == SpecialIndices(eos=10, pad=11, blank=12)


def test_largest_vocabulary_is_the_largest_that_an_experiment_can_state():
    sizes = {"vocab_size": MAX_CHARACTERS + 3, "max_sequence_length": MAX_LABEL_LENGTH + 1}
    assert LARGE.sizes == sizes
    create_training_config({"model": sizes})
    for field, size in sizes.items():
        with pytest.raises(ConfigurationError, match=field):
            create_training_config({"model": {field: size + 1}})


@pytest.mark.parametrize(
    ("vocabulary", "label", "expected"),
    [
        (DIGITS, "០", [0, 10, 11, 11, 11, 11, 11, 11, 11]),
        (DIGITS, "០៣៩៦", [0, 3, 9, 6, 10, 11, 11, 11, 11]),
        (DIGITS, "១២៣៤៥៦៧៨", [1, 2, 3, 4, 5, 6, 7, 8, 10]),
        (LETTERS, "ABC", [1, 2, 0, 3]),
        (KHMER, "ក្កាក", [1, 2, 0, 4, 5]),
        (LARGE, chr(0x4E00 + 499), [499, 500, *[501] * 23]),
        (Vocabulary(("é", "e"), 2), "e\u0301e", [0, 1, 2]),
        # From left to right in the image: the letters are reversed, the number is not.
        (HEBREW, "אב12ג", [2, 3, 4, 1, 0, 5]),
    ],
)
def test_label_is_encoded_in_the_order_of_the_image_and_decoded_back(vocabulary, label, expected):
    encoded = vocabulary.encode(label)
    assert encoded.dtype == np.int16
    assert encoded.tolist() == expected
    assert vocabulary.decode(encoded) == label.replace("e\u0301", "é")


@pytest.mark.parametrize(
    ("indices", "expected"),
    [([3, 10, 4], "៣"), ([12, 3, 11, 4], "៣៤"), ([10], ""), ([1] * 9, "១" * 9), ([], "")],
)
def test_decoding_stops_at_eos_and_skips_pad_and_blank(indices, expected):
    assert DIGITS.decode(indices) == expected


@pytest.mark.parametrize(
    ("vocabulary", "label", "parts"),
    [
        (DIGITS, "", ["empty", "expected 1 to 8 of the characters ០១២៣៤៥៦៧៨៩"]),
        (DIGITS, "១២៣៤៥៦៧៨៩", ["9 characters; expected at most 8", "set dataset_info.max_sequence_length to 9"]),
        (DIGITS, "១" * 25, ["25 characters; expected at most 8; remove the sample"]),
        (DIGITS, "12", ["'1' (U+0031), '2' (U+0032)", "write '១២'"]),
        (DIGITS, "១x", ["'x' (U+0078)", "add the missing characters to dataset_info.character_set"]),
        (DIGITS, "១ ២", ["U+0020"]),
        (DIGITS, "๑", ["U+0E51", "write '១'"]),  # a Thai digit
        (LETTERS, "ABx", ["'x' (U+0078)", "only the characters CAB"]),
        (LETTERS, "AAAA", ["max_sequence_length to 4"]),
        (LARGE, "x", ["and 460 more"]),
    ],
)
def test_problem_of_an_invalid_label_names_the_invalid_part_and_the_remedy(vocabulary, label, parts):
    problem = vocabulary.label_problem(label)
    assert problem is not None
    assert all(part in problem for part in parts), problem
    with pytest.raises(ValueError, match="label"):
        vocabulary.encode(label)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("abc", ["a", "b", "c"]),
        (" a\n b\t", ["a", "b"]),
        ("e\u0301x", ["é", "x"]),
        ("ក្កាខ", ["ក្កា", "ខ"]),
        ("\u0301", ["\u0301"]),
        ("a \u0301", ["a", "\u0301"]),
        ("", []),
    ],
)
def test_text_is_split_into_characters_with_their_marks(text, expected):
    assert split_characters(text) == expected


@pytest.mark.parametrize(
    "characters",
    [list(KHMER_DIGITS), ["ក្ក", "ក", "ា"], [" ", "-"], ["א", "ב", "1"], ["ب", "\u064e", "٢"], list(LARGE.characters)],
)
def test_characters_of_any_script_are_accepted(characters):
    assert character_problems(characters) == []


@pytest.mark.parametrize(
    ("characters", "message"),
    [
        (["a", "b", "a"], "found 'a' 2 times; expected each character once; remove all but one"),
        (["a", "bcd"], "found 'bcd'; expected one character for each entry, or <EOS>, <PAD>, <BLANK>; use [b, c, d]"),
        (["<UNK>"], "found '<UNK>'; expected one character for each entry, or <EOS>, <PAD>, <BLANK>; remove this"),
        (["a", ""], "found ''; expected one character"),
        (["a", "\n"], "found '\\n'; expected one character"),
        ([], "found 0 characters; expected 1 to 500; list the characters of the labels"),
        ([*LARGE.characters, "a"], "found 501 characters; expected 1 to 500"),
        (["א", "a"], "found 'a' (U+0061) in a right-to-left character set; expected only letters of such a script"),
        (["ب", " "], "found ' ' (U+0020) in a right-to-left character set"),
    ],
)
def test_problem_of_a_character_set_names_the_entry_and_the_remedy(characters, message):
    (problem,) = character_problems(characters)
    assert problem.startswith(message)


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
