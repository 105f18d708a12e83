import pytest

from search_spaces.diagnostics.wording import counted, listed


@pytest.mark.parametrize(
    ("number", "things", "text"),
    [(0, "", "0 trials"), (1, "", "1 trial"), (1200, "", "1,200 trials"), (2, "processes", "2 processes")],
)
def test_count_with_singular_or_plural(number, things, text):
    assert counted(number, "trial", things) == text


@pytest.mark.parametrize(("limit", "text"), [(3, "a, b, c"), (2, "a, b and 1 more"), (9, "a, b, c")])
def test_only_the_first_names_are_listed(limit, text):
    assert listed(["a", "b", "c"], limit) == text
