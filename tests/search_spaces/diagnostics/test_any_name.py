"""A valid name is a single folder name without special characters, in one spelling."""

import unicodedata

from hypothesis import example, given
from hypothesis import strategies as st

from search_spaces.diagnostics.names import name_problem

NAMES = st.text(max_size=70) | st.text(
    st.characters(categories=["L", "M", "N"], include_characters="_-. "), max_size=70
)


@given(name=NAMES)
@example("..")
@example("study.db-journal")
@example("a/b")
@example("search_0007")
@example("a" * 64)
@example("\N{KHMER LETTER KA}" * 64)
@example("I\N{COMBINING DOT ABOVE}")
def test_valid_name_is_one_short_normalised_part_of_a_path(name):
    if name_problem(name) is None:
        assert not set(name) & set("/\\\0\n:*?\"<>|'`$&;(){}[]#%=@,!~")
        assert name not in (".", "..")
        assert 1 <= len(name) <= 64
        assert len(name.encode()) <= 200
        assert unicodedata.normalize("NFC", name) == name
        assert name == name.strip()
        assert name.isprintable()
        assert not name.startswith("-")


@given(name=NAMES)
def test_problem_of_a_name_is_one_printable_line(name):
    problem = name_problem(name)
    assert problem is None or problem.isprintable()


@given(value=st.none() | st.booleans() | st.integers() | st.floats() | st.binary() | st.lists(st.text()))
def test_value_that_is_not_text_is_not_a_name(value):
    assert name_problem(value) is not None
