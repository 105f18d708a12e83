import unicodedata

import pytest

from search_spaces import name_problem


@pytest.mark.parametrize(
    "name",
    [
        "conservative_small",
        "a",
        "x" * 64,
        "ខ្មែរ",
        "ការពិសោធន៍ ១",
        "naïve",
        "lr 1e-3 v2.1",
        "2024-01-01",
        "search_7",
        "artifacts2",
        "...x",
        "日本語" * 21,
    ],
)
def test_valid_name_has_no_problem(name):
    assert name_problem(name) is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "1 to 64 characters"),
        ("x" * 65, "this name has 65"),
        ("𝒳" * 64, "256"),
        (".", "reserved for the output folder"),
        ("..", "reserved for the output folder"),
        ("../../x", "'/'"),
        ("/etc/x", "'/'"),
        ("a\\b", "letters, marks and digits"),
        ("a\nb", r"'\n'"),
        ("a\0b", r"'\x00'"),
        ("a\u202eb", r"'\u202e'"),
        ("\ud800", r"'\ud800'"),
        ("a:b", "':'"),
        ("🙂", "letters, marks and digits"),
        ("study.db", "reserved for the output folder"),
        ("Study.DB-journal", "reserved for the output folder"),
        (".study", "reserved for the output folder"),
        ("ARTIFACTS", "reserved for the output folder"),
        ("search_0007", "search trials"),
        ("SEARCH_123456", "search trials"),
        (" a", "space"),
        ("a ", "space"),
        ("-x", "option"),
        (unicodedata.normalize("NFD", "naïve"), "NFC"),
        (1, "put the name in quotes: '1'"),
        (None, "put the name in quotes"),
    ],
)
def test_invalid_name_has_a_problem(name, message):
    assert message in str(name_problem(name))


def test_problem_of_any_name_is_printable():
    for code in (*range(0, 0x300), 0x202E, 0xD800, 0xFFFF):
        problem = name_problem(f"a{chr(code)}b") or ""
        assert problem.encode("utf-8").decode().isprintable()
