"""The report shows the results of `confirm` if they match the trials of the study."""

import copy
import json

import pytest

METRICS = ("val_char_accuracy", "val_seq_accuracy", "test_char_accuracy", "test_seq_accuracy")
SENTENCE = "no significant difference between search_0000 and search_0001: -0.0112 test char <b>"
CONFIRMATION = {
    "seeds": [1, 2],
    "configurations": [
        {
            "name": "search_0000",
            "first_val_char_accuracy": 0.75,
            "mean": dict.fromkeys(METRICS, 0.7),
            "standard_deviation": dict.fromkeys(METRICS, 0.0123),
        },
        {
            "name": "search_0001",
            "first_val_char_accuracy": 0.5,
            "mean": dict.fromkeys(METRICS),
            "standard_deviation": dict.fromkeys(METRICS),
        },
    ],
    "comparisons": [{"sentence": SENTENCE}],
}


@pytest.fixture
def section_of(start, add_trials, report):
    """Return the confirmation section of the report on two trials, given the content of the confirmation file."""
    study, folder = start()
    add_trials(study, [0.75, 0.5])

    def section(text):
        folder.confirmation_path.parent.mkdir(exist_ok=True)
        folder.confirmation_path.write_text(text, encoding="utf-8")
        return report(folder).texts["confirmation"]

    return section


def test_results_of_confirm_are_in_the_report(section_of):
    lines = section_of(json.dumps(CONFIRMATION)).splitlines()
    assert "search_00000.75000.7000 ± 0.01230.7000 ± 0.01230.7000 ± 0.0123" in lines
    assert "search_00010.5000–––" in lines
    assert SENTENCE in lines
    assert "seeds 1, 2." in " ".join(lines)


def test_damaged_or_foreign_confirmation_is_not_in_the_report(section_of):
    other, unknown, incomplete, headless = (copy.deepcopy(CONFIRMATION) for _ in range(4))
    other["configurations"][1]["first_val_char_accuracy"] = 0.51
    unknown["configurations"][1]["name"] = "search_0002"
    del incomplete["configurations"][0]["mean"], headless["comparisons"]
    for text in ("", "[]", "{", *map(json.dumps, (other, unknown, incomplete, headless))):
        assert "No current results" in section_of(text), text


def test_changed_settings_of_the_confirmation_are_shown(section_of):
    changed = section_of(json.dumps({"set": ["training.num_epochs=1", "data.augmentation=false"]} | CONFIRMATION))
    assert "Changed settings: --set training.num_epochs=1 --set data.augmentation=false." in changed
    assert "--set" not in section_of(json.dumps({"set": []} | CONFIRMATION))
