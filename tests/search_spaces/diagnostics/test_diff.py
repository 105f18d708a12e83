import pytest

from search_spaces.diagnostics.wording import as_written, changes


def test_changes_list_old_names_before_new_names():
    old = {"width": 64, "height": 32, "depth": 1}
    new = {"colour": "grey", "depth": 2, "width": 64}
    assert changes(old, new, "the ") == [
        "the height was removed",
        "the depth was 1 and is 2 now",
        "the colour was added",
    ]
    assert changes(old, dict(reversed(old.items()))) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"low": 1e-4, "log": True}, "{low: 0.0001, log: true}"),
        ({"choices": ["a", False], "when": {"b": (1, 2)}}, "{choices: [a, false], when: {b: [1, 2]}}"),
        ("ខ្មែរ", "ខ្មែរ"),
        (0.9, "0.9"),
    ],
)
def test_values_are_shown_as_in_a_file(value, text):
    assert as_written(value) == text
