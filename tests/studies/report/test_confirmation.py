"""The report shows what `confirm` has written, as long as it is about the trials of the study."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import optuna
import pytest

from studies import OutputFolder

if TYPE_CHECKING:
    from tests.studies.report.conftest import AddTrials, Report

Start = Callable[..., tuple[optuna.Study, OutputFolder]]

FIGURES = ("val_char_accuracy", "val_seq_accuracy", "test_char_accuracy", "test_seq_accuracy")
SENTENCE = "no difference shown between search_0000 and search_0001: -0.0112 test char <b>"
FOUND: dict[str, Any] = {
    "seeds": [1, 2],
    "configurations": [
        {
            "name": "search_0000",
            "first_val_char_accuracy": 0.75,
            "mean": dict.fromkeys(FIGURES, 0.7),
            "standard_deviation": dict.fromkeys(FIGURES, 0.0123),
        },
        {
            "name": "search_0001",
            "first_val_char_accuracy": 0.5,
            "mean": dict.fromkeys(FIGURES),
            "standard_deviation": dict.fromkeys(FIGURES),
        },
    ],
    "comparisons": [{"sentence": SENTENCE}],
}


@pytest.fixture
def told(start: Start, add_trials: AddTrials, report: Report) -> Callable[[str], str]:
    """Report on a study of two trials beside which `confirm` has left a text; return the section."""
    study, folder = start()
    add_trials(study, [0.75, 0.5])

    def tell(text: str) -> str:
        folder.confirmation_path.parent.mkdir(exist_ok=True)
        folder.confirmation_path.write_text(text, encoding="utf-8")
        return report(folder).texts["confirmation"]

    return tell


def test_the_figures_and_sentences_of_confirm_are_in_the_report(told: Callable[[str], str]) -> None:
    lines = told(json.dumps(FOUND)).splitlines()
    assert "search_00000.75000.7000 ± 0.01230.7000 ± 0.01230.7000 ± 0.0123" in lines
    assert "search_00010.5000–––" in lines
    assert SENTENCE in lines
    assert "seeds 1, 2:" in " ".join(lines)


def test_what_is_about_other_trials_or_damaged_is_not_in_the_report(told: Callable[[str], str]) -> None:
    other, unknown, incomplete, headless = (copy.deepcopy(FOUND) for _ in range(4))
    other["configurations"][1]["first_val_char_accuracy"] = 0.51
    unknown["configurations"][1]["name"] = "search_0002"
    del incomplete["configurations"][0]["mean"], headless["comparisons"]
    for text in ("", "[]", "{", *map(json.dumps, (other, unknown, incomplete, headless))):
        assert "Not done yet" in told(text), text


def test_settings_that_were_changed_for_the_confirmation_are_named(told: Callable[[str], str]) -> None:
    changed = told(json.dumps({"set": ["training.num_epochs=1", "data.augmentation=false"]} | FOUND))
    assert "Their settings were changed: --set training.num_epochs=1 --set data.augmentation=false." in changed
    assert "--set" not in told(json.dumps({"set": []} | FOUND))
