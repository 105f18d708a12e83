from __future__ import annotations

import pytest

from search_spaces.diagnostics.plural import counted, listed


@pytest.mark.parametrize(
    ("number", "things", "text"),
    [(0, "", "0 trials"), (1, "", "1 trial"), (1200, "", "1,200 trials"), (2, "pieces", "2 pieces")],
)
def test_numbers_of_things(number: int, things: str, text: str) -> None:
    assert counted(number, "trial", things) == text


@pytest.mark.parametrize(("most", "text"), [(3, "a, b, c"), (2, "a, b and 1 more"), (9, "a, b, c")])
def test_only_the_first_names_are_listed(most: int, text: str) -> None:
    assert listed(["a", "b", "c"], most) == text
