import pytest
from PIL import features

from search_spaces.errors import ConfigurationError
from tuner.data.generation.recipe import read_characters
from tuner.data.vocabulary import KHMER_DIGITS


@pytest.mark.parametrize(
    ("text", "characters"),
    [
        (KHMER_DIGITS, [*KHMER_DIGITS]),
        (" a b\tc\n", ["a", "b", "c"]),
        ("ក្ក ខ្ម កា", ["ក្ក", "ខ្ម", "កា"]),
        ("e\u0301", ["é"]),
        ("0123456789.-/", [*"0123456789.-/"]),
        ("0123456789 .abc", [*"0123456789.abc"]),
    ],
)
def test_text_is_split_into_characters(text, characters):
    assert read_characters(text) == tuple(characters)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_characters_are_read_from_an_existing_file(encoding, tmp_path):
    (tmp_path / "letters.txt").write_text("ក ខ គ\nក្ក\n", encoding=encoding)
    assert read_characters(str(tmp_path / "letters.txt")) == ("ក", "ខ", "គ", "ក្ក")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("letters.txt", "found no file 'letters.txt'; expected a file, or the characters"),
        ("chars.yml", "found no file"),
        ("fonts/km", "found no file"),
        ("abca", "found 'a' 2 times; .* remove all but one .there is no file 'abca'"),
        ("ក្ក ខ ក្ក", "found 'ក្ក' 2 times"),
        (" \n", "found 0 characters; expected 1 to 500"),
        ("".join(map(chr, range(0x4E00, 0x4E00 + 501))), "found 501 characters; expected 1 to 500"),
    ],
)
def test_text_that_is_probably_a_mistake_is_refused(text, message):
    with pytest.raises(ConfigurationError, match=message):
        read_characters(text)


def test_only_shaped_characters_need_libraqm(monkeypatch):
    monkeypatch.setattr(features, "check", lambda feature: feature != "raqm")  # Pillow has loaded it already
    assert read_characters("កខ") == ("ក", "ខ")
    for text in ("ក្ក", "اب", "अब"):
        with pytest.raises(ConfigurationError, match="on Debian libfribidi0, or libraqm0"):
            read_characters(text)
