from __future__ import annotations

import time

import pytest

from studies import TrialKind, TrialPhase, TrialRecord
from tuner.session.run_options import StopConditions, TrialFilter


def record(kind: TrialKind, name: str) -> TrialRecord:
    return TrialRecord(0, kind, TrialPhase.WAITING, name, {}, "", (), None)


@pytest.mark.parametrize(
    ("scope", "held"),
    [
        (TrialFilter(), {"one", "two", "search_0002"}),
        (TrialFilter(search=False), {"one", "two"}),
        (TrialFilter(frozenset({"one"})), {"one", "search_0002"}),
        (TrialFilter(frozenset({"one", "other"}), search=False), {"one"}),
        (TrialFilter(frozenset()), {"search_0002"}),
    ],
)
def test_a_scope_holds_presets_by_name_and_search_trials_together(scope: TrialFilter, held: set[str]) -> None:
    records = [
        record(TrialKind.PRESET, "one"),
        record(TrialKind.PRESET, "two"),
        record(TrialKind.SEARCH, "search_0002"),
    ]
    assert {item.experiment_name for item in records if scope.holds(item)} == held


@pytest.mark.parametrize(
    ("scope", "grows"),
    [
        (TrialFilter(), True),
        (TrialFilter(frozenset({"one"})), True),
        (TrialFilter(search=False), True),
        (TrialFilter(frozenset({"one"}), search=False), False),
    ],
)
def test_only_a_scope_of_named_experiments_cannot_grow(scope: TrialFilter, grows: bool) -> None:
    assert scope.may_gain_trials == grows


def test_time_is_up_at_the_deadline_and_never_without_one() -> None:
    assert not StopConditions().timed_out
    assert not StopConditions(deadline=time.monotonic() + 1000).timed_out
    assert StopConditions(deadline=time.monotonic()).timed_out
