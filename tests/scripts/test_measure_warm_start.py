"""The spaces and the counts of `scripts/measure_warm_start.py`."""

import importlib
from pathlib import Path

import pytest
import yaml

from search_spaces import parse_search_space

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("measure_warm_start")


def test_spaces_differ_only_in_the_ranges_that_their_names_say(script):
    texts = {name: text.replace("1e-", "1.0e-").replace("3e-", "3.0e-") for name, text in script.SPACES.items()}
    spaces = {name: parse_search_space({"base": {}, **yaml.safe_load(text)}) for name, text in texts.items()}
    changed = {
        name: {old.name for old, new in zip(spaces["wide"], space, strict=True) if old != new}
        for name, space in spaces.items()
    }
    assert changed == {
        "wide": set(),
        "narrowed": {"batch_size", "learning_rate", "weight_decay"},
        "too_narrow": {"batch_size", "learning_rate"},
    }
    for name in ("narrowed", "too_narrow"):
        assert all(set(spaces["wide"].values_of(one)) != set(spaces[name].values_of(one)) for one in changed[name])


@pytest.mark.parametrize(("values", "trials"), [([0.1, 0.5, 0.4], 2), ([0.5], 1), ([0.1, 0.2], 21), ([], 21)])
def test_trials_until_the_goal_are_counted(values, trials, script):
    assert script._trials_to(0.5, values) == trials
