"""Whatever is accepted as a name is one folder, and survives where names go."""

from __future__ import annotations

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
def test_an_accepted_name_is_one_short_part_of_a_path_in_one_spelling(name: str) -> None:
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
def test_a_refused_name_is_told_why_in_one_printable_line(name: str) -> None:
    problem = name_problem(name)
    assert problem is None or problem.isprintable()


@given(thing=st.none() | st.booleans() | st.integers() | st.floats() | st.binary() | st.lists(st.text()))
def test_what_is_no_text_is_no_name(thing: object) -> None:
    assert name_problem(thing) is not None
